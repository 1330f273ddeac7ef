"""rows_dot_general: the values and gradients of lax.dot_general."""

import pathlib
import re

from absl.testing import absltest, parameterized
import chex
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dlx.layers.matmul import (
  Dense,
  DenseGeneral,
  kernel_gradient,
  rows_dot_general,
  rows_product,
)

LIBRARY = pathlib.Path(__file__).parents[3] / 'dlx'


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

  def test_a_table_is_contracted_along_its_last_axis(self):
    rng = np.random.default_rng(0)
    x, table = (jnp.asarray(rng.normal(size=s)) for s in ((2, 3, 4), (7, 4)))
    numbers = (((2,), (1,)), ((), ()))
    loss = lambda dot: lambda *args: jnp.sin(dot(*args, numbers)).sum()
    got, want = (
      jax.tree.leaves(jax.jit(jax.value_and_grad(loss(dot), (0, 1)))(x, table))
      for dot in (rows_dot_general, lax.dot_general)
    )
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, atol=30 * 2**-21)

  @parameterized.parameters((), (5,), (5, 2))
  def test_a_product_of_rows_and_its_gradient(self, *lead):
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(*lead, n))) for n in (4, 3))
    kernel = jnp.asarray(rng.normal(size=(4, 3)))
    y, pull = jax.vjp(lambda k: rows_product(x, k), kernel)
    np.testing.assert_allclose(y, jnp.matmul(x, kernel), atol=1e-6)
    np.testing.assert_allclose(kernel_gradient(x, dy), pull(dy)[0], atol=1e-5)

  def test_of_no_rows(self):
    self.assertEqual(rows_product(jnp.ones((0, 4)), jnp.ones((4, 3))).shape, (0, 3))

  def test_wide_result_of_narrow_operands(self):
    x = jnp.ones((2, 3, 4), jnp.bfloat16)
    y = rows_dot_general(
      x, x[0].T, (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    self.assertEqual(y.dtype, jnp.float32)

  @parameterized.parameters(
    (((0,), (0,)), ((), ())),  # Not the last axis of x.
    (((2,), (1,)), ((), ())),  # Neither the first of the kernel nor the last.
    (((2,), (1,)), ((0,), (0,))),  # Batch axes.
  )
  def test_refuses_other_axes(self, *numbers):
    with self.assertRaisesRegex(ValueError, 'must be the last of x with the first'):
      rows_dot_general(jnp.ones((3, 3, 3)), jnp.ones((3, 3, 3)), numbers)

  def test_dense_keeps_its_parameters(self):
    x = jnp.ones((2, 3, 4))
    for plain, rows in (
      (nn.Dense(5), Dense(5)),
      (nn.DenseGeneral((2, 3)), DenseGeneral((2, 3))),
      (nn.DenseGeneral(5, axis=(-2, -1)), DenseGeneral(5, axis=(-2, -1))),
    ):
      variables = plain.init(jax.random.key(0), x)
      chex.assert_trees_all_equal_shapes(variables, rows.init(jax.random.key(0), x))
      np.testing.assert_allclose(
        rows.apply(variables, x), plain.apply(variables, x), rtol=1e-6
      )

  def test_every_dense_layer_goes_through_here(self):
    found = re.compile(r'\bnn\.Dense(General)?\(|partial\(\s*nn\.Dense')
    wrong = [
      p.name for p in LIBRARY.rglob('*.py') if found.search(p.read_text('utf-8'))
    ]
    self.assertEqual(wrong, [])


if __name__ == '__main__':
  absltest.main()
