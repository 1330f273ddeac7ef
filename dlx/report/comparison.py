"""report.html of a comparison of runs: tables, cautions, curves with bands, figures."""

from typing import Mapping, NamedTuple, Sequence

from dlx.figures.comparison import COLOURS, Line
from dlx.report import chart
from dlx.report.document import document, pictures
from dlx.report.markup import section, text
from dlx.run.records.declared import Declared
from dlx.run.tables import Table


class Page(NamedTuple):
  """What is shown.

  Attributes:
    title: heading.
    lead: what was found, a sentence each.
    tables: the first is shown above the curves, the others below.
    cautions: what weakens the comparison, a sentence each.
    curves: by "split/name" what was declared, and a line for each group.
    leading: names in `curves` that are shown; the others are folded away.
    band: what a band is, in words.
    figures: (name, PNG).
  """

  title: str
  lead: Sequence[str]
  tables: Sequence[Table]
  cautions: Sequence[str]
  curves: Mapping[str, tuple[Declared, Sequence[Line]]]
  leading: Sequence[str]
  band: str
  figures: Sequence[tuple[str, bytes]]


def page(of: Page) -> str:
  """The whole of report.html; every text is escaped."""
  # A group has one colour in curves and in figures.
  colours = ''.join(f'--s{i}:{c};' for i, c in enumerate(COLOURS[: chart.COLORS]))
  lead = ''.join(f'<p class="sub">{text(line)}</p>' for line in of.lead)
  first, others = of.tables[:1], of.tables[1:]
  body = (
    f'<style>main{{{colours}}}</style>'
    f'<header><div class="over"><span>dlx · comparison</span></div>'
    f'<h1>{text(of.title)}</h1>{lead}</header>'
    + ''.join(map(table, first))
    + _cautions(of.cautions)
    + _curves(of)
    + pictures(of.figures)
    + ''.join(map(table, others))
  )
  return document(
    of.title, body, 'Written by launch.compare from the files of the runs.'
  )


def table(of: Table) -> str:
  """A section with a table that scrolls where it is wider than the page."""
  css = lambda i: ' class="words"' if i < of.words else ''
  row = lambda tag, cells: ''.join(
    f'<{tag}{css(i)}>{text(cell)}</{tag}>' for i, cell in enumerate(cells)
  )
  lines = ''.join(f'<tr>{row("td", cells)}</tr>' for cells in of.rows)
  note = f'<p class="note">{text(of.note)}</p>' if of.note else ''
  return section(
    of.title,
    f'<div class="card box"><div class="rows numbers"><table><thead><tr>'
    f'{row("th", of.columns)}</tr></thead><tbody>{lines}</tbody></table></div>{note}'
    '</div>',
  )


def _cautions(lines: Sequence[str]) -> str:
  items = ''.join(f'<li>{text(line)}</li>' for line in lines)
  box = f'<div class="card box"><ul class="cautions">{items}</ul></div>'
  return section('What weakens the comparison', box if items else '')


def _curves(of: Page) -> str:
  cards = {
    name: chart.chart(
      f'{declared.title}, {name.rpartition("/")[0]}',
      [_series(line) for line in lines],
      [line.place % chart.COLORS for line in lines],
      note=declared.note,
      band=f'band: {of.band}',
    )
    for name, (declared, lines) in of.curves.items()
  }
  shown = [card for name, card in cards.items() if card and name in of.leading]
  folded = [card for name, card in cards.items() if card and name not in of.leading]
  body = f'<div class="grid2">{"".join(shown)}</div>' if shown else ''
  if folded:
    body += (
      f'<details><summary>{len(folded)} more metrics</summary>'
      f'<div class="grid2">{"".join(folded)}</div></details>'
    )
  return section('Curves', body)


def _series(line: Line) -> chart.Series:
  points = lambda values: [(float(x), float(y)) for x, y in zip(line.step, values)]
  low, high = points(line.low), points(line.high)
  if low == high:  # A single run has no band.
    low, high = [], []
  return chart.Series(line.label, points(line.mean), low, high)
