"""Pictures of a class for every pixel: masks in colours, IoU by class. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.images import mosaic
from dlx.figures.style import BLUE, names_of_classes, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_VOID = (224, 224, 192)  # As PASCAL VOC shows it.


def class_colours(num_classes: int) -> np.ndarray:
  """PASCAL VOC's colours: uint8 [K, 3], black for class 0, all different up to 256.

  Bits 0, 3, 6 of a class are the highest bits of red, bits 1, 4, 7 those of green and
  2, 5 those of blue.
  """
  classes = np.arange(num_classes)
  out = np.zeros((num_classes, 3), np.int64)
  for bit in range(8):
    out[:, bit % 3] |= (classes >> bit & 1) << (7 - bit // 3)
  return out.astype(np.uint8)


def segmentations(
  images_BHWC: Any,
  label_BHW: Any,
  predicted_BHW: Any,
  num_classes: int,
  *,
  max_images: int = 12,
  title: str | None = None,
) -> 'Figure':
  """Images, their true masks and the predicted ones, one under the other.

  Args:
    images_BHWC: uint8, of 3 channels; the first `max_images` are drawn.
    label_BHW: true classes; one that is none of the classes is drawn as void.
    predicted_BHW: classes.
    num_classes: K.
    max_images: at most so many.
    title: None: the share of right pixels in these images.
  """
  images, label, predicted = (
    np.asarray(x)[:max_images] for x in (images_BHWC, label_BHW, predicted_BHW)
  )
  colours = np.concatenate([class_colours(num_classes), [_VOID]])
  counted = (label >= 0) & (label < num_classes)
  shown = [colours[np.where(counted, label, num_classes)], colours[predicted]]
  if title is None:
    right = (label == predicted)[counted].mean() if counted.any() else 0.0
    title = f'Masks: {100 * right:.2f} % of the pixels right'
  rows = np.stack([images, *shown])
  names = ['image', 'true', 'predicted']
  return mosaic(rows, names, title=title, value_range=(0, 255))


def iou_by_class(iou_K: Any, class_names: Sequence[str] | None = None) -> 'Figure':
  """A bar a class; none where a class is absent (nan), the mean in the title."""
  iou = np.asarray(iou_K, np.float64)
  names = names_of_classes(class_names, len(iou))
  figure = new_figure(max(3.6, 0.42 * len(iou) + 1.2), 2.8)
  ax = figure.add_subplot()
  ax.bar(range(len(iou)), 100 * np.nan_to_num(iou), color=BLUE, width=0.7)
  longest = max(map(len, names))
  ax.set_xticks(range(len(iou)), names, rotation=45 if longest > 3 else 0)
  ax.set_ylim(0, 100)
  ax.set_ylabel('IoU, %')
  mean = 100 * np.nanmean(iou) if np.isfinite(iou).any() else np.nan
  style_axes(ax, f'Intersection over union: mean {mean:.2f} %')
  return figure
