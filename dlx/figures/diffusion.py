"""Pictures of a diffusion model: its schedule, its way into noise and back.

As dlx/figures/images.py: NumPy arrays in, a matplotlib Figure out; host only. Images
are [..., H, W, C] in [-1, 1], the range in which they are noised; what lies outside is
cut.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.diffusion import SCHEDULES, Schedule, snr
from dlx.figures.images import image_grid
from dlx.figures.style import BLUE, GREY, INK, RED, RULE

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def spread(num_steps: int, count: int) -> np.ndarray:
  """At most `count` of the indices 0 to num_steps - 1, evenly, both ends included."""
  return np.unique(np.linspace(0, num_steps - 1, count).round().astype(int))


def noising(images_NSHWC: Any, t_S: Any) -> 'Figure':
  """Rows of one image each, noised up to the steps t_S."""
  rows, columns = np.shape(images_NSHWC)[:2]
  flat = np.reshape(images_NSHWC, (rows * columns, *np.shape(images_NSHWC)[2:]))
  return image_grid(
    flat,
    [f't = {t}' for t in t_S] * rows,
    columns=columns,
    title='Real images x_t after t steps of noise',
    value_range=(-1, 1),
  )


def denoising(x_SNHWC: Any, x0_SNHWC: Any, t_S: Any) -> 'Figure':
  """Two rows a sample: x_t from noise to image, and the image that each x_t means.

  Args:
    x_SNHWC: what the sampler saw at its steps.
    x0_SNHWC: the estimates of the clean image made there; the last is the sample.
    t_S: steps of the schedule, falling.
  """
  both_SNPHWC = np.stack([x_SNHWC, x0_SNHWC], axis=2)
  rows = np.moveaxis(both_SNPHWC, 0, 2)  # Sample, which of both, step.
  captions = [[f'x, t = {t}' for t in t_S], [f'x0 at {t}' for t in t_S]]
  return image_grid(
    rows.reshape(-1, *rows.shape[3:]),
    sum(captions, []) * rows.shape[0],
    columns=len(t_S),
    title='Denoising: x_t, and below it the image that the network sees in it',
    value_range=(-1, 1),
  )


def signal_to_noise(schedule: Schedule) -> 'Figure':
  """A schedule: its signal-to-noise ratio and share of signal at each step, in blue.

  In grey the linear and the cosine schedule of as many steps.
  """
  from matplotlib.figure import Figure

  figure = Figure((8.4, 3.4), dpi=160, facecolor='white', layout='constrained')
  ratio, share = figure.subplots(1, 2)
  known = {name: make(schedule.num_steps) for name, make in SCHEDULES.items()}
  for name, drawn in [*known.items(), ('this run', schedule)]:
    own = name == 'this run'
    style = {'color': BLUE if own else GREY, 'linewidth': 2.0 if own else 1.2}
    style['linestyle'] = '--' if name == 'linear' else '-'
    ratio.plot(snr(drawn), **style)
    share.plot(np.square(drawn.signal_T), label=name, **style)
  ratio.axhline(1, color=RED, linewidth=0.8)
  ratio.set_yscale('log')
  share.legend(fontsize=8, frameon=False)
  for ax, title in (
    (ratio, 'Signal-to-noise ratio (red: as much noise as signal)'),
    (share, 'Variance of x_t that is signal'),
  ):
    ax.set_title(title, fontsize=9.5, color=INK, fontweight='bold', loc='left')
    ax.set_xlabel('Step t', fontsize=9, color=INK)
    ax.tick_params(labelsize=8, colors=GREY, length=3, color=RULE)
    ax.grid(color=RULE, linewidth=0.6)
    ax.spines[['top', 'right']].set_visible(False)
  return figure
