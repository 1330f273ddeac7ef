"""Figures of masks: VOC's colours, what is drawn, void, classes that are absent."""

import numpy as np

from dlx import figures


def test_colours_are_those_of_voc():
  found = figures.class_colours(256)
  # As the devkit lists them: background, aeroplane, bicycle, bird, ..., tv monitor.
  wanted = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}
  wanted |= {4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
  for k, colour in wanted.items():
    assert tuple(found[k]) == colour
  assert len({tuple(x) for x in found}) == 256
  assert tuple(found[255]) == (224, 224, 192)


def test_rows_of_images_true_and_predicted():
  images = np.full((3, 4, 4, 3), 255, np.uint8)
  label, predicted = np.zeros((2, 3, 4, 4), np.int32)
  label[0, 0, 0], predicted[1, 3, 3], label[0, 1] = 1, 1, 255
  figure = figures.segmentations(images, label, predicted, 2, max_images=2)
  (ax,) = figure.axes
  # 28 of 2 * 16 pixels count; one of them is wrong in each image.
  assert ax.get_title(loc='left') == f'Masks: {100 * 26 / 28:.2f} % of the pixels right'
  shown = np.rint(255 * np.asarray(ax.images[0].get_array())).astype(int)
  assert shown.shape == (14, 9, 3)  # Tiles of 4, a gap of 1.
  assert tuple(shown[5, 0]) == (128, 0, 0)
  assert tuple(shown[6, 0]) == (224, 224, 192)
  assert tuple(shown[10, 0]) == (0, 0, 0) and tuple(shown[13, 8]) == (128, 0, 0)
  names = [t.get_text() for t in ax.get_yticklabels()]
  assert names == ['image', 'true', 'predicted']


def test_an_absent_class_has_no_bar():
  figure = figures.iou_by_class([0.5, np.nan, 1.0], ['a', 'b', 'c'])
  (ax,) = figure.axes
  assert [bar.get_height() for bar in ax.patches] == [50, 0, 100]
  assert ax.get_title(loc='left') == 'Intersection over union: mean 75.00 %'
  figure = figures.iou_by_class([np.nan] * 2)
  assert figure.axes[0].get_title(loc='left').endswith('nan %')
