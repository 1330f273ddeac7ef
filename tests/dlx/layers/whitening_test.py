"""Whitening filters: the covariance of what they give; nothing changes them later."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.whitening import WhiteningConv, patches, whitening_filters


def smooth_images(batch=40, size=9, channels=3):
  """Neighbours and channels are alike, as in photographs."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(batch, size + 2, size + 2, channels))
  x = x[:, 2:, 2:] + x[:, 1:-1, 1:-1] + x[:, :-2, :-2]
  return jnp.asarray(x + 0.5 * x.sum(-1, keepdims=True) + 2, jnp.float32)


def convolved(x, kernel):
  dims = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'VALID', dimension_numbers=dims
  )


class WhiteningTest(absltest.TestCase):
  def test_patches_by_hand(self):
    x = jnp.arange(12.0).reshape(1, 2, 3, 2)
    found = patches(x, 2)
    self.assertEqual(found.shape, (1, 1, 2, 8))
    np.testing.assert_array_equal(found[0, 0, 1], [2, 3, 4, 5, 8, 9, 10, 11])

  def test_what_the_filters_give_has_unit_covariance(self):
    x = smooth_images()
    run = jax.jit(lambda x: convolved(x, whitening_filters(x, 2, epsilon=0.0)))
    y = np.asarray(run(x)).reshape(-1, 24)
    before = np.cov(np.asarray(patches(x, 2)).reshape(-1, 12).T)
    self.assertGreater(np.linalg.cond(before), 30)
    np.testing.assert_allclose(np.cov(y[:, :12].T, bias=True), np.eye(12), atol=2e-3)
    np.testing.assert_array_equal(y[:, 12:], -y[:, :12])

  def test_epsilon_bounds_filters_of_directions_without_variance(self):
    x = jnp.tile(smooth_images(channels=1), (1, 1, 1, 2))  # Two equal channels.
    kernel = jax.jit(lambda x: whitening_filters(x, 1, epsilon=0.01))(x)
    length = jnp.sqrt(jnp.square(kernel[..., :2]).sum((0, 1, 2)))
    np.testing.assert_allclose(length.max(), 10, rtol=1e-3)

  def test_the_first_training_batch_fixes_the_filters(self):
    layer = WhiteningConv(epsilon=0.0)
    x = smooth_images()
    variables = layer.init(jax.random.key(0), x, train=False)
    apply = jax.jit(lambda v, x: layer.apply(v, x, train=True, mutable=['batch_stats']))
    # Before it, evaluation sees the entries of each patch.
    np.testing.assert_array_equal(
      layer.apply(variables, x, train=False)[..., :12], patches(x, 2)
    )
    y, once = apply(variables, x)
    kernel = once['batch_stats']['kernel']
    wanted = jax.jit(lambda x: whitening_filters(x, 2, 0.0))(x)
    np.testing.assert_allclose(kernel, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, convolved(x, kernel), rtol=1e-4, atol=1e-4)
    _, twice = apply({**variables, **once}, 3 * x[::-1] + 1)
    np.testing.assert_array_equal(twice['batch_stats']['kernel'], kernel)
    self.assertTrue(bool(twice['batch_stats']['known']))

  def test_only_the_bias_is_trained(self):
    layer, x = WhiteningConv(), smooth_images(4)
    variables = layer.init(jax.random.key(0), x, train=False)
    self.assertEqual(list(variables['params']), ['bias'])

    def loss(x):
      return layer.apply(variables, x, train=True, mutable=['batch_stats'])[0].sum()

    # No way through the filters either: the gradient is that of a fixed kernel.
    found = jax.jit(jax.grad(lambda x: loss(x)))(x)
    np.testing.assert_allclose(found, 0, atol=1e-3)  # Filters and negatives cancel.


if __name__ == '__main__':
  absltest.main()
