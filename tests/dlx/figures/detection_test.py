"""Figures of detected objects: what is drawn where, and counted in the titles."""

import matplotlib.colors
import numpy as np

from dlx import figures
from dlx.figures.style import RED


def test_true_and_found_boxes():
  images = np.zeros((3, 8, 8, 3), np.uint8)
  true = np.zeros((3, 2, 4))
  true[0, 0], true[1, 0], true[2, 0] = [1, 2, 5, 8], [0, 0, 3, 3], [0, 0, 3, 3]
  real = np.array([[True, False], [True, False], [True, True]])
  box, score = true.copy(), np.array([[0.9, 0.2], [0.5, 0.4], [0.9, 0.9]])
  label, hit = (
    np.array([[1, 0]] * 3),
    np.array([[True, False], [False] * 2, [True] * 2]),
  )
  figure = figures.detections(
    images, true, real, box, label, score, hit, ['a', 'b'], max_images=2
  )
  # What is below the score is not there; the third image is not drawn.
  assert figure.get_suptitle() == '1 of 2 objects found; 2 boxes that are wrong'
  first, second = figure.axes
  assert len(first.patches) == 2 and len(second.patches) == 3
  for patch in first.patches:
    assert patch.get_bbox().extents.tolist() == [1.5, 0.5, 7.5, 4.5]
  assert [t.get_text() for t in first.texts] == ['b 90']
  assert [t.get_text() for t in second.texts] == ['a 40', 'b 50']
  assert {t.get_color() for t in second.texts} == {RED}
  assert first.patches[1].get_edgecolor() != matplotlib.colors.to_rgba(RED)


def test_precision_over_recall():
  precision = np.zeros((2, 101))
  precision[0, :51] = 1
  figure = figures.precision_over_recall(precision, (0.5, 0.75))
  (ax,) = figure.axes
  names = [t.get_text() for t in ax.get_legend().get_texts()]
  assert names == ['IoU 0.50: 50.5 %', 'IoU 0.75: 0.0 %']
  assert ax.get_title(loc='left') == 'Precision over recall: mAP 25.25 %'
  recall, line = (np.asarray(x) for x in ax.lines[0].get_data())
  assert recall[line > 0].max() == 50 and line.max() == 100


def test_precision_by_class():
  average = [[1.0, 0.5], [np.nan, np.nan], [0.4, 0.0]]
  (ax,) = figures.precision_by_class(average, (0.5, 0.95), ['a', 'b', 'c']).axes
  heights = [round(bar.get_height()) for bar in ax.patches]
  assert heights == [100, 0, 40, 75, 0, 20]
  names = [t.get_text() for t in ax.get_legend().get_texts()]
  assert names == ['IoU 0.50', '0.50 to 0.95']
