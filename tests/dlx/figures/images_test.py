"""Figures: what is written on them; that they draw and leave nothing behind."""

import io
import subprocess
import sys

from absl.testing import absltest, parameterized
from matplotlib.colors import to_rgba
import numpy as np

from dlx import figures


def png(figure):
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png')
  return buffer.getvalue()


def texts(ax):
  return [t.get_text() for t in ax.texts]


class FiguresTest(parameterized.TestCase):
  def test_confusion_matrix(self):
    figure = figures.confusion_matrix([[8, 2], [0, 10]], ['benign', 'malignant'])
    (ax,) = figure.axes
    self.assertEqual(texts(ax), ['8', '2', '10'])  # No number for 0.
    self.assertEqual(ax.get_title(loc='left'), '18 of 20 right (90.00 %)')
    self.assertEqual(ax.get_xlabel(), 'Predicted class')
    self.assertEqual(ax.get_ylabel(), 'True class')
    self.assertEqual(
      [t.get_text() for t in ax.get_yticklabels()], ['benign', 'malignant']
    )
    rgba = np.asarray(ax.images[0].get_array())
    # Row 1 is all hits: full blue. Column 0 of it is empty: white. Errors are reddish.
    np.testing.assert_allclose(rgba[1, 1], to_rgba(figures.BLUE), atol=1 / 255)
    np.testing.assert_array_equal(rgba[1, 0], 1)
    self.assertGreater(rgba[0, 1, 0], rgba[0, 1, 2])
    self.assertEqual(png(figure)[:4], b'\x89PNG')

  def test_many_classes_and_empty_matrix(self):
    figure = figures.confusion_matrix(np.eye(60))
    self.assertEmpty(texts(figure.axes[0]))
    self.assertLessEqual(len(figure.axes[0].get_xticks()), 25)
    png(figure)
    png(figures.confusion_matrix(np.zeros((3, 3))))

  @parameterized.product(channels=(1, 3), uint8=(True, False))
  def test_predictions(self, channels, uint8):
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, channels))
    images = (images * 255).astype(np.uint8) if uint8 else images
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    figure = figures.predictions(
      images, [0, 1, 1, 1], probs, ['cat', 'dog'], max_images=3
    )
    captions = [ax.get_xlabel() for ax in figure.axes]
    self.assertEqual(captions, ['cat  90 %', 'dog  80 %', 'cat  60 %\ntrue: dog'])
    colours = [ax.xaxis.label.get_color() for ax in figure.axes]
    self.assertEqual(colours, [figures.INK, figures.INK, figures.RED])
    self.assertEqual(
      figure.get_suptitle(), 'Predicted class and its probability: 2 of 3 right'
    )
    figure = figures.predictions(images, [0, 1, 1, 1], probs, title='Teacher')
    self.assertEqual(figure.get_suptitle(), 'Teacher: 3 of 4 right')
    if uint8:
      shown = np.asarray(figure.axes[1].images[0].get_array())
      expected = images[1] / 255
      np.testing.assert_allclose(shown, expected[..., 0] if channels == 1 else expected)

  def test_value_range(self):
    images = np.array([-2.0, 0.0, 2.0, 9.0]).reshape(1, 2, 2, 1)
    figure = figures.image_grid(images, value_range=(-2, 2))
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, [[0, 0.5], [1, 1]])

  def test_scatter(self):
    figure = figures.scatter([1.0, 2.0, 6.0], [1.0, 3.0, 5.0], unit='k$')
    (ax,) = figure.axes
    self.assertEqual(ax.get_xlabel(), 'True (k$)')
    self.assertEqual(ax.get_ylabel(), 'Predicted (k$)')
    # mse 2/3, variance 8/3.
    title = ax.get_title(loc='left')
    self.assertEqual(title, '3 examples: root mean squared error 0.8165, r2 0.750')
    np.testing.assert_array_equal(
      ax.collections[0].get_offsets(), [[1, 1], [3, 2], [5, 6]]
    )
    x, y = ax.lines[0].get_data()
    np.testing.assert_array_equal(x, y)
    png(figure)

  def test_scatter_thins_and_takes_constants(self):
    y = np.arange(100.0)
    figure = figures.scatter(y, y, max_points=10)
    offsets = np.asarray(figure.axes[0].collections[0].get_offsets())
    self.assertLen(offsets, 10)
    np.testing.assert_array_equal(offsets[[0, -1], 0], [0, 99])
    png(figures.scatter([2.0, 2.0], [2.0, 2.0]))

  def test_weights_share_one_symmetric_scale(self):
    weights = np.zeros((3, 2, 2))
    weights[1, 0, 0] = -4
    figure = figures.weights_grid(weights, ['a', 'b', 'c'], title='Templates')
    for ax in figure.axes[:3]:
      self.assertEqual(ax.images[0].get_clim(), (-4, 4))
    self.assertEqual(figure.axes[3].get_ylabel(), 'Weight')
    png(figure)

  @parameterized.parameters(
    (lambda: figures.confusion_matrix(np.zeros((2, 3))), 'square'),
    (lambda: figures.confusion_matrix(np.eye(2), ['a']), '1 class names for 2'),
    (lambda: figures.image_grid(np.zeros((2, 8, 8))), r'\[B, H, W, 1 or 3\]'),
    (lambda: figures.image_grid(np.zeros((0, 8, 8, 1))), 'No images'),
    (lambda: figures.image_grid(np.zeros((2, 8, 8, 1)), ['a']), '1 captions for 2'),
    (lambda: figures.scatter([1.0], [1.0, 2.0]), '1 predictions for 2'),
    (lambda: figures.weights_grid(np.zeros((2, 2))), r'\[N, H, W\]'),
  )
  def test_wrong_shapes(self, draw, message):
    with self.assertRaisesRegex(ValueError, message):
      draw()

  def test_import_and_drawing_leave_pyplot_alone(self):
    code = (
      'import sys\n'
      'from dlx import figures\n'
      "assert not any(m.startswith('matplotlib') for m in sys.modules)\n"
      'figures.confusion_matrix([[1, 0], [0, 1]])\n'
      "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


if __name__ == '__main__':
  absltest.main()
