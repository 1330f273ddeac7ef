"""Upsampling: numbers by hand; values and gradients of torch, flax and XLA."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import upsampling

# Height, width, input and output channels; 1 pixel: every sum has its border.
SIZES = ((1, 1, 2, 3), (2, 3, 1, 1), (7, 5, 4, 3))


def draw(h, w, i, o):
  x, kernel, dy = (
    np.random.default_rng(n).normal(size=shape).astype(np.float32)
    for n, shape in enumerate([(2, h, w, i), (4, 4, i, o), (2, 2 * h, 2 * w, o)])
  )
  return x, kernel, dy


def assert_close(got, wanted, terms):
  """Sums of `terms` products of two normal numbers, in any order.

  Each is off by at most terms * eps * (sum of sizes of the products), which is below
  2 * terms for all sums here: the mean of |x y| is 0.64.
  """
  np.testing.assert_allclose(got, wanted, rtol=0, atol=2 * terms**2 * 2.0**-24 + 1e-6)


class DepthToSpaceTest(parameterized.TestCase):
  def test_by_hand(self):
    # One pixel of 8 channels, two of them real: (a, b, c) -> 4a + 2b + c.
    y = upsampling.depth_to_space(jnp.arange(8.0).reshape(1, 1, 1, 8))
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [4, 6]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[1, 3], [5, 7]])

  @parameterized.parameters(1, 2, 3)
  def test_inverse(self, s):
    x = jnp.arange(2.0 * 6 * 12 * 5).reshape(2, 6, 12, 5)
    deep = upsampling.space_to_depth(x, s)
    self.assertEqual(deep.shape, (2, 6 // s, 12 // s, 5 * s * s))
    np.testing.assert_array_equal(upsampling.depth_to_space(deep, s), x)
    # Each pixel of the coarse image holds its own block of the fine one.
    block = x[1, s : 2 * s, 2 * s : 3 * s]
    np.testing.assert_array_equal(deep[1, 1, 2].reshape(s, s, 5), block)

  def test_one_channel_is_pixel_shuffle_of_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 9)).astype(np.float32)
    theirs = torch.pixel_shuffle(torch.tensor(x.transpose(0, 3, 1, 2)), 3)
    ours = upsampling.depth_to_space(jnp.asarray(x), 3)
    np.testing.assert_array_equal(ours[..., 0], theirs[:, 0].numpy())

  def test_what_does_not_divide_is_refused(self):
    with self.assertRaisesRegex(ConfigError, '6 channels.*multiple of 4'):
      upsampling.depth_to_space(jnp.zeros((1, 2, 2, 6)))
    with self.assertRaisesRegex(ConfigError, '4 x 3 pixels.*multiples of 2'):
      upsampling.space_to_depth(jnp.zeros((1, 4, 3, 1)))
    with self.assertRaisesRegex(ConfigError, 'factor=0'):
      upsampling.space_to_depth(jnp.zeros((1, 4, 4, 1)), 0)


class ConvTransposeTest(parameterized.TestCase):
  def test_by_hand(self):
    # Pixel (i, j) adds row 2 - p of the kernel to output row 2i + p, p = -1 .. 2.
    kernel = jnp.arange(16.0).reshape(4, 4, 1, 1)
    y = upsampling.conv_transpose_2x(jnp.ones((1, 1, 1, 1)), kernel)
    np.testing.assert_array_equal(y[0, :, :, 0], [[10, 9], [6, 5]])
    x = jnp.array([1.0, 10.0]).reshape(1, 1, 2, 1)
    y = upsampling.conv_transpose_2x(x, kernel)
    # Column 1 has column 1 of the first patch and column 3 of the second; column 2 has
    # columns 0 and 2.
    np.testing.assert_array_equal(
      y[0, :, :, 0], [[10, 9 + 110, 8 + 100, 90], [6, 5 + 70, 4 + 60, 50]]
    )

  @parameterized.parameters(*SIZES)
  def test_values_and_gradients_are_those_of_torch(self, h, w, i, o):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x, kernel, dy = draw(h, w, i, o)
    layer = torch.nn.ConvTranspose2d(i, o, 4, stride=2, padding=1, bias=False)
    flipped = np.ascontiguousarray(kernel[::-1, ::-1].transpose(2, 3, 0, 1))
    layer.weight.data = torch.tensor(flipped)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = layer(tx)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    y, pullback = jax.vjp(jax.jit(upsampling.conv_transpose_2x), x, kernel)
    dx, dkernel = pullback(jnp.asarray(dy))
    assert_close(y, ty.detach().numpy().transpose(0, 2, 3, 1), 4 * i)
    assert_close(dx, tx.grad.numpy().transpose(0, 2, 3, 1), 16 * o)
    theirs = layer.weight.grad.numpy().transpose(2, 3, 0, 1)[::-1, ::-1]
    assert_close(dkernel, theirs, 2 * h * w)

  @parameterized.parameters(*SIZES)
  def test_layer_has_parameters_values_and_gradients_of_flax(self, h, w, i, o):
    x, _, dy = draw(h, w, i, o)
    ours = upsampling.ConvTranspose2x(o)
    theirs = nn.ConvTranspose(o, (4, 4), (2, 2))
    variables = ours.init(jax.random.key(0), x)
    both = variables['params'], theirs.init(jax.random.key(0), x)['params']
    jax.tree.map(np.testing.assert_array_equal, *both)
    bias = jnp.linspace(-1, 1, o)
    variables = {'params': {**variables['params'], 'bias': bias}}
    found = []
    for layer in (ours, theirs):
      y, pullback = jax.vjp(jax.jit(layer.apply), variables, x)
      found.append((y, *pullback(jnp.asarray(dy))))
    # Sums of 4 i, 2 h w and 16 o products; the bias, of 8 h w numbers.
    for got, wanted in zip(*map(jax.tree.leaves, found), strict=True):
      assert_close(got, wanted, max(4 * i, 8 * h * w, 16 * o))

  def test_every_derivative(self):
    x, kernel, dy = draw(2, 3, 2, 2)
    f = lambda x, k: (jnp.sin(upsampling.conv_transpose_2x(x, k)) * dy).sum()
    check_grads(f, (x, kernel), 2, ('fwd', 'rev'), atol=0.1, rtol=0.1, eps=1e-2)

  def test_no_bias_and_narrow_compute(self):
    layer = upsampling.ConvTranspose2x(3, use_bias=False, dtype=jnp.bfloat16)
    x = jnp.ones((1, 2, 2, 4))
    variables = layer.init(jax.random.key(0), x)
    self.assertEqual(list(variables['params']), ['kernel'])
    self.assertEqual(variables['params']['kernel'].dtype, jnp.float32)
    self.assertEqual(layer.apply(variables, x).dtype, jnp.bfloat16)

  def test_same_value_and_gradient_inside_a_loop(self):
    x, kernel, dy = draw(3, 3, 2, 2)
    slope = jax.grad(lambda k: (upsampling.conv_transpose_2x(x, k) * dy).sum())
    loop = jax.jit(
      lambda k: jax.lax.fori_loop(0, 2, lambda _, c: slope(k + 0 * c), 0 * k)
    )
    # Sums of 18 products.
    assert_close(loop(kernel), slope(kernel), 18)

  @parameterized.parameters(((2, 2, 2, 1),), ((4, 4, 3, 1),))
  def test_a_kernel_of_another_shape_is_refused(self, shape):
    with self.assertRaises(AssertionError):
      upsampling.conv_transpose_2x(jnp.zeros((1, 2, 2, 2)), jnp.zeros(shape))


if __name__ == '__main__':
  absltest.main()
