"""What a model says of the points of a plane: NumPy in, a Figure out. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def grid(low: float, high: float, size: int) -> np.ndarray:
  """The points of a square at which `decision_boundaries` wants values.

  Returns:
    float32 [size, size, 2]: x rises along the second axis, y along the first.
  """
  side = np.linspace(low, high, size, dtype=np.float32)
  return np.stack(np.meshgrid(side, side), -1)


def decision_boundaries(
  value_NGG: Any,
  extent: tuple[float, float],
  points_P2: Any,
  label_P: Any,
  captions: Sequence[str],
  *,
  columns: int = 4,
  title: str,
) -> 'Figure':
  """The regions of two classes as each of some models has them, and where they meet.

  Args:
    value_NGG: of each model at the points of `grid`: below 0 is class 0, drawn blue,
      above 0 class 1, red; the line between them is the boundary.
    extent: low and high of the grid.
    points_P2: the examples.
    label_P: their classes 0 or 1.
    captions: one a model.
    columns: models in a row.
    title: of the whole.
  """
  from matplotlib.colors import LinearSegmentedColormap

  value, points = np.asarray(value_NGG, np.float64), np.asarray(points_P2)
  if len(captions) != len(value) or not len(value):
    raise ValueError(f'{len(captions)} captions for {len(value)} models.')
  colours = LinearSegmentedColormap.from_list('', [BLUE, 'white', RED])
  columns = min(columns, len(value))
  rows = -(-len(value) // columns)
  figure = new_figure(1.5 * columns + 0.3, 1.7 * rows + 0.5)
  for i, one in enumerate(value):
    ax = figure.add_subplot(rows, columns, i + 1)
    # Close to the boundary shades differ; far from it there are two colours.
    ax.imshow(np.tanh(one), origin='lower', extent=(*extent, *extent), cmap=colours,
              vmin=-1.6, vmax=1.6)  # fmt: skip
    if one.min() < 0 < one.max():
      side = np.linspace(*extent, one.shape[0])
      ax.contour(side, side, one, [0], colors=INK, linewidths=1)
    for k, (colour, marker) in enumerate(((BLUE, 'o'), (RED, 's'))):
      mine = points[np.asarray(label_P) == k]
      ax.scatter(*mine.T, color=colour, marker=marker, edgecolors='white', s=36)
    ax.set(xticks=[], yticks=[], xlim=extent, ylim=extent)
    ax.set_xlabel(captions[i], fontsize=8, color=GREY)
    for spine in ax.spines.values():
      spine.set_color(RULE)
  figure.suptitle(title, fontsize=10, color=INK, fontweight='bold')
  return figure
