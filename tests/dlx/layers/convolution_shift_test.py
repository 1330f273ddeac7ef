"""What a convolution is for: shared weights, a local view, outputs that move along."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.convolution import Conv
from dlx.layers.pooling import max_pool

KEY = jax.random.key(0)


def image():
  """Something in the middle of nothing: 24 x 24, 6 x 6 of it not 0."""
  inner = jax.random.normal(KEY, (1, 6, 6, 2))
  return jnp.zeros((1, 24, 24, 2)).at[:, 9:15, 9:15].set(inner)


class ShiftTest(parameterized.TestCase):
  @parameterized.product(stride=(1, 2), size=(1, 3, 5), groups=(1, 2))
  def test_outputs_move_as_the_input_moves(self, stride, size, groups):
    layer = Conv(4, (size, size), (stride, stride), feature_group_count=groups)
    x = image()
    variables = layer.init(KEY, x)
    apply = jax.jit(lambda x: layer.apply(variables, x))
    shift = (4, -2)
    found = apply(jnp.roll(x, shift, (1, 2)))
    steps = tuple(s // stride for s in shift)
    wanted = jnp.roll(apply(x), steps, (1, 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if stride == 2:  # By a part of a step they do not.
      odd = apply(jnp.roll(x, 1, 1))
      moved = [jnp.roll(apply(x), n, 1) for n in (0, 1)]
      self.assertGreater(min(float(jnp.abs(odd - m).max()) for m in moved), 1e-3)

  def test_a_pool_moves_along_by_whole_windows_alone(self):
    pool, x = jax.jit(max_pool), image()
    found = pool(jnp.roll(x, 2, 1))
    np.testing.assert_array_equal(found, jnp.roll(pool(x), 1, 1))
    odd = pool(jnp.roll(x, 1, 1))
    self.assertGreater(float(jnp.abs(odd - jnp.roll(pool(x), 1, 1)).max()), 1e-3)

  def test_weights_are_shared_by_all_positions(self):
    layer = Conv(4, (3, 3))
    shapes = [
      jax.eval_shape(layer.init, KEY, jnp.zeros((1, n, n, 2)))['params']
      for n in (8, 64)
    ]
    self.assertEqual(*shapes)

  def test_an_output_sees_its_window_alone(self):
    layer, x = Conv(4, (3, 3)), jnp.ones((1, 9, 9, 2))
    variables = layer.init(KEY, x)
    slope = jax.jit(jax.grad(lambda x: layer.apply(variables, x)[0, 4, 5].sum()))(x)
    seen = np.argwhere(np.abs(slope[0]).sum(-1) > 0)
    self.assertEqual(seen.min(0).tolist(), [3, 4])
    self.assertEqual(seen.max(0).tolist(), [5, 6])
    self.assertLen(seen, 9)


if __name__ == '__main__':
  absltest.main()
