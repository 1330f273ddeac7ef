"""Figures of what happens from layer to layer: NumPy in, a Figure out. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import BLUE, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def gradient_by_layer(norm_L: Any, layers: Sequence[str]) -> 'Figure':
  """Norm of the gradient by layer, from the first to the last, on a logarithmic axis.

  Args:
    norm_L: at least 0; what is 0 leaves a gap.
    layers: names.
  """
  norm = np.asarray(norm_L, np.float64)
  figure = new_figure(5.6, 3.4)
  ax = figure.add_subplot()
  place = np.arange(1, len(norm) + 1)
  ax.plot(place, np.where(norm > 0, norm, np.nan), 'o-', color=BLUE, markersize=4)
  ax.set_yscale('log')
  ax.set_xticks(place[:: max(1, len(norm) // 10)])
  ax.set_xlabel(f'Layer, from {layers[0]} to {layers[-1]}')
  ax.set_ylabel('Norm of the gradient')
  ax.grid(color=RULE, linewidth=0.6)
  ratio = norm[0] / norm[-1] if norm[-1] > 0 else np.nan
  style_axes(ax, f'First over last: {ratio:.2g}')
  return figure
