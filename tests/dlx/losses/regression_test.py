"""The quantile loss: by hand, and at its least where the quantile is."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import losses


class PinballTest(absltest.TestCase):
  def test_by_hand(self):
    # Row 1: errors 1 and -2 at the levels 0.1 and 0.9; row 2: -2 and 2.
    found = losses.pinball(
      jnp.array([[0.0, 3.0], [3.0, -1.0]]), jnp.ones(2), jnp.array([0.1, 0.9])
    )
    np.testing.assert_allclose(
      found, [(0.1 * 1 + 0.1 * 2) / 2, (0.9 * 2 + 0.9 * 2) / 2], rtol=1e-6
    )

  def test_the_middle_level_is_half_the_absolute_error(self):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(2))
    found = losses.pinball(a[..., None], b, jnp.array([0.5]))
    np.testing.assert_allclose(found, losses.absolute_error(a, b) / 2, rtol=1e-6)

  def test_least_at_the_quantile_of_what_is_seen(self):
    """Of 0 to 99 the number 90 has 90 % below it: to its left it falls, then rises."""
    seen = jnp.arange(100.0)
    mean = lambda q: losses.pinball(
      jnp.full((100, 1), 1.0) * q, seen, jnp.array([0.9])
    ).mean()
    slope = jax.jit(jax.vmap(jax.grad(mean)))(jnp.array([80.5, 89.5, 90.5, 95.5]))
    # The share below less the level: 0.81, 0.90, 0.91 and 0.96 less 0.9.
    np.testing.assert_allclose(slope, [-0.09, 0.0, 0.01, 0.06], atol=1e-6)


if __name__ == '__main__':
  absltest.main()
