"""Pictures of detected objects: boxes on images, precision over recall. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.images import image_grid
from dlx.figures.style import BLUE, RED, names_of_classes, new_figure, ramp, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

FOUND, TRUE = '#4fd1ff', '#ffffff'  # Of boxes, on dark images.


def detections(
  images_BHWC: Any,
  true_box_BM4: Any,
  real_BM: Any,
  box_BN4: Any,
  label_BN: Any,
  score_BN: Any,
  hit_BN: Any,
  class_names: Sequence[str],
  *,
  least_score: float = 0.3,
  columns: int = 4,
  max_images: int = 12,
) -> 'Figure':
  """Images with the true boxes, dashed, and the found ones with class and score.

  Args:
    images_BHWC: the first `max_images` are drawn.
    true_box_BM4: (top, left, bottom, right) in pixels.
    real_BM: whether there is such a box.
    box_BN4: found.
    label_BN: its class.
    score_BN: in [0, 1].
    hit_BN: whether it is true; one that is not is red.
    class_names: K names.
    least_score: boxes below it are not drawn, and do not count in the title.
    columns: images in a row.
    max_images: at most so many.
  """
  from matplotlib.patches import Rectangle

  images, true_box, real, box, label, score, hit = (
    np.asarray(x)[:max_images]
    for x in (
      images_BHWC, true_box_BM4, real_BM, box_BN4, label_BN, score_BN, hit_BN
    )
  )  # fmt: skip
  shown = score >= least_score
  right, found, true = (int(x.sum()) for x in (shown & hit, shown, real))
  figure = image_grid(
    images,
    columns=columns,
    title=f'{right} of {true} objects found; {found - right} boxes that are wrong',
  )
  count = len(images)
  figure.set_size_inches(
    1.6 * min(columns, count) + 0.2, 1.6 * -(-count // columns) + 0.4
  )

  def frame(ax, corners, **style):
    top, left, bottom, right = corners
    # Pixel (0, 0) of a shown image lies around (0, 0).
    at = left - 0.5, top - 0.5
    ax.add_patch(Rectangle(at, right - left, bottom - top, fill=False, **style))

  for i, ax in enumerate(figure.axes):
    for corners in true_box[i][real[i]]:
      frame(ax, corners, edgecolor=TRUE, linewidth=0.9, linestyle=(0, (2, 2)))
    for n in np.flatnonzero(shown[i])[::-1]:  # The likeliest in front.
      colour = FOUND if hit[i, n] else RED
      frame(ax, box[i, n], edgecolor=colour, linewidth=1.1)
      ax.text(
        box[i, n, 1] - 0.5,
        box[i, n, 0] - 0.8,
        f'{class_names[label[i, n]]} {100 * score[i, n]:.0f}',
        fontsize=5.5,
        color=colour,
        va='bottom',
        clip_on=True,
      )
  return figure


def precision_over_recall(precision_TR: Any, thresholds: Sequence[float]) -> 'Figure':
  """A line a threshold: precision at the recalls from 0 to 1, evenly spaced.

  Args:
    precision_TR: the mean over the classes, in [0, 1]; nan is not drawn.
    thresholds: of the intersection over union, T of them.
  """
  precision = np.asarray(precision_TR, np.float64)
  recall = np.linspace(0, 100, precision.shape[1])
  figure = new_figure(5.8, 3.4)
  ax = figure.add_subplot()
  colour = ramp('#b9d4ee', '#12365c')
  for i, (line, bound) in enumerate(zip(precision, thresholds, strict=True)):
    share = 1 - i / max(len(precision) - 1, 1)
    ax.plot(
      recall,
      100 * line,
      color=colour(share),
      linewidth=1.4,
      label=f'IoU {bound:.2f}: {100 * line.mean():.1f} %',
    )
  ax.set(xlabel='Recall, %', ylabel='Precision, %', xlim=(0, 100), ylim=(0, 101))
  ax.legend(
    frameon=False,
    fontsize=6.5,
    title='average precision',
    title_fontsize=7,
    loc='center left',
    bbox_to_anchor=(1.0, 0.5),
  )
  style_axes(ax, f'Precision over recall: mAP {100 * precision.mean():.2f} %')
  return figure


def precision_by_class(
  average_KT: Any, thresholds: Sequence[float], class_names: Sequence[str] | None = None
) -> 'Figure':
  """Two bars a class: average precision at the least threshold, and the mean of all.

  Args:
    average_KT: in [0, 1]; a class of nan has no bars.
    thresholds: of the intersection over union, T of them, rising.
    class_names: K names; None: 0 to K - 1.
  """
  average = np.nan_to_num(np.asarray(average_KT, np.float64))
  names = names_of_classes(class_names, len(average))
  figure = new_figure(max(3.6, 0.42 * len(average) + 1.2), 2.8)
  ax = figure.add_subplot()
  place = np.arange(len(average))
  bars = (
    (f'IoU {thresholds[0]:.2f}', average[:, 0], '#b9d4ee', -0.2),
    (f'{thresholds[0]:.2f} to {thresholds[-1]:.2f}', average.mean(1), BLUE, 0.2),
  )
  for name, height, colour, shift in bars:
    ax.bar(place + shift, 100 * height, width=0.38, color=colour, label=name)
  ax.set_xticks(place, names, rotation=45 if max(map(len, names)) > 3 else 0)
  ax.set_ylim(0, 115)  # The names of the bars stand above them.
  ax.set_yticks(range(0, 101, 20))
  ax.set_ylabel('Average precision, %')
  ax.legend(frameon=False, fontsize=7, loc='upper right', ncols=2)
  style_axes(ax, 'Average precision by class')
  return figure
