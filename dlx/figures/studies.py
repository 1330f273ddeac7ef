"""Figures of studies: what was measured by group, every run shown beside the mean."""

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (BLUE, '#c77f1a', '#2f8f4e', '#8a5fb0', '#56b4e9', '#7a6a53')
_MARKERS = 'os^DvP'


def over_values(
  x_G: Sequence[float],
  lines: Mapping[str, Sequence[Any]],
  *,
  xlabel: str,
  ylabel: str,
  title: str,
  log_x: bool = False,
  log_y: bool = False,
  diverged_G: Sequence[int] | None = None,
) -> 'Figure':
  """Mean and every run over the value that was varied, a line for each quantity.

  Args:
    x_G: value of each group.
    lines: by name, for each group the numbers of its runs; an empty one leaves a gap.
    xlabel: of the value, with its unit.
    ylabel: of the numbers, with their unit.
    title: of the figure.
    log_x: whether the value has a logarithmic axis.
    log_y: the same of the numbers.
    diverged_G: how many runs of each group diverged; marked at the upper edge.
  """
  figure = new_figure(5.6, 3.8)
  ax = figure.add_subplot()
  x = np.asarray(x_G, np.float64)
  for i, (name, groups) in enumerate(lines.items()):
    colour = _COLOURS[i % len(_COLOURS)]
    runs = [np.asarray(g, np.float64).reshape(-1) for g in groups]
    mean = np.array([g.mean() if g.size else np.nan for g in runs])
    ax.plot(
      x, mean, color=colour, linewidth=1.6, markersize=4,
      marker=_MARKERS[i % len(_MARKERS)], label=name, zorder=3,
    )  # fmt: skip
    flat = [(a, value) for a, g in zip(x, runs, strict=True) for value in g]
    if flat:
      ax.scatter(*zip(*flat), s=10, color=colour, alpha=0.35, linewidths=0, zorder=2)
  if diverged_G is not None and any(diverged_G):
    lost = [(a, n) for a, n in zip(x, diverged_G, strict=True) if n]
    ax.plot(
      [a for a, _ in lost], [0.98] * len(lost), 'x', color=RED, markersize=6,
      transform=ax.get_xaxis_transform(), label='runs diverged', clip_on=False,
    )  # fmt: skip
  if log_x:
    ax.set_xscale('log')
    if _apart(x):
      ax.set_xticks(x, [f'{value:g}' for value in x])
      ax.set_xticks([], minor=True)
  if log_y:
    ax.set_yscale('log')
  ax.set_xlabel(xlabel)
  ax.set_ylabel(ylabel)
  ax.grid(color=RULE, linewidth=0.6)
  if len(ax.get_legend_handles_labels()[0]) > 1:
    ax.legend(
      frameon=False, fontsize=8, labelcolor=INK, loc='upper center',
      bbox_to_anchor=(0.5, -0.2), ncols=3,
    )  # fmt: skip
  style_axes(ax, title)
  return figure


def _apart(x: np.ndarray) -> bool:
  """Whether a logarithmic axis has room for the numbers of all its values."""
  places = np.log(np.unique(x))
  return 2 <= len(places) <= 8 and bool(
    np.diff(places).min() >= 0.09 * (places[-1] - places[0])
  )


def over_groups(
  groups: Mapping[str, Sequence[float]], *, xlabel: str, title: str
) -> 'Figure':
  """A row a group: its runs as points, their mean as a bar.

  Args:
    groups: by name, the numbers of its runs, one at least.
    xlabel: of the numbers, with their unit.
    title: of the figure.
  """
  figure = new_figure(5.6, 1.2 + 0.32 * len(groups))
  ax = figure.add_subplot()
  for row, values in enumerate(groups.values()):
    x = np.asarray(values, np.float64)
    ax.scatter(x, np.full(x.shape, row), s=16, color=BLUE, alpha=0.5, linewidths=0)
    if x.size:
      ax.plot([x.mean()] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=2)
  ax.set_yticks(range(len(groups)), list(groups))
  ax.set_ylim(len(groups) - 0.5, -0.5)
  ax.set_xlabel(xlabel)
  ax.grid(axis='x', color=RULE, linewidth=0.6)
  style_axes(ax, title)
  ax.tick_params(axis='y', colors=GREY)
  return figure
