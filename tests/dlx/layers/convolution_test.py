"""Convolution with its own filter gradient, against lax's."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers import convolution

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def arrays(shape_x, shape_w, seed=0):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=shape_x).astype(np.float32),
    rng.normal(size=shape_w).astype(np.float32),
  )


class ConvolutionTest(parameterized.TestCase):
  @parameterized.parameters(
    ((2, 7, 9, 3), (3, 3, 3, 5), (1, 1), 'SAME', (1, 1)),
    ((2, 8, 8, 3), (4, 4, 3, 5), (2, 2), 'SAME', (1, 1)),
    ((2, 9, 7, 2), (3, 2, 2, 4), (2, 3), 'VALID', (1, 1)),
    ((2, 8, 8, 2), (3, 3, 2, 4), (2, 2), ((1, 0), (2, 1)), (1, 1)),
    ((1, 11, 11, 2), (3, 3, 2, 3), (1, 2), 'SAME', (2, 3)),
    ((3, 6, 6, 2), (1, 1, 2, 4), (2, 2), 'SAME', (1, 1)),
    ((3, 5, 5, 2), (5, 5, 2, 4), (1, 1), ((4, 4), (4, 4)), (1, 1)),
  )
  def test_values_and_gradients_are_those_of_lax(self, sx, sw, strides, pad, dilation):
    x, w = arrays(sx, sw)

    def loss(conv, x, w):
      y = conv(x, w, strides, pad, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)
      return (jnp.sin(y) * jnp.arange(y.size).reshape(y.shape) / y.size).sum()

    for function in (convolution.conv_general_dilated, jax.lax.conv_general_dilated):
      value = jax.value_and_grad(lambda x, w, f=function: loss(f, x, w), argnums=(0, 1))
      found = jax.jit(value)(x, w)
      if function is convolution.conv_general_dilated:
        ours = found
    # Sums of at most 3 * 81 products of values of size 1 in float32: 1e-4 is 100 ulp.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(found), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

  def test_second_derivatives_and_vmap(self):
    x, w = arrays((2, 6, 6, 2), (3, 3, 2, 3))
    xs = np.stack([x, 2 * x])

    def penalty(conv, x, w):
      run = lambda x: jnp.tanh(
        conv(x, w, (2, 2), 'SAME', dimension_numbers=DIMENSIONS)
      ).sum()
      return (jax.grad(run)(x) ** 2).sum()

    def both(conv):
      grad = jax.grad(lambda w, x: penalty(conv, x, w))
      return jax.vmap(grad, in_axes=(None, 0))(w, xs)

    ours = both(convolution.conv_general_dilated)
    np.testing.assert_allclose(
      ours, both(jax.lax.conv_general_dilated), rtol=1e-4, atol=1e-4
    )

  def test_filter_gradient_in_a_loop_is_an_ordinary_convolution(self):
    """What makes it fast there: the order of its dimensions in the compiled loop."""
    if jax.default_backend() != 'cpu':
      self.skipTest('the dimension order is a matter of the CPU backend')
    x, w = arrays((4, 8, 8, 8), (3, 3, 8, 8))

    def program(conv):
      def step(_, w):
        run = lambda w: (
          conv(x, w, (1, 1), 'SAME', dimension_numbers=DIMENSIONS) ** 2
        ).sum()
        return w - 1e-3 * jax.grad(run)(w)

      text = (
        jax.jit(lambda w: jax.lax.fori_loop(0, 3, step, w)).lower(w).compile().as_text()
      )
      return [line for line in text.splitlines() if ' convolution(' in line]

    ordinary = 'dim_labels=b01f_01io->b01f'
    ours = program(convolution.conv_general_dilated)
    self.assertTrue(ours)
    self.assertTrue(all(ordinary in line for line in ours), ours)
    # If this fails, XLA has learnt it, and the module is no longer needed.
    naive = program(jax.lax.conv_general_dilated)
    self.assertFalse(all(ordinary in line for line in naive))

  def test_groups_and_input_dilation_are_left_to_lax(self):
    x, w = arrays((2, 6, 6, 4), (3, 3, 2, 4))
    kwargs = {'dimension_numbers': DIMENSIONS, 'feature_group_count': 2}
    np.testing.assert_array_equal(
      convolution.conv_general_dilated(x, w, (1, 1), 'SAME', **kwargs),
      jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', **kwargs),
    )

  def test_module_has_the_parameters_of_flax(self):
    x, _ = arrays((2, 6, 6, 3), (1,))
    ours = convolution.Conv(5, (3, 3), strides=(2, 2))
    flax = nn.Conv(5, (3, 3), strides=(2, 2))
    variables = ours.init(jax.random.key(0), x)
    jax.tree.map(
      np.testing.assert_array_equal, variables, flax.init(jax.random.key(0), x)
    )
    np.testing.assert_array_equal(ours.apply(variables, x), flax.apply(variables, x))


if __name__ == '__main__':
  absltest.main()
