"""Pictures of a generator: samples, samples over training, the classes it makes.

As dlx/figures/images.py: NumPy arrays in, a matplotlib Figure out; host only.
"""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures import BLUE, GREY, INK, RULE

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def mosaic(
  images_RNHWC: Any,
  row_names: Sequence[str] | None = None,
  *,
  title: str | None = None,
  value_range: tuple[float, float] = (0, 1),
) -> 'Figure':
  """Rows of images on one axis, with a name beside each row.

  Args:
    images_RNHWC: R rows of N images with 1 or 3 channels, float or uint8.
    row_names: R names; None: none.
    title: of the whole.
    value_range: black and white; (0, 255) for uint8.
  """
  from matplotlib.figure import Figure

  images = np.asarray(images_RNHWC, np.float64)
  if images.ndim != 5 or images.shape[-1] not in (1, 3) or not images.size:
    raise ValueError(
      f'Images must have shape [R, N, H, W, 1 or 3]; these have {images.shape}.'
    )
  rows, columns, height, width, channels = images.shape
  if row_names is not None and len(row_names) != rows:
    raise ValueError(f'{len(row_names)} names for {rows} rows.')
  low, high = value_range
  images = np.clip((images - low) / (high - low), 0, 1)
  gap = max(1, height // 14)
  pads = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
  tiled = np.pad(images, pads, constant_values=1).transpose(0, 2, 1, 3, 4)
  tiled = tiled.reshape(rows * (height + gap), -1, channels)[:-gap, :-gap]
  tile = 0.55
  size = (columns * tile + 0.9, rows * tile * height / width + 0.5)
  figure = Figure(size, dpi=160, facecolor='white', layout='constrained')
  ax = figure.add_subplot()
  ax.imshow(
    tiled[..., 0] if channels == 1 else tiled,
    cmap='gray',
    vmin=0,
    vmax=1,
    interpolation='nearest',
  )
  ax.set_xticks([])
  centres = np.arange(rows) * (height + gap) + (height - 1) / 2
  ax.set_yticks(centres if row_names else [], row_names or [])
  ax.tick_params(labelsize=8, colors=GREY, length=0)
  for spine in ax.spines.values():
    spine.set_color(RULE)
  if title:
    ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  return figure


def class_shares(counts_K: Any, class_names: Sequence[str], entropy: float) -> 'Figure':
  """Share of the samples that the judge puts into each class.

  A class without a bar is a mode that the generator does not make.

  Args:
    counts_K: samples by class.
    class_names: K names.
    entropy: of these shares, in nats, for the title.
  """
  from matplotlib.figure import Figure

  counts = np.asarray(counts_K, np.float64)
  share = counts / max(counts.sum(), 1e-12)
  figure = Figure((6.2, 2.8), dpi=160, facecolor='white', layout='constrained')
  ax = figure.add_subplot()
  ax.bar(np.arange(len(share)), 100 * share, color=BLUE, width=0.7)
  ax.axhline(100 / len(share), color=GREY, linewidth=1, linestyle='--')
  long = max(map(len, class_names)) > 5
  ax.set_xticks(np.arange(len(share)), class_names, rotation=30 if long else 0)
  ax.set_ylabel('Samples, %', fontsize=9, color=INK)
  ax.tick_params(labelsize=8, colors=GREY, length=0)
  ax.grid(axis='y', color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  ax.spines[['top', 'right', 'left']].set_visible(False)
  title = f'Classes of the samples: {entropy:.2f} of {np.log(len(share)):.2f} nats'
  ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  return figure
