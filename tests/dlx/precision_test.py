"""Lengths and unit vectors: right for every size that float32 holds, by hand."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import precision
from dlx.sampling import interpolation

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.usefixtures('optimised')  # Optimised, XLA moves factors about.
class LengthTest(parameterized.TestCase):
  @parameterized.parameters(1e-30, 1e-20, 1.0, 1e20, 1e37)
  def test_three_four_five_at_any_size(self, size):
    """The square of 3e20 is no float32, and that of 3e-30 is 0."""
    rows = jnp.array([[3.0, 4.0], [-4.0, 3.0]]) * size
    for norm in (precision.euclidean_norm, jax.jit(precision.euclidean_norm)):
      np.testing.assert_allclose(norm(rows), [5 * size, 5 * size], rtol=8 * EPS)
    unit = precision.unit(rows)
    if size >= 1:  # Shorter than 1e-12 a row is not made longer than that allows.
      np.testing.assert_allclose(unit, [[0.6, 0.8], [-0.8, 0.6]], rtol=8 * EPS)

  def test_zero_infinity_and_nan_stay(self):
    rows = jnp.array([[0.0, 0.0], [jnp.inf, 1.0], [jnp.nan, 1.0]])
    np.testing.assert_array_equal(
      precision.euclidean_norm(rows), [0.0, jnp.inf, jnp.nan]
    )
    np.testing.assert_array_equal(precision.unit(rows)[0], [0.0, 0.0])

  def test_zeros_that_are_constants_of_a_program(self):
    norm = jax.jit(lambda: precision.euclidean_norm(jnp.zeros((2, 3))))
    np.testing.assert_array_equal(norm(), [0.0, 0.0])

  def test_ordinary_rows_keep_their_bits(self):
    rows = jax.random.normal(jax.random.key(0), (9, 7)) * 1e3
    plain = jnp.sqrt(jnp.square(rows).sum(-1))
    np.testing.assert_array_equal(precision.euclidean_norm(rows), plain)
    square = jnp.square(rows).sum(-1, keepdims=True)
    np.testing.assert_array_equal(precision.unit(rows), rows * jax.lax.rsqrt(square))

  @parameterized.parameters(1.0, 1e25)
  def test_gradients_are_those_of_the_length(self, size):
    row = jnp.array([3.0, 4.0]) * size
    np.testing.assert_allclose(
      jax.grad(precision.euclidean_norm)(row), [0.6, 0.8], rtol=8 * EPS
    )
    # d (x / |x|)_0 / dx = (1 - .36, -.48) / |x|.
    slope = jax.grad(lambda x: precision.unit(x[None])[0, 0])(row)
    np.testing.assert_allclose(slope * size, [0.128, -0.096], rtol=32 * EPS)

  def test_path_between_long_codes(self):
    """A quarter of a circle, whose radius has no square in float32."""
    a, b = jnp.array([[1e25, 0.0]]), jnp.array([[0.0, 1e25]])
    middle = interpolation.slerp(a, b, jnp.array([0.5]))[0, 0]
    np.testing.assert_allclose(middle, [0.5**0.5 * 1e25] * 2, rtol=16 * EPS)


if __name__ == '__main__':
  absltest.main()
