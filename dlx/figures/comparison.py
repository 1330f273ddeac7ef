"""Groups of runs side by side: NumPy arrays in, a matplotlib Figure out. Host only.

A group keeps its colour, its marker and its dashes in all figures, by its place; the
colours are those of Okabe and Ito (2008), which colour-blind people tell apart.
"""

from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

import numpy as np

from dlx.figures.style import GREY, INK, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#555555')
MARKERS = 'os^Dv*P'
DASHES = ('-', '--', '-.', ':')
WIDTH = 4.0  # Inches: at 390 pixels the letters are still those of a text.
LETTERS = 40  # Of a label in a legend; the rest is cut.


class Line(NamedTuple):
  """A curve of a group.

  Attributes:
    label: in the legend.
    step, mean, low, high: [S].
    place: of the group, from 0: decides how it looks.
  """

  label: str
  step: Any
  mean: Any
  low: Any
  high: Any
  place: int


class Point(NamedTuple):
  """A group in a plane of cost and quality.

  Attributes:
    label: in the legend.
    name: beside the point, short.
    cost, quality: means.
    cost_sd, quality_sd: of a run; 0: not known.
    best: whether no other group beats it.
    place: as in `Line`.
  """

  label: str
  name: str
  cost: float
  quality: float
  cost_sd: float
  quality_sd: float
  best: bool
  place: int


def curves(lines: Sequence[Line], *, title: str, ylabel: str, spread: str) -> 'Figure':
  """Curves of groups on one pair of axes, each with its band.

  Args:
    lines: at least one.
    title, ylabel: as they say.
    spread: what a band is, in words.
  """
  figure = new_figure(WIDTH, 3.2 + 0.2 * len(lines))
  ax = figure.add_subplot()
  for line in lines:
    colour, marker, dashes = _look(line.place)
    few = marker if np.size(line.step) <= 30 else None
    ax.fill_between(line.step, line.low, line.high, color=colour, alpha=0.18, lw=0)
    ax.plot(
      line.step,
      line.mean,
      color=colour,
      linestyle=dashes,
      linewidth=1.7,
      marker=few,
      markersize=3.5,
      label=_plain(line.label, LETTERS),
    )
  ax.set(xlabel=f'Step (band: {spread})', ylabel=_plain(ylabel))
  ax.margins(x=0.02)
  ax.grid(color=RULE, linewidth=0.6)
  style_axes(ax, _plain(title))
  _legend(figure)
  return figure


def pareto(
  points: Sequence[Point], *, title: str, xlabel: str, ylabel: str
) -> 'Figure':
  """Quality against cost: groups that none beats are filled, and joined by steps.

  Costs that span more than a factor of 10 lie on a log scale.

  Args:
    points: at least one.
    title, xlabel, ylabel: as they say.
  """
  figure = new_figure(WIDTH, 3.4 + 0.2 * len(points))
  ax = figure.add_subplot()
  front = sorted((p.cost, p.quality) for p in points if p.best)
  ax.step(*zip(*front), where='post', color=GREY, linewidth=1, zorder=1)
  costs = [p.cost for p in points]
  log = min(costs) > 0 and max(costs) > 10 * min(costs)
  for p in points:
    colour, marker, _ = _look(p.place)
    # An error bar that reaches to zero has no place on a log scale.
    ends = [[min(p.cost_sd, 0.9 * p.cost) if log else p.cost_sd], [p.cost_sd]]
    ax.errorbar(
      [p.cost],
      [p.quality],
      xerr=ends,
      yerr=[p.quality_sd],
      color=colour,
      elinewidth=1,
      marker=marker,
      markersize=7,
      markerfacecolor=colour if p.best else 'white',
      linestyle='none',
      label=f'{p.name}  {_plain(p.label, LETTERS)}',
      zorder=3,
    )
    ax.annotate(
      p.name,
      (p.cost, p.quality),
      xytext=(6, 5),
      textcoords='offset points',
      fontsize=9,
      color=INK,
      zorder=4,
    )
  if log:
    ax.set_xscale('log')
  ax.margins(0.12)
  ax.set(xlabel=xlabel, ylabel=_plain(ylabel))
  ax.grid(color=RULE, linewidth=0.6)
  style_axes(ax, _plain(title))
  _legend(figure)
  return figure


def intervals(
  rows: Mapping[str, tuple[float, float, float]],
  *,
  title: str,
  xlabel: str,
  places: Sequence[int],
) -> 'Figure':
  """Differences from a baseline, each with its interval, and a line at none.

  Args:
    rows: (difference, low, high) by label, from the top.
    title, xlabel: as they say.
    places: of each row, as in `Line`.
  """
  figure = new_figure(WIDTH, 1.3 + 0.5 * len(rows))
  ax = figure.add_subplot()
  ax.axvline(0, color=GREY, linewidth=1, linestyle='--', zorder=1)
  for i, ((label, (middle, low, high)), place) in enumerate(
    zip(rows.items(), places, strict=True)
  ):
    colour, marker, _ = _look(place)
    ax.plot([low, high], [-i, -i], color=colour, linewidth=2, zorder=2)
    ax.plot([middle], [-i], color=colour, marker=marker, markersize=6, zorder=3)
    # Above its row, so that long names take no room from the axis.
    ax.annotate(
      _plain(label, 50),
      (0, -i + 0.2),
      xycoords=('axes fraction', 'data'),
      fontsize=8.5,
      color=INK,
      va='bottom',
    )
  ax.set(xlabel=_plain(xlabel), ylim=(0.5 - len(rows), 0.75), yticks=[])
  ax.margins(x=0.08)
  ax.grid(color=RULE, linewidth=0.6, axis='x')
  style_axes(ax, _plain(title))
  ax.spines['left'].set_visible(False)
  return figure


def _look(place: int) -> tuple[str, str, str]:
  """Colour, marker and dashes; other dashes where the colours begin anew."""
  turn, colour = divmod(place, len(COLOURS))
  return COLOURS[colour], MARKERS[colour], DASHES[turn % len(DASHES)]


def _plain(text: str, letters: int = 60) -> str:
  """A text of bounded length in which matplotlib finds no formula and no control."""
  text = text if len(text) <= letters else text[: letters - 3] + '...'
  text = ''.join(c if c.isprintable() else '\ufffd' for c in text)
  return text.replace('$', r'\$')


def _legend(figure: 'Figure'):
  """Below the axes, where it covers no data."""
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside lower left',
    frameon=False,
    fontsize=8.5,
    handlelength=2.6,
  )
