"""Figures of a search: what it found so far, which fields mattered, all trials at once.

Numbers of trials that diverged, were pruned or failed are nan.
"""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, ramp, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def best_so_far(
  value_T: Sequence[float], *, highest: bool, ylabel: str, title: str
) -> 'Figure':
  """The number of each trial, and the best of those up to it.

  Args:
    value_T: of each trial, in order.
    highest: whether the highest is the best.
    ylabel: of the numbers, with their unit.
    title: of the figure.
  """
  y_T = np.asarray(value_T, np.float64)
  figure = new_figure(5.6, 3.4)
  ax = figure.add_subplot()
  x_T, known_T = np.arange(len(y_T)), np.isfinite(y_T)
  ax.scatter(x_T[known_T], y_T[known_T], s=18, color=GREY, alpha=0.6, linewidths=0)
  if known_T.any():
    filled_T = np.where(known_T, y_T, -np.inf if highest else np.inf)
    best = np.maximum if highest else np.minimum
    best_T = best.accumulate(filled_T)
    shown_T = np.isfinite(best_T)
    ax.step(x_T[shown_T], best_T[shown_T], where='post', color=BLUE, linewidth=1.8)
  lost = x_T[~known_T]
  if len(lost):
    ax.plot(
      lost, [0.02] * len(lost), 'x', color=RED, markersize=5, clip_on=False,
      transform=ax.get_xaxis_transform(), label='no number',
    )  # fmt: skip
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
  ax.set_xlabel('Trial')
  ax.set_ylabel(ylabel)
  ax.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore
  ax.grid(color=RULE, linewidth=0.6)
  style_axes(ax, title)
  return figure


def parallel_coordinates(
  names: Sequence[str],
  columns: Sequence[Sequence[Any]],
  value_T: Sequence[float],
  *,
  log: Sequence[bool],
  highest: bool,
  label: str,
  title: str,
) -> 'Figure':
  """A line a trial through an axis a field; the darker, the better.

  Args:
    names: of the D fields.
    columns: D lists of T values, numbers or texts; None where a field does not apply,
      shown below the axis.
    value_T: the number of each trial; those without one are left out.
    log: whether the numbers of a field have a logarithmic axis.
    highest: whether the highest value is the best.
    label: of the values, with their unit.
    title: of the figure.
  """
  found_T = np.asarray(value_T, np.float64)
  order = np.argsort(found_T if highest else -found_T, kind='stable')
  order = [int(t) for t in order if np.isfinite(found_T[t])]  # The best on top.
  figure = new_figure(max(5.6, 1.6 * (len(names) + 1)), 3.8)
  ax = figure.add_subplot()
  places = [_places(c, scale) for c, scale in zip(columns, log, strict=True)]
  last, last_ticks = _places([float(v) for v in found_T], False)
  y_TD = np.array([y for y, _ in places] + [last]).T.reshape(len(found_T), -1)
  x_D = np.arange(len(names) + 1)
  colours = ramp('#d9e4f2', '#123f73')
  for rank, t in enumerate(order):
    share = (rank + 1) / len(order)
    ax.plot(x_D, y_TD[t], color=colours(share), linewidth=0.8 + 0.9 * share, zorder=2)
  for x, ticks in enumerate([*(ticks for _, ticks in places), last_ticks]):
    ax.plot([x, x], [0, 1], color=INK, linewidth=0.8, zorder=3)
    for y, text in ticks:
      ax.annotate(
        text, (x, y), (4, 0), textcoords='offset points', fontsize=7, color=GREY,
        va='center', zorder=4,
        bbox={'boxstyle': 'square,pad=0.1', 'facecolor': 'white', 'linewidth': 0,
              'alpha': 0.75},
      )  # fmt: skip
  ax.set_xticks(x_D, [*names, label], rotation=15 if len(names) > 3 else 0)
  ax.set_yticks([])
  ax.set_xlim(-0.15, len(names) + 0.55)
  ax.set_ylim(-0.18, 1.06)
  style_axes(ax, title)
  ax.spines[['left', 'bottom']].set_visible(False)
  return figure


def _places(
  column: Sequence[Any], log: bool
) -> tuple[np.ndarray, list[tuple[float, str]]]:
  """Heights from 0 to 1 of the entries of one axis, and its ticks; None is below."""
  known = [x for x in column if x is not None]
  is_number = all(
    isinstance(x, (int, float)) and not isinstance(x, bool) for x in known
  )
  if is_number:
    scale = np.log10 if log else np.asarray
    finite = [x for x in known if np.isfinite(x)]
    numbers = scale(np.asarray(finite, np.float64))
    low, high = (numbers.min(), numbers.max()) if finite else (0.0, 1.0)
    span = (high - low) or 1.0

    def height(x: Any) -> float:
      return float((scale(float(x)) - low) / span) if np.isfinite(x) else np.nan

    at = sorted(set(finite))
    if len(at) > 6:
      at = [10 ** (low + span * i / 4) if log else low + span * i / 4 for i in range(5)]
    ticks = [(height(x), f'{x:.3g}') for x in at]
  else:
    names = list(dict.fromkeys(map(str, known)))
    height_of = {x: i / max(1, len(names) - 1) for i, x in enumerate(names)}

    def height(x: Any) -> float:
      return height_of[str(x)]

    ticks = [(y, x) for x, y in height_of.items()]
  if len(known) < len(column):
    ticks.append((-0.12, 'not used'))
  y_T = np.array([-0.12 if x is None else height(x) for x in column], np.float64)
  return y_T, ticks


def importance(names: Sequence[str], share_D: Sequence[float], title: str) -> 'Figure':
  """A bar a field: its share of the variance of the numbers, the largest on top.

  Args:
    names: of the fields.
    share_D: of each, from 0 to 1.
    title: of the figure, which names how it was computed.
  """
  x_D = np.asarray(share_D, np.float64)
  order = np.argsort(-x_D, kind='stable').tolist()
  figure = new_figure(5.6, 1.2 + 0.32 * len(names))
  ax = figure.add_subplot()
  ax.barh(range(len(names)), x_D[order], color=BLUE, height=0.6)
  for row, d in enumerate(order):
    ax.text(x_D[d] + 0.01, row, f'{x_D[d]:.2f}', va='center', fontsize=8)
  ax.set_yticks(range(len(names)), [names[d] for d in order])
  ax.set_ylim(len(names) - 0.5, -0.5)
  ax.set_xlim(0, 1.1)
  ax.set_xlabel('Share of the variance')
  style_axes(ax, title)
  ax.tick_params(axis='y', colors=GREY)
  return figure
