"""Paths between codes."""

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from dlx.sampling.interpolation import linear, slerp


class InterpolationTest(absltest.TestCase):
  def test_ends_and_middle_of_a_quarter_circle(self):
    a, b = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    t = jnp.array([0.0, 0.5, 1.0])
    half = np.sqrt(0.5)
    expected = [[[1, 0], [half, half], [0, 1]]]
    np.testing.assert_allclose(slerp(a, b, t), expected, atol=1e-6)
    np.testing.assert_allclose(
      linear(a, b, t), [[[1, 0], [0.5, 0.5], [0, 1]]], atol=1e-6
    )

  def test_keeps_the_norm_where_the_line_does_not(self):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 50)).astype(np.float32)
    a, b = (7 * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(slerp(a, b, jnp.linspace(0, 1, 7)), axis=-1)
    np.testing.assert_allclose(norms, 7, rtol=1e-5)
    straight = np.linalg.norm(linear(a, b, jnp.array([0.5])), axis=-1)
    self.assertLess(straight.max(), 6)

  def test_parallel_ends_are_a_straight_line_without_nan(self):
    a = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    for b in (a, 3 * a):
      t = jnp.array([0.25])
      np.testing.assert_allclose(slerp(a, b, t), linear(a, b, t), rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
