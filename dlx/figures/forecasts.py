"""Forecasts of a series beside what came: NumPy in, a matplotlib Figure out."""

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (BLUE, GREY, RED, '#3f8f5f')


def bands(
  truth_NH: Any,
  quantiles_NHQ: Any,
  *,
  levels: Sequence[float],
  xlabel: str,
  ylabel: str,
) -> 'Figure':
  """N forecasts of H steps, one after the other, with a band for each pair of levels.

  Args:
    truth_NH: what came.
    quantiles_NHQ: of each step, rising.
    levels: Q, odd, rising; the middle one is drawn as a line.
    xlabel, ylabel: what the axes count.

  Raises:
    ValueError: shapes that do not belong together, or no forecasts.
  """
  truth, found = np.asarray(truth_NH, np.float64), np.asarray(quantiles_NHQ, np.float64)
  count = len(levels)
  if found.shape != (*truth.shape, count) or truth.ndim != 2 or not truth.size:
    raise ValueError(
      f'Truth of shape {truth.shape}, quantiles of {found.shape} of {count} levels: '
      'must be (N, H) and (N, H, Q).'
    )
  if count % 2 == 0:
    raise ValueError(f'{count} levels: must be an odd number, with one in the middle.')
  figure = new_figure(7.2, 3.4)
  ax = figure.add_subplot()
  middle, horizon = count // 2, truth.shape[1]
  for i, rows in enumerate(found):
    x = i * horizon + np.arange(horizon)
    for k in range(middle):
      share = f'{levels[-1 - k] - levels[k]:.0%}'
      label = f'{share} band' if i == 0 else None
      sides = rows[:, k], rows[:, -1 - k]
      ax.fill_between(x, *sides, color=BLUE, alpha=0.18, linewidth=0, label=label)
    label = 'forecast' if i == 0 else None
    ax.plot(x, rows[:, middle], color=BLUE, linewidth=1.4, label=label)
  ax.plot(truth.ravel(), color=INK, linewidth=1.0, label='what came')
  inside = (truth >= found[..., 0]) & (truth <= found[..., -1])
  wide = levels[-1] - levels[0]
  _finish(ax, xlabel, ylabel, f'{inside.mean():.0%} lie in the band for {wide:.0%}')
  return figure


def error_by_step(
  lines: Mapping[str, Any],
  *,
  xlabel: str,
  ylabel: str,
  title: str = 'The error by how far it looks ahead',
  first: int = 1,
) -> 'Figure':
  """Errors by how far ahead they look, one line each; the first is drawn thickest.

  Args:
    lines: [H] by name.
    xlabel, ylabel: what the axes count.
    title: of the figure.
    first: what is counted at the first entry.
  """
  figure = new_figure(5.6, 3.6)
  ax = figure.add_subplot()
  for i, (name, values) in enumerate(lines.items()):
    y = np.asarray(values, np.float64)
    width, colour = (2.2 if i == 0 else 1.4), _COLOURS[i % len(_COLOURS)]
    ax.plot(first + np.arange(len(y)), y, color=colour, linewidth=width, label=name)
  ax.set_ylim(bottom=0)
  _finish(ax, xlabel, ylabel, title)
  return figure


def _finish(ax: Any, xlabel: str, ylabel: str, title: str):
  ax.set_xlabel(xlabel)
  ax.set_ylabel(ylabel)
  ax.grid(color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  ax.legend(frameon=False, fontsize=8, labelcolor=INK)
  style_axes(ax, title)
