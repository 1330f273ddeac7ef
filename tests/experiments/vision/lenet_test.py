"""LeNet: sizes of images, and the loss of 1998 by hand."""

import math

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from experiments.vision import lenet


class LeNetTest(absltest.TestCase):
  def test_images_are_padded_or_resized(self):
    image = jnp.arange(28.0 * 28).reshape(1, 28, 28, 1)
    found = lenet.fit(image)
    self.assertEqual(found.shape, (1, 32, 32, 1))
    np.testing.assert_array_equal(found[:, 2:-2, 2:-2], image)
    np.testing.assert_array_equal(found[0, :3, :3], np.zeros((3, 3, 1)))
    np.testing.assert_array_equal(found[0, -3:, -1], np.full((3, 1), 783.0))
    # Of 8 x 8: a slope stays one, in steps of a quarter.
    slope = jnp.broadcast_to(jnp.arange(8.0)[None, :, None, None], (1, 8, 8, 1))
    found = lenet.fit(slope)
    self.assertEqual(found.shape, (1, 32, 32, 1))
    np.testing.assert_allclose(jnp.diff(found[0, 2:-2, 0, 0]), 0.25, rtol=1e-4)

  def test_equation_9(self):
    distances = np.array([[1.0, 2.0], [3.0, 0.5]], np.float32)
    found = lenet.penalties(jnp.asarray(-distances), jnp.array([0, 1]), 1.5)
    wanted = [
      own + math.log(math.exp(-1.5) + sum(math.exp(-d) for d in row))
      for own, row in zip((1.0, 0.5), distances, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
