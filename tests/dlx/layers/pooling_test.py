"""Pooling: hand-computed numbers, values of flax, gradients of torch and of flax."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import pooling

CASES = (
  # height, width, window, strides, padding
  (8, 8, (2, 2), None, 'VALID'),
  (7, 5, (2, 2), None, 'VALID'),
  (7, 5, (2, 2), None, 'SAME'),
  (9, 9, (3, 3), (2, 2), 'VALID'),
  (8, 9, (3, 3), (2, 2), 'SAME'),
  (8, 8, (3, 2), (1, 3), ((1, 0), (0, 2))),
)


def distinct(*shape):
  """No two entries are equal, so that no window has a tie."""
  size = int(np.prod(shape))
  return jax.random.permutation(jax.random.key(0), size).reshape(shape) / size - 0.5


class MaxPoolTest(parameterized.TestCase):
  def test_by_hand(self):
    x = jnp.array([[1.0, 2.0, -1.0, -2.0], [3.0, 4.0, -3.0, -4.0]])[None, :, :, None]
    np.testing.assert_array_equal(pooling.max_pool(x).ravel(), [4, -1])
    # SAME pads below: padding never wins, not even among negative numbers.
    got = pooling.max_pool(-jnp.abs(x[:, :1, :3]), padding='SAME')
    np.testing.assert_array_equal(got.ravel(), [-1, -1])

  @parameterized.parameters(*CASES)
  def test_values_and_gradients_are_those_of_flax(self, h, w, window, strides, padding):
    x = distinct(2, h, w, 3)
    ours = lambda x: pooling.max_pool(x, window, strides, padding)
    theirs = lambda x: nn.max_pool(x, window, strides or window, padding)
    y, pullback = jax.vjp(jax.jit(ours), x)
    np.testing.assert_array_equal(y, theirs(x))
    # Integer cotangents: sums over overlapping windows are exact in any order.
    dy = jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)
    np.testing.assert_array_equal(pullback(dy)[0], jax.vjp(theirs, x)[1](dy)[0])

  @parameterized.parameters((8, 2, 2), (9, 3, 2))
  def test_gradient_is_that_of_torch(self, size, window, stride):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = distinct(2, size, size, 3)
    tx = torch.tensor(np.array(x.transpose(0, 3, 1, 2)), requires_grad=True)
    ty = torch.nn.functional.max_pool2d(tx, window, stride)
    dy = torch.arange(ty.numel(), dtype=torch.float32).reshape(ty.shape)
    ty.backward(dy)
    ours = lambda x: pooling.max_pool(x, (window, window), (stride, stride))
    y, pullback = jax.vjp(jax.jit(ours), x)
    np.testing.assert_array_equal(y.transpose(0, 3, 1, 2), ty.detach().numpy())
    dx = pullback(jnp.array(dy.numpy()).transpose(0, 2, 3, 1))[0]
    np.testing.assert_array_equal(dx.transpose(0, 3, 1, 2), tx.grad.numpy())

  def test_ties_share_evenly(self):
    x = jnp.array([[1.0, 1.0], [0.0, 1.0]])[None, :, :, None]
    grad = jax.grad(lambda x: 6 * pooling.max_pool(x).sum())(x)
    np.testing.assert_allclose(grad.ravel(), [2, 2, 0, 2], rtol=1e-6)

  def test_forward_mode_and_second_derivative(self):
    x = distinct(1, 4, 4, 2)
    f = jax.jit(lambda x: jnp.sin(pooling.max_pool(x)).sum())
    # Entries differ by 1/32 at least: steps of 1e-3 change no maximum.
    check_grads(f, (x,), order=2, modes=('fwd', 'rev'), atol=1e-2, rtol=1e-2, eps=1e-3)

  def test_nan_and_infinity(self):
    x = jnp.zeros((1, 2, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
    x = x.at[0, 1, 3, 0].set(-jnp.inf)
    y = pooling.max_pool(x).ravel()
    np.testing.assert_array_equal(y, [jnp.nan, 0])
    grad = jax.grad(lambda x: pooling.max_pool(x)[0, 0, 1, 0])(x)
    self.assertEqual(float(grad[0, 1, 3, 0]), 0)

  def test_gradient_of_bfloat16_is_summed_in_float32(self):
    # The largest entry is that of four windows: 256 + 1 + 1 is 256 in bfloat16.
    x = jnp.zeros((1, 4, 4, 1), jnp.bfloat16).at[0, 1, 1, 0].set(1)
    dy = jnp.asarray([256, 1, 1, 0], jnp.bfloat16).reshape(1, 2, 2, 1)
    _, pull = jax.vjp(lambda x: pooling.max_pool(x, (3, 3), (1, 1)), x)
    (dx,) = pull(dy)
    self.assertEqual(dx.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(dx, 258 * x)

  def test_bfloat16_and_vmap(self):
    x = distinct(3, 2, 4, 4, 1).astype(jnp.bfloat16)
    got = jax.vmap(pooling.max_pool)(x)
    self.assertEqual(got.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(got[1], pooling.max_pool(x[1]))

  @parameterized.parameters(pooling.max_pool, pooling.avg_pool)
  def test_image_smaller_than_the_window(self, pool):
    with self.assertRaisesRegex(ConfigError, r'window \(2, 2\) .* 1 x 4 inputs'):
      pool(jnp.zeros((1, 1, 4, 1)))


class AvgPoolTest(parameterized.TestCase):
  def test_by_hand(self):
    x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(pooling.avg_pool(x).ravel(), [2.5, 4.5])
    np.testing.assert_array_equal(pooling.global_avg_pool(x), [[3.5]])

  @parameterized.parameters(*CASES)
  def test_is_flax(self, h, w, window, strides, padding):
    x = distinct(2, h, w, 3)
    ours = lambda x: pooling.avg_pool(x, window, strides, padding)
    theirs = lambda x: nn.avg_pool(x, window, strides or window, padding)
    y, pullback = jax.vjp(jax.jit(ours), x)
    dy = distinct(*y.shape)
    # Sums of up to 9 numbers below .5, in another order.
    np.testing.assert_allclose(y, theirs(x), atol=1e-6)
    np.testing.assert_allclose(pullback(dy)[0], jax.vjp(theirs, x)[1](dy)[0], atol=1e-6)

  def test_bfloat16_is_summed_in_float32(self):
    # 256 + 1 is 256 in bfloat16: summed there, the mean would be 16, not 271 / 16 = 17.
    x = jnp.ones((1, 4, 4, 1), jnp.bfloat16).at[0, 0, 0, 0].set(256)
    for y in (pooling.avg_pool(x, (4, 4)), pooling.global_avg_pool(x)):
      self.assertEqual(y.dtype, jnp.bfloat16)
      np.testing.assert_array_equal(y.astype(jnp.float32).ravel(), [17])


class AdaptiveAvgPoolTest(parameterized.TestCase):
  def test_by_hand(self):
    # Windows of 5 entries in 3: 0-1, 1-3, 3-4. Of 2 in 3: 0, 0-1, 1.
    x = jnp.array([[0.0, 2.0, 4.0, 9.0, 5.0]])[:, None, :, None]
    found = pooling.adaptive_avg_pool(x, (1, 3))
    np.testing.assert_allclose(found.ravel(), [1, 5, 7], rtol=1e-6)
    found = pooling.adaptive_avg_pool(x[:, :, :2], (1, 3))
    np.testing.assert_allclose(found.ravel(), [0, 1, 2], rtol=1e-6)

  def test_whole_windows_are_those_of_other_pools(self):
    x = distinct(2, 6, 4, 3)
    pool = pooling.adaptive_avg_pool
    np.testing.assert_array_equal(pool(x, (3, 2)), pooling.avg_pool(x))
    np.testing.assert_array_equal(pool(x, (6, 4)), x)
    found = pool(x, (1, 1)).reshape(2, 3)
    np.testing.assert_allclose(found, pooling.global_avg_pool(x), atol=1e-6)

  @parameterized.parameters(((7, 5), (3, 2)), ((13, 13), (6, 6)), ((1, 3), (6, 4)))
  def test_value_and_gradient_are_those_of_torch(self, sizes, outputs):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = distinct(2, *sizes, 3)
    tx = torch.tensor(np.array(x.transpose(0, 3, 1, 2)), requires_grad=True)
    ty = torch.nn.functional.adaptive_avg_pool2d(tx, outputs)
    dy = torch.linspace(-1, 1, ty.numel()).reshape(ty.shape)
    ty.backward(dy)
    pool = jax.jit(lambda x: pooling.adaptive_avg_pool(x, outputs))
    y, pullback = jax.vjp(pool, x)
    dx = pullback(jnp.array(dy.numpy()).transpose(0, 2, 3, 1))[0]
    # Sums of up to 36 numbers below 1, in another order.
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2), ty.detach().numpy(), atol=5e-6)
    np.testing.assert_allclose(dx.transpose(0, 3, 1, 2), tx.grad.numpy(), atol=5e-6)

  def test_bfloat16_is_summed_in_float32(self):
    x = distinct(2, 7, 5, 3).astype(jnp.bfloat16)
    y = pooling.adaptive_avg_pool(x, (3, 2))
    wanted = pooling.adaptive_avg_pool(x.astype(jnp.float32), (3, 2))
    # Rounded once, at the end.
    np.testing.assert_array_equal(y, wanted.astype(jnp.bfloat16))

  def test_refuses_no_windows(self):
    with self.assertRaisesRegex(ConfigError, r'size=\(0, 2\) is not allowed'):
      pooling.adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), (0, 2))


if __name__ == '__main__':
  absltest.main()
