"""Conversion and normalisation, by numbers worked out by hand."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import levels as image
from dlx.errors import ConfigError


class ImageTest(parameterized.TestCase):
  def test_to_float(self):
    x = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3)
    out = image.to_float(x)
    self.assertEqual(out.dtype, jnp.float32)
    # XLA multiplies by the rounded 1 / 255: two roundings.
    np.testing.assert_allclose(out.ravel(), [0.0, 0.2, 1.0], rtol=2.0**-23)

  def test_every_level_survives_the_round_trip(self):
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(16, 16, 1)
    chex.assert_trees_all_equal(image.to_uint8(image.to_float(levels)), levels)

  def test_to_uint8_clips(self):
    x = jnp.array([-0.5, 1.5, 0.5]).reshape(1, 1, 3)
    self.assertEqual(image.to_uint8(x).ravel().tolist(), [0, 255, 128])

  @parameterized.parameters(jnp.float32, jnp.bfloat16, jnp.float16)
  def test_floats_pass(self, dtype):
    self.assertEqual(image.to_float(jnp.zeros((2, 2, 1), dtype)).dtype, dtype)

  def test_normalise_by_hand(self):
    x = jnp.array([0.5, 1.0]).reshape(1, 1, 2)
    out = image.normalise(x, (0.25, 0.5), (0.5, 0.25))
    self.assertEqual(out.ravel().tolist(), [0.5, 2.0])
    back = image.denormalise(out, (0.25, 0.5), (0.5, 0.25))
    chex.assert_trees_all_equal(back, x)

  def test_normalise_takes_arrays_and_batches(self):
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    out = image.normalise(x, mean, std)
    # 32 values of size 2 added up in float32: 32 * 2 * 2**-24 = 4e-6, at most.
    np.testing.assert_allclose(out.mean((0, 1, 2)), np.zeros(3), atol=4e-6)
    np.testing.assert_allclose(out.std((0, 1, 2)), np.ones(3), atol=4e-6)

  @parameterized.named_parameters(
    ('int32', lambda: image.to_float(jnp.zeros((2, 2, 1), jnp.int32)), 'to_float'),
    ('no_channels', lambda: image.check_float(jnp.zeros((2, 2))), r'\[..., None\]'),
    (
      'mean_of_two',
      lambda: image.normalise(jnp.zeros((2, 2, 3)), (0.5, 0.5), (1.0, 1.0)),
      r'mean of shape \(2,\)',
    ),
    (
      'std_of_zero',
      lambda: image.normalise(jnp.zeros((2, 2, 1)), (0.5,), (0.0,)),
      'std',
    ),
  )
  def test_refuses(self, call, message):
    with self.assertRaisesRegex(ConfigError, message) as caught:
      call()
    self.assertNotIn('\n', str(caught.exception))


if __name__ == '__main__':
  absltest.main()
