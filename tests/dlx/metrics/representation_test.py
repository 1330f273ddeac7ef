"""Principal components by hand; the others stand in losses/contrastive_test.py."""

import jax.numpy as jnp
import numpy as np

from dlx.metrics.representation import principal_components


def test_components_by_hand_with_the_sign_of_their_largest_weight():
  # Along (3, -4) / 5 and (4, 3) / 5 by 10 and 5, around (7, 1).
  along, across = jnp.array([3.0, -4.0]), jnp.array([4.0, 3.0])
  x = jnp.array([7.0, 1.0])[None] + jnp.stack([2 * along, -2 * along, across, -across])
  # Of the first axis the largest weight is that of -4: it is turned round.
  wanted = [[-10, 0], [10, 0], [0, 5], [0, -5]]
  np.testing.assert_allclose(principal_components(x), wanted, atol=1e-5)
  np.testing.assert_allclose(
    principal_components(x, 1), np.array(wanted)[:, :1], atol=1e-5
  )
