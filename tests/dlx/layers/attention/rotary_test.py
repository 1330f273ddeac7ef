"""Rotary positions: by hand, relative positions, norms, then complex numbers."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.attention.rotary import rotate


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class RotateTest(parameterized.TestCase):
  def test_by_hand(self):
    # Width 4, base 100: speeds 1 and 1/10. (1, 0, 0, 2) at position 3: pairs are
    # (1, 0), turned by 3, and (0, 2), turned by 0.3.
    x = jnp.asarray([1.0, 0, 0, 2]).reshape(1, 1, 1, 4)
    y = rotate(x, jnp.asarray([3]), 100.0).ravel()
    want = [np.cos(3), -2 * np.sin(0.3), np.sin(3), 2 * np.cos(0.3)]
    np.testing.assert_allclose(y, want, atol=1e-6)

  def test_the_first_token_stays(self):
    x = normal(2, 1, 3, 8)
    np.testing.assert_array_equal(rotate(x, jnp.asarray([0])), x)

  def test_norms_stay(self):
    x = normal(2, 5, 3, 8)
    y = rotate(x, jnp.asarray([0, 1, 7, 100, 2047]))
    norm = lambda z: np.linalg.norm(z, axis=-1)
    np.testing.assert_allclose(norm(y), norm(x), rtol=1e-6)
    self.assertGreater(np.abs(y[:, 1:] - x[:, 1:]).max(), 0.1)

  @parameterized.parameters((0, 0), (5, 2), (2, 5), (900, 897))
  def test_products_depend_on_the_difference_of_positions(self, query, key):
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)

    def product(shift):
      turned = (rotate(x, jnp.asarray([p + shift])) for x, p in ((q, query), (k, key)))
      return float(jnp.vdot(*turned))

    # Angles up to 2000 in float32 miss by 2000 * 6e-8; products are of size 3.
    for shift in (1, 10, 1000):
      self.assertAlmostEqual(product(shift), product(0), delta=2e-3)
    if query != key:
      other = float(jnp.vdot(q, k))
      self.assertGreater(abs(product(0) - other), 1e-2)

  def test_equals_complex_rotation_of_pairs(self):
    # As the paper writes it, for pairs of neighbours: put in this order and back.
    x = np.asarray(normal(2, 6, 3, 8), np.float64)
    position = np.arange(6) + 11
    order = np.asarray([0, 4, 1, 5, 2, 6, 3, 7])
    pairs = np.ascontiguousarray(x[..., order]).view(np.complex128)
    speed = 10_000.0 ** (-2 * np.arange(4) / 8)
    turned = pairs * np.exp(1j * position[:, None, None] * speed)
    want = turned.view(np.float64)[..., np.argsort(order)]
    got = rotate(jnp.asarray(x, jnp.float32), jnp.asarray(position))
    np.testing.assert_allclose(got, want, atol=2e-5)

  def test_angles_of_narrow_inputs_are_wide(self):
    # bfloat16 has no number between 1024 and 1032: its angles would be 4 wrong.
    x = normal(1, 1, 1, 8).astype(jnp.bfloat16)
    got = rotate(x, jnp.asarray([1027]))
    want = rotate(x.astype(jnp.float32), jnp.asarray([1027]))
    self.assertEqual(got.dtype, jnp.bfloat16)
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.02)

  def test_an_odd_width_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'width 3 cannot rotate: must be even'):
      jax.eval_shape(lambda: rotate(jnp.zeros((1, 1, 1, 3)), jnp.arange(1)))


if __name__ == '__main__':
  absltest.main()
