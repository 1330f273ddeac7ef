"""Pictures for reports: NumPy arrays in, a matplotlib Figure out. Host only.

Figures are plain objects, made without pyplot, so that nothing global is left behind
and threads may draw. Matplotlib is imported when the first one is drawn. Images are
[B, H, W, C] with 1 or 3 channels, uint8 or float in [0, 1] (or `value_range`).
"""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

INK, GREY, RULE = '#1f2933', '#6b7683', '#d5dae1'
BLUE, RED = '#2563a8', '#c62f2f'
_MAX_NUMBERED = 20  # Classes up to which the cells of a confusion matrix hold counts.


def confusion_matrix(
  confusion_KK: Any, class_names: Sequence[str] | None = None, title: str | None = None
) -> 'Figure':
  """Counts of true class (row) against predicted class (column).

  Colour is the share of the row, so that rare classes are as readable as common ones;
  the numbers are counts and stand in the cells up to 20 classes. Cells of 0 are left
  empty. Hits are blue, errors red.

  Args:
    confusion_KK: non-negative, rows true.
    class_names: K names; None: 0 to K - 1.
    title: None: the accuracy.
  """
  counts = np.asarray(confusion_KK, np.float64)
  num_classes = counts.shape[0]
  if counts.shape != (num_classes, num_classes):
    raise ValueError(f'A confusion matrix is square; this one is {counts.shape}.')
  names = _names(class_names, num_classes)
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
  diagonal = np.eye(num_classes, dtype=bool)

  numbered = num_classes <= _MAX_NUMBERED
  side = float(np.clip(1.6 + 0.42 * num_classes, 3.6, 9.0))
  figure = _figure(side + 0.4, side + 0.3)
  ax = figure.add_subplot()
  hits, errors = (
    _ramp('#e3edf8', BLUE),
    _ramp('#fbe3e1' if numbered else '#ffffff', RED),
  )
  rgba = np.ones((num_classes, num_classes, 4))
  rgba[diagonal] = hits(share[diagonal])
  # Errors are few: full colour at half of the row.
  rgba[~diagonal] = errors(np.minimum(2 * share[~diagonal], 1))
  rgba[counts == 0] = 1.0
  ax.imshow(rgba, interpolation='nearest')
  if numbered:
    size = float(np.clip(9.5 - 0.14 * num_classes, 6.5, 9))
    for i, j in np.argwhere(counts > 0):
      dark = share[i, j] * (1 if i == j else 2) > 0.55
      ax.text(
        j,
        i,
        f'{counts[i, j]:.10g}',
        ha='center',
        va='center',
        fontsize=size,
        color='white' if dark else INK,
      )
    ax.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.grid(which='minor', color=RULE, linewidth=0.6)
  every = max(1, -(-num_classes // 25))
  ticks = np.arange(0, num_classes, every)
  # A character is about 0.08 inches wide.
  long = 0.08 * max(len(n) for n in names) > 0.85 * every * (side - 1.2) / num_classes
  ax.set_xticks(
    ticks,
    [names[t] for t in ticks],
    rotation=45 if long else 0,
    ha='right' if long else 'center',
    rotation_mode='anchor' if long else 'default',
  )
  ax.set_yticks(ticks, [names[t] for t in ticks])
  ax.set_xlabel('Predicted class')
  ax.set_ylabel('True class')
  total, right = counts.sum(), counts[diagonal].sum()
  if title is None:
    title = f'{right:.10g} of {total:.10g} right ({100 * right / max(total, 1):.2f} %)'
  _style(ax, title)
  ax.tick_params(which='both', length=0)
  return figure


def predictions(
  images_BHWC: Any,
  label_B: Any,
  probs_BK: Any,
  class_names: Sequence[str] | None = None,
  *,
  max_images: int = 24,
  columns: int = 6,
  value_range: tuple[float, float] | None = None,
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
  """
  probs_BK = np.asarray(probs_BK, np.float64)[:max_images]
  label_B = np.asarray(label_B)[:max_images]
  images = _displayable(images_BHWC, value_range)[:max_images]
  names = _names(class_names, probs_BK.shape[1])
  predicted_B = probs_BK.argmax(1)
  captions, colours = [], []
  for label, predicted, probs in zip(label_B, predicted_B, probs_BK):
    caption = f'{names[predicted]}  {100 * probs[predicted]:.0f} %'
    right = label == predicted
    captions.append(caption if right else f'{caption}\ntrue: {names[label]}')
    colours.append(INK if right else RED)
  right = int((label_B == predicted_B).sum())
  return _grid(
    images,
    captions,
    columns,
    f'Predicted class and its probability: {right} of {len(images)} right',
    colours,
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


def scatter(
  prediction_B: Any,
  target_B: Any,
  *,
  unit: str | None = None,
  title: str | None = None,
  max_points: int = 5000,
) -> 'Figure':
  """Predicted against true values, with the line on which they are equal.

  Args:
    prediction_B: one an example.
    target_B: the same.
    unit: of both, for the labels of the axes.
    title: None: root mean squared error and r2 of all points.
    max_points: evenly spaced ones are drawn where there are more.
  """
  prediction = np.asarray(prediction_B, np.float64).reshape(-1)
  target = np.asarray(target_B, np.float64).reshape(-1)
  if prediction.shape != target.shape or not target.size:
    raise ValueError(
      f'{prediction.size} predictions for {target.size} targets: must be as many, '
      'and at least 1.'
    )
  if title is None:
    mse, variance = np.mean((prediction - target) ** 2), target.var()
    r2 = f', r2 {1 - mse / variance:.3f}' if variance else ''
    title = f'Root mean squared error {np.sqrt(mse):.4g}{r2}'
  picked = np.unique(np.linspace(0, target.size - 1, max_points).round().astype(int))
  shown = picked if target.size > max_points else slice(None)
  low = min(prediction.min(), target.min())
  high = max(prediction.max(), target.max())
  margin = 0.04 * (high - low) or 1.0
  ends = (low - margin, high + margin)
  figure = _figure(4.6, 4.5)
  ax = figure.add_subplot()
  ax.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
  ax.annotate(
    'predicted = true',
    (ends[1], ends[1]),
    xytext=(-5, -2),
    textcoords='offset points',
    ha='right',
    va='bottom',
    rotation=45,
    rotation_mode='anchor',
    color=GREY,
    fontsize=8,
  )
  # Many points: small and transparent, so that density shows.
  dense = target.size > 500
  ax.scatter(
    target[shown],
    prediction[shown],
    s=9 if dense else 18,
    alpha=0.3 if dense else 0.6,
    color=BLUE,
    linewidths=0,
    zorder=2,
  )
  ax.set(xlim=ends, ylim=ends, aspect='equal')
  suffix = f' ({unit})' if unit else ''
  ax.set_xlabel('True' + suffix)
  ax.set_ylabel('Predicted' + suffix)
  ax.grid(color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  _style(ax, title)
  return figure


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
  figure = _figure(max(columns * (tile + 0.12), 2.5), height)
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


def _names(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
  if class_names is None:
    return [str(k) for k in range(num_classes)]
  if len(class_names) != num_classes:
    raise ValueError(f'{len(class_names)} class names for {num_classes} classes.')
  return [str(name) for name in class_names]


def _figure(width: float, height: float) -> 'Figure':
  from matplotlib.figure import Figure

  figure = Figure((width, height), dpi=160, facecolor='white', layout='constrained')
  pads = {'w_pad': 0.06, 'h_pad': 0.06, 'wspace': 0.0, 'hspace': 0.0}
  figure.get_layout_engine().set(**pads)  # pyright: ignore
  return figure


def _ramp(light: str, dark: str) -> Any:
  from matplotlib.colors import LinearSegmentedColormap

  return LinearSegmentedColormap.from_list('', [light, dark])


def _style(ax: 'Axes', title: str) -> None:
  ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  for label in (ax.xaxis.label, ax.yaxis.label):
    label.set(fontsize=9, color=INK)
  ax.tick_params(labelsize=8, colors=GREY, length=3, color=RULE)
  for spine in ax.spines.values():
    spine.set_color(RULE)
  ax.spines[['top', 'right']].set_visible(False)
