"""Tables of words: for the terminal, for Markdown and for a page alike."""

from typing import NamedTuple, Sequence

from dlx.run.answers import printable


class Table(NamedTuple):
  """Attributes:
  title: heading.
  columns: names, one a column.
  rows: a word for each column; '' where there is nothing to say.
  note: a sentence below it, or ''.
  words: number of columns, from the left, that hold words: they start at the left, the
    others, which hold numbers, end at the right.
  """

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ''
  words: int = 1


def markdown(table: Table) -> str:
  """A heading and a table in GitHub's Markdown; what a cell holds stays text."""
  line = lambda cells: f'| {" | ".join(map(escaped, cells))} |'
  rule = [':--' if i < table.words else '--:' for i in range(len(table.columns))]
  parts = [f'## {escaped(table.title)}', '']
  parts += [line(table.columns), f'| {" | ".join(rule)} |', *map(line, table.rows)]
  return '\n'.join([*parts, *(['', escaped(table.note)] if table.note else [])])


def escaped(text: str) -> str:
  """A text on one line in which Markdown and HTML find no mark-up."""
  plain = ' '.join(printable(text).split())
  return ''.join(f'\\{c}' if c in '\\|`*_<>[]~#' else c for c in plain)


def terminal(table: Table, width: int | None = None):
  """Prints a table; cells are taken as they are, without mark-up.

  Args:
    width: of the terminal in characters. None: as it is; of a file or a pipe as wide as
      the table is.
  """
  from rich import box, console, text
  from rich import table as rich

  out = console.Console(width=width, highlight=False)
  grid = rich.Table(
    title=text.Text(printable(table.title), style='bold'),
    title_justify='left',
    box=box.SIMPLE_HEAD,
    pad_edge=False,
  )
  for i, name in enumerate(table.columns):
    left = i < table.words
    grid.add_column(
      text.Text(printable(name)), justify='left' if left else 'right', no_wrap=not left
    )
  for row in table.rows:
    grid.add_row(*(text.Text(printable(cell)) for cell in row))
  if width is None and not out.is_terminal:
    out = console.Console(width=console.Console(width=10_000).measure(grid).maximum)
  out.print(grid)
  if table.note:
    out.print(text.Text(printable(table.note), style='dim'), soft_wrap=True)
