"""Ways of two parameters down a surface: NumPy in, a matplotlib Figure out."""

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple

import numpy as np

from dlx.figures.style import GREY, INK, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (
  *('#2563a8', '#c62f2f', '#2f8f4e', '#8a5fb0', '#c77f1a', '#0e8f8f', '#6b7683'),
)


class Surface(NamedTuple):
  """A surface, and the ways down it.

  Attributes:
    height: of coordinates [2, ...] -> [...], at least 0, and 0 at `least`.
    least: its lowest point.
    ways: by name [T + 1, 2], the starting point included.
  """

  height: Callable[[Any], Any]
  least: tuple[float, float]
  ways: Mapping[str, Any]


def trajectories(surfaces: Mapping[str, Surface]) -> 'Figure':
  """For each surface a map with the ways on it, and the height by step.

  Args:
    surfaces: by title; on each at least one way, at most seven. The first point of each
      is finite; others that are not leave a gap.
  """
  figure = new_figure(9.6, 3.6 * len(surfaces))
  axes = figure.subplots(len(surfaces), 2, squeeze=False)
  for (title, (height, least, ways)), (ax, by_step) in zip(surfaces.items(), axes):
    if not 1 <= len(ways) <= len(_COLOURS):
      raise ValueError(f'{title}: {len(ways)} ways: must be 1 to {len(_COLOURS)}.')
    points = {name: np.asarray(way, np.float64) for name, way in ways.items()}
    (x, x_width), (y, y_width) = _window(points, least)
    xs, ys = np.linspace(x, x + x_width, 160), np.linspace(y, y + y_width, 160)
    # Levels by equal steps of the logarithm: both a wall and a valley floor show.
    levels = np.log10(1e-3 + height(np.stack(np.meshgrid(xs, ys))))
    drawn = {'levels': 14, 'linewidths': 0.5, 'linestyles': 'solid', 'alpha': 0.6}
    ax.contour(xs, ys, levels, colors=GREY, **drawn)
    for colour, (name, way) in zip(_COLOURS, points.items()):
      ax.plot(*way.T, color=colour, linewidth=1.2, marker='.', markersize=2.5)
      heights = height(way.T)
      label = f'{name}: {heights[-1]:.1e}'
      by_step.semilogy(
        np.maximum(heights, 1e-12), color=colour, linewidth=1.3, label=label
      )
    ax.plot(*least, '*', color=INK, markersize=9, zorder=4)
    ax.set(xlim=(x, x + x_width), ylim=(y, y + y_width), xlabel='x', ylabel='y')
    by_step.set(xlabel='Step', ylabel='Height')
    style_axes(ax, title)
    style_axes(by_step, 'Height by step; at the end')
    by_step.legend(fontsize=7, frameon=False, labelcolor=INK)
  return figure


def _window(points: Mapping[str, np.ndarray], least: tuple[float, float]):
  """(first, width) of each axis: nearly all points, all starts and the lowest one."""
  ends = np.stack([least, *(way[0] for way in points.values())])
  finite = [way[np.isfinite(way).all(-1)] for way in points.values()]
  inner = [np.percentile(way, (3, 97), axis=0) for way in finite]
  shown = np.concatenate([ends, *inner])
  low, high = shown.min(0), shown.max(0)
  room = 0.1 * (high - low) + 1e-3
  return zip(low - room, high - low + 2 * room)
