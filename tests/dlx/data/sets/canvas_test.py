"""Images on a canvas: where they lie, what they are, and what is refused."""

from absl.testing import absltest
import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.sets.canvas import around, moved, on_canvas
from dlx.data.sets.images import images
from dlx.data.sources import read
from dlx.errors import ConfigError


def source():
  image = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3, 1)
  label = np.array([7, 9], np.int32)
  shapes = {
    'image': jax.ShapeDtypeStruct((2, 3, 1), np.uint8),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  origin = {'name': 's', 'split': 'test', 'kind': 'generated', 'size': 2}
  return Source(
    's', 'test', shapes, 2, lambda _: Loaded({'image': image, 'label': label}, origin)
  )


class CanvasTest(absltest.TestCase):
  def test_by_hand(self):
    found = read(moved(source(), 2, [(0, 0), (-2, 1)])).data
    np.testing.assert_array_equal(found['label'], [7, 9, 7, 9])
    self.assertEqual(found['image'].shape, (4, 6, 7, 1))
    middle, up = found['image'][0, :, :, 0], found['image'][2, :, :, 0]
    np.testing.assert_array_equal(middle[2:4, 2:5], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(up[0:2, 3:6], [[1, 2, 3], [4, 5, 6]])
    self.assertEqual((middle.sum(), up.sum()), (21, 21))  # Nothing is cut.

  def test_moves_around(self):
    self.assertEqual(around(0), [(0, 0)])
    self.assertEqual(set(around(2)), {(2, 0), (-2, 0), (0, 2), (0, -2)})

  def test_mean_and_deviation_are_those_of_the_larger_images(self):
    data = on_canvas(images('digits'), 3)
    self.assertEqual(data.shape, (14, 14, 1))
    pixels = read(data.train).data['image'] / data.max_value
    np.testing.assert_allclose(data.mean, pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(), rtol=1e-6)

  def test_refuses_what_would_be_cut(self):
    with self.assertRaisesRegex(ConfigError, 'shift by 3 pixels .* margin=2'):
      moved(source(), 2, around(3))
    with self.assertRaisesRegex(ConfigError, 'margin=-1 is not allowed'):
      moved(source(), -1, ())


if __name__ == '__main__':
  absltest.main()
