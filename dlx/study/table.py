"""The table of a study: a row a group, mean and spread of each metric."""

from typing import Any, Mapping, Sequence

from dlx.study.declaration import Study
from dlx.study.results import Results


def rows_of(study: Study, results: Results) -> list[dict[str, Any]]:
  """Rows by column: those of the study, or one a group."""
  if study.rows is not None:
    return [dict(row) for row in study.rows(results)]
  return [
    {'group': group, **results.row(group, study.metrics)} for group in results.groups
  ]


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
  """A table of Markdown; '' of no row."""
  if not rows:
    return ''
  columns = list(dict.fromkeys(name for row in rows for name in row))
  cell = lambda x: str(x).replace('|', '\\|').replace('\n', ' ')
  line = lambda cells: f'| {" | ".join(map(cell, cells))} |\n'
  text = line(columns) + line('---' for _ in columns)
  return text + ''.join(line(row.get(name, '') for name in columns) for row in rows)


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
  """The same with columns under one another, for a terminal or a log."""
  if not rows:
    return ''
  columns = list(dict.fromkeys(name for row in rows for name in row))
  cells = [columns] + [[str(row.get(name, '')) for name in columns] for row in rows]
  wide = [max(len(row[i]) for row in cells) for i in range(len(columns))]
  lines = ('  '.join(x.ljust(n) for x, n in zip(row, wide)).rstrip() for row in cells)
  return '\n'.join(lines)
