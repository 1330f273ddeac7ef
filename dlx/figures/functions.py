"""A function of one or two numbers, and a model of it: NumPy in, a Figure out."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RULE, new_figure, ramp, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def fitted_function(x_ND: Any, target_N: Any, fit_N: Any) -> 'Figure':
  """A function and what was fitted to it: two lines, or two maps of the plane.

  Args:
    x_ND: points of one number (D = 1), in any order, or of two (D = 2), a grid in which
      the second changes fastest.
    target_N: the function there.
    fit_N: the model there.

  Raises:
    ValueError: points of more numbers, no points, or no grid.
  """
  x = np.asarray(x_ND, np.float64)
  target, fit = (np.asarray(y, np.float64) for y in (target_N, fit_N))
  if x.ndim != 2 or not target.shape == fit.shape == x.shape[:1] or not x.size:
    raise ValueError(
      f'Points of shape {x.shape}, values of {target.shape} and {fit.shape}: must be '
      '(N, D), (N,) and (N,).'
    )
  error = np.sqrt(np.mean((fit - target) ** 2))
  title = f'Root mean squared error {error:.3g}'
  if x.shape[1] == 1:
    return _lines(x[:, 0], target, fit, title)
  if x.shape[1] == 2:
    return _maps(x, target, fit, title)
  raise ValueError(f'Points of {x.shape[1]} numbers: must be of 1 or 2.')


def _lines(x: np.ndarray, target: np.ndarray, fit: np.ndarray, title: str) -> 'Figure':
  figure = new_figure(5.6, 3.6)
  ax = figure.add_subplot()
  order = np.argsort(x)
  ax.plot(x[order], target[order], color=GREY, linewidth=3, alpha=0.5, label='function')
  ax.plot(x[order], fit[order], color=BLUE, linewidth=1.4, label='fit')
  ax.set_xlabel('x')
  ax.grid(color=RULE, linewidth=0.6)
  ax.legend(frameon=False, fontsize=8, labelcolor=INK)
  style_axes(ax, title)
  return figure


def _maps(x: np.ndarray, target: np.ndarray, fit: np.ndarray, title: str) -> 'Figure':
  shape = tuple(np.unique(x[:, i]).size for i in range(2))
  if shape[0] * shape[1] != len(x):
    raise ValueError(f'{len(x)} points are no grid of {shape[0]} by {shape[1]}.')
  low, high = min(target.min(), fit.min()), max(target.max(), fit.max())
  figure = new_figure(6.4, 3.2)
  axes = figure.subplots(1, 2)
  ends = (x[:, 0].min(), x[:, 0].max(), x[:, 1].min(), x[:, 1].max())
  for ax, values, name in zip(axes, (target, fit), ('Function', f'Fit. {title}')):
    shown = ax.imshow(
      values.reshape(shape).T, extent=ends, origin='lower', vmin=low, vmax=high,
      cmap=ramp('#ffffff', BLUE), aspect='auto',
    )  # fmt: skip
    ax.set_xlabel('First input')
    style_axes(ax, name)
  axes[0].set_ylabel('Second input')
  bar = figure.colorbar(shown, ax=list(axes))
  bar.ax.tick_params(labelsize=8, colors=GREY, color=RULE)
  return figure
