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


def signal_by_layer(mean_L: Any, variance_L: Any, layers: Sequence[str]) -> 'Figure':
  """Mean and variance by layer, from the first to the last, one above the other.

  Args:
    mean_L: of each layer.
    variance_L: at least 0, on a logarithmic axis; what is 0 leaves a gap.
    layers: names.
  """
  mean, variance = (np.asarray(x, np.float64) for x in (mean_L, variance_L))
  figure = new_figure(5.6, 4.6)
  above, below = figure.subplots(2, 1, sharex=True)
  place = np.arange(1, len(mean) + 1)
  positive = np.where(variance > 0, variance, np.nan)
  for ax, values, wanted in ((above, mean, 0), (below, positive, 1)):
    ax.axhline(wanted, color=RULE, linewidth=1.2)
    ax.plot(place, values, 'o-', color=BLUE, markersize=4)
    ax.grid(color=RULE, linewidth=0.6)
  below.set_yscale('log')
  below.set_xticks(place[:: max(1, len(place) // 10)])
  below.set_xlabel(f'Layer, from {layers[0]} to {layers[-1]}')
  above.set_ylabel('Mean')
  below.set_ylabel('Variance')
  style_axes(above, f'After the last: mean {mean[-1]:.2g}, variance {variance[-1]:.2g}')
  style_axes(below, '')
  return figure
