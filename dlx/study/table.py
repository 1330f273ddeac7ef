"""The table of a study: a row a group, mean and spread of each metric."""

from typing import Any, Mapping, Sequence

from dlx.run.tables import Table
from dlx.study.declaration import Study
from dlx.study.results import Results

NOTE = 'Mean ± standard deviation of the runs of a group that did not diverge.'


def rows_of(study: Study, results: Results) -> list[dict[str, Any]]:
  """Rows by column: those of the study, or one a group."""
  if study.rows is not None:
    return [dict(row) for row in study.rows(results)]
  return [
    {'group': group, **results.row(group, study.metrics)} for group in results.groups
  ]


def as_table(
  rows: Sequence[Mapping[str, Any]], title: str = 'Results', note: str = NOTE
) -> Table:
  """The rows under a heading, a column for every name in any of them."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  cells = [[str(row.get(name, '')) for name in columns] for row in rows]
  return Table(title, columns, cells, note)
