"""Figures of receptive fields."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.figures.style import BLUE, INK, RED, new_figure, ramp, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def gradient_map(map_HW: Any, *, theory: float, effective: float) -> 'Figure':
  """Gradients of the middle unit by pixel, and the two squares that it sees.

  Args:
    map_HW: sizes of the gradients, the largest 1; the unit stands for the pixel in the
      middle, rounded down.
    theory: side of the square that the unit can see, in pixels.
    effective: side of the square of as many pixels as it sees effectively.
  """
  from matplotlib.patches import Rectangle

  map_HW = np.asarray(map_HW, np.float64)
  figure = new_figure(4.4, 3.9)
  ax = figure.add_subplot()
  shown = ax.imshow(map_HW, cmap=ramp('#ffffff', BLUE), vmin=0, vmax=1)
  middle = np.array(map_HW.shape[::-1]) // 2
  for side, colour, name in ((theory, INK, 'theory'), (effective, RED, 'effective')):
    corner = middle - side / 2
    ax.add_patch(
      Rectangle(
        (corner[0], corner[1]), side, side, fill=False, edgecolor=colour, linewidth=1.4,
        label=f'{name}: {side:.3g} pixels', clip_on=False,
      )
    )  # fmt: skip
  ax.legend(
    frameon=False, fontsize=8, labelcolor=INK, loc='upper center',
    bbox_to_anchor=(0.5, -0.08), ncols=2,
  )  # fmt: skip
  bar = figure.colorbar(shown, ax=ax, shrink=0.8)
  bar.ax.tick_params(labelsize=8)
  style_axes(ax, 'Gradient of the middle unit, largest 1')
  return figure
