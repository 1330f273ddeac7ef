"""Paths between codes."""

from absl.testing import absltest, parameterized
import jax.numpy as jnp
import numpy as np

from dlx.sampling.interpolation import linear, slerp

NORMS = ('linear', 'elliptic')


class InterpolationTest(parameterized.TestCase):
  @parameterized.parameters(*NORMS)
  def test_ends_and_middle_of_a_quarter_circle(self, norm):
    a, b = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    t = jnp.array([0.0, 0.5, 1.0])
    half = np.sqrt(0.5)
    expected = [[[1, 0], [half, half], [0, 1]]]
    np.testing.assert_allclose(slerp(a, b, t, norm=norm), expected, atol=1e-6)
    np.testing.assert_allclose(
      linear(a, b, t), [[[1, 0], [0.5, 0.5], [0, 1]]], atol=1e-6
    )

  @parameterized.parameters(*NORMS)
  def test_keeps_the_norm_where_the_line_does_not(self, norm):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 50)).astype(np.float32)
    a, b = (7 * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    found = slerp(a, b, jnp.linspace(0, 1, 7), norm=norm)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 7, rtol=1e-5)
    straight = np.linalg.norm(linear(a, b, jnp.array([0.5])), axis=-1)
    self.assertLess(straight.max(), 6)

  def test_the_identities_of_ends_with_different_norms(self):
    a, b = np.random.default_rng(1).normal(size=(2, 4, 5))
    a *= 3
    t = np.linspace(0, 1, 9)
    norm = lambda x: np.linalg.norm(x, axis=-1)
    angle = np.arccos((a * b).sum(-1) / norm(a) / norm(b))[:, None, None]
    ends = jnp.float32(a), jnp.float32(b), jnp.float32(t)
    even, ellipse = (np.float64(slerp(*ends, norm=n)) for n in NORMS)
    # The default: equal steps of the norm and of the angle.
    np.testing.assert_array_equal(even, slerp(*ends))
    wanted = (1 - t) * norm(a)[:, None] + t * norm(b)[:, None]
    np.testing.assert_allclose(norm(even), wanted, rtol=1e-5)
    turned = np.arccos(
      (even[:, 1:] * even[:, :-1]).sum(-1) / wanted[:, 1:] / wanted[:, :-1]
    )
    # The cosine of an eighth of an angle near 1 is rounded to 1e-7.
    np.testing.assert_allclose(turned, np.tile(angle[..., 0] / 8, 8), rtol=1e-4)
    # Shoemake's weights, for the ends themselves.
    t = t[None, :, None]
    shoemake = np.sin((1 - t) * angle) * a[:, None] + np.sin(t * angle) * b[:, None]
    # A few roundings of numbers below 10.
    np.testing.assert_allclose(ellipse, shoemake / np.sin(angle), atol=1e-5)
    self.assertGreater(np.abs(norm(ellipse) - norm(even)).max(), 0.1)

  def test_by_hand(self):
    a, b = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 4.0]])
    t = jnp.array([0.0, 0.5, 1.0])
    half = np.sqrt(0.5)
    for norm, middle in (
      ('linear', [3 * half, 3 * half]),
      ('elliptic', [2**0.5, 8**0.5]),
    ):
      # A few roundings of numbers below 4.
      wanted = [[[2, 0], middle, [0, 4]]]
      np.testing.assert_allclose(slerp(a, b, t, norm=norm), wanted, atol=2e-6)

  @parameterized.parameters(*NORMS)
  def test_parallel_and_opposite_ends_are_a_straight_line_without_nan(self, norm):
    a = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    t = jnp.array([0.0, 0.25, 1.0])
    for b in (a, 3 * a):
      np.testing.assert_allclose(slerp(a, b, t, norm=norm), linear(a, b, t), rtol=1e-6)
    np.testing.assert_allclose(
      slerp(a, -a, t, norm=norm), linear(a, -a, t), rtol=1e-6, atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
