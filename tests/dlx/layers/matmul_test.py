"""rows_dot_general: the values and gradients of lax.dot_general."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dlx.layers.matmul import rows_dot_general


class RowsDotGeneralTest(parameterized.TestCase):
  @parameterized.parameters(
    ((2, 3, 4), (4, 5), 1),
    ((2, 3, 4), (4, 5, 6), 1),  # [D, H, K], as the maps to heads.
    ((2, 3, 4, 5), (4, 5, 6), 2),  # [H, K, D], as the map from heads.
    ((4,), (4, 5), 1),
  )
  def test_equals_dot_general(self, x_shape, kernel_shape, n):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s)) for s in (x_shape, kernel_shape))
    numbers = (
      (tuple(range(len(x_shape) - n, len(x_shape))), tuple(range(n))),
      ((), ()),
    )
    loss = lambda dot: lambda x, kernel: jnp.sin(dot(x, kernel, numbers)).sum()
    got = rows_dot_general(x, kernel, numbers)
    want = lax.dot_general(x, kernel, numbers)
    self.assertEqual(got.shape, want.shape)
    # Sums of at most 20 products near 1, in another order.
    np.testing.assert_allclose(got, want, atol=20 * 2**-22)
    for a, b in zip(
      jax.grad(loss(rows_dot_general), (0, 1))(x, kernel),
      jax.grad(loss(lax.dot_general), (0, 1))(x, kernel),
    ):
      np.testing.assert_allclose(a, b, atol=30 * 2**-21)

  def test_wide_result_of_narrow_operands(self):
    x = jnp.ones((2, 3, 4), jnp.bfloat16)
    y = rows_dot_general(
      x, x[0].T, (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    self.assertEqual(y.dtype, jnp.float32)

  @parameterized.parameters(
    (((0,), (0,)), ((), ())),  # Not the last axis of x.
    (((2,), (1,)), ((), ())),  # Not the first of the kernel.
    (((2,), (1,)), ((0,), (0,))),  # Batch axes.
  )
  def test_refuses_other_axes(self, *numbers):
    with self.assertRaisesRegex(ValueError, 'must be the last of x with the first'):
      rows_dot_general(jnp.ones((3, 3, 3)), jnp.ones((3, 3, 3)), numbers)

  def test_dense_keeps_its_parameters(self):
    x = jnp.ones((2, 3, 4))
    plain, rows = nn.Dense(5), nn.Dense(5, dot_general=rows_dot_general)
    variables = plain.init(jax.random.key(0), x)
    np.testing.assert_allclose(
      rows.apply(variables, x), plain.apply(variables, x), rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
