"""Pictures for reports: NumPy arrays in, a matplotlib Figure out. Host only.

Figures are plain objects, made without pyplot, so that nothing global is left behind
and threads may draw. Matplotlib is imported when the first one is drawn. Images are
[B, H, W, C] with 1 or 3 channels, uint8 or float in [0, 1] (or `value_range`).
"""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import GREY, INK, RED, RULE, names_of_classes, new_figure

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def predictions(
  images_BHWC: Any,
  label_B: Any,
  probs_BK: Any,
  class_names: Sequence[str] | None = None,
  *,
  max_images: int = 24,
  columns: int = 6,
  value_range: tuple[float, float] | None = None,
  title: str = 'Predicted class and its probability',
) -> 'Figure':
  """Images with the predicted class and its probability; wrong ones in red.

  Args:
    images_BHWC: the first `max_images` are drawn.
    label_B: true classes.
    probs_BK: rows sum to 1.
    class_names: K names; None: 0 to K - 1.
    max_images: at most so many.
    columns: images in a row.
    value_range: of float images; None: (0, 1).
    title: whose answers these are; how many are right stands behind it.
  """
  probs_BK = np.asarray(probs_BK, np.float64)[:max_images]
  label_B = np.asarray(label_B)[:max_images]
  images = _displayable(images_BHWC, value_range)[:max_images]
  names = names_of_classes(class_names, probs_BK.shape[1])
  predicted_B = probs_BK.argmax(1)
  captions, colours = [], []
  for label, predicted, probs in zip(label_B, predicted_B, probs_BK):
    caption = f'{names[predicted]}  {100 * probs[predicted]:.0f} %'
    right = label == predicted
    captions.append(caption if right else f'{caption}\ntrue: {names[label]}')
    colours.append(INK if right else RED)
  right = int((label_B == predicted_B).sum())
  return _grid(
    images, captions, columns, f'{title}: {right} of {len(images)} right', colours
  )


def image_grid(
  images_BHWC: Any,
  captions: Sequence[str] | None = None,
  *,
  columns: int = 8,
  title: str | None = None,
  value_range: tuple[float, float] | None = None,
) -> 'Figure':
  """Images in rows, with a line under each where there are captions.

  Args:
    images_BHWC: all are drawn.
    captions: one an image.
    columns: images in a row.
    title: of the whole.
    value_range: of float images; None: (0, 1).
  """
  return _grid(_displayable(images_BHWC, value_range), captions, columns, title)


def weights_grid(
  weights_NHW: Any,
  captions: Sequence[str] | None = None,
  *,
  columns: int = 5,
  title: str | None = None,
) -> 'Figure':
  """Weights as images: templates of a linear classifier, filters of a first layer.

  Blue is negative, white 0 and red positive, on one scale for all.

  Args:
    weights_NHW: templates; the kernel [H * W, K] of a linear classifier becomes
      `kernel.T.reshape(K, H, W)`, one input channel of a convolution [h, w, C, N]
      `kernel[:, :, c].transpose(2, 0, 1)`.
    captions: one a template.
    columns: templates in a row.
    title: of the whole.
  """
  weights = np.asarray(weights_NHW, np.float64)
  if weights.ndim != 3:
    raise ValueError(f'Weights must have shape [N, H, W]; these are {weights.shape}.')
  largest = float(np.abs(weights).max()) or 1.0
  figure = _grid(
    weights, captions, columns, title, cmap='RdBu_r', vmin=-largest, vmax=largest
  )
  bar = figure.colorbar(
    figure.axes[0].images[0], ax=figure.axes, shrink=0.6, aspect=30, pad=0.02
  )
  bar.set_label('Weight', color=GREY, fontsize=8.5)
  bar.ax.tick_params(labelsize=7.5, colors=GREY, length=2)
  bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
  return figure


def _grid(
  images: np.ndarray,
  captions: Sequence[str] | None,
  columns: int,
  title: str | None,
  colours: Sequence[str] | None = None,
  **imshow: Any,
) -> 'Figure':
  """Images [N, H, W] or [N, H, W, 3] in rows, captions below, no axes."""
  if not len(images):
    raise ValueError('No images to draw.')
  if captions is not None and len(captions) != len(images):
    raise ValueError(f'{len(captions)} captions for {len(images)} images.')
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  lines = max((c.count('\n') + 1 for c in captions), default=0) if captions else 0
  # Long names need wider tiles.
  longest = max(
    (len(line) for c in captions or () for line in c.split('\n')), default=0
  )
  tile = max(0.85, 0.078 * longest)
  aspect = images.shape[1] / images.shape[2]
  height = rows * (tile * aspect + 0.15 * lines + 0.12) + (0.35 if title else 0.0)
  figure = new_figure(max(columns * (tile + 0.12), 2.5), height)
  imshow = imshow or {'cmap': 'gray', 'vmin': 0, 'vmax': 1}
  for i, image in enumerate(images):
    ax = figure.add_subplot(rows, columns, i + 1)
    ax.imshow(image, interpolation='nearest', **imshow)
    ax.set_xticks([])
    ax.set_yticks([])
    colour = colours[i] if colours else INK
    wrong = colour == RED
    for spine in ax.spines.values():
      spine.set_color(RED if wrong else RULE)
      spine.set_linewidth(1.8 if wrong else 0.6)
    if captions:
      ax.set_xlabel(captions[i], fontsize=7.5, color=colour, labelpad=3)
  if title:
    figure.suptitle(title, fontsize=10, color=INK, fontweight='bold')
  return figure


def _displayable(images: Any, value_range: tuple[float, float] | None) -> np.ndarray:
  """Floats in [0, 1], [B, H, W] or [B, H, W, 3]."""
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(
      f'Images must have shape [B, H, W, 1 or 3]; these have {images.shape}.'
    )
  if images.dtype == np.uint8:
    low, high = value_range or (0, 255)
  else:
    low, high = value_range or (0, 1)
  images = np.clip((images.astype(np.float64) - low) / (high - low), 0, 1)
  return images[..., 0] if images.shape[-1] == 1 else images


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
