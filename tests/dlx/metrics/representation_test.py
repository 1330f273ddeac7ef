"""Distances and principal components, by hand; others in contrastive_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics
from dlx.metrics.representation import principal_components


@pytest.mark.parametrize(
  ('rows', 'wanted'),
  [
    ([[1.0, 0], [0, 2]], 1.0),
    ([[1.0, 0], [-3, 0]], 2.0),
    ([[1.0, 1], [2, 2], [5, 5]], 0.0),
    # Of a right angle, of half of one, twice: (1 + 2 (1 - 1 / sqrt 2)) / 3.
    ([[1.0, 0], [0, 1], [1, 1]], (3 - np.sqrt(2)) / 3),
    ([[0.0, 0], [1, 0]], 1.0),  # A row of zeros points nowhere.
  ],
)
def test_cosine_distance_by_hand(rows, wanted):
  found = jax.jit(metrics.cosine_distance)(jnp.array(rows))
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_cosine_distance_is_that_of_all_pairs():
  x = np.random.default_rng(0).normal(size=(40, 6))
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  pairs = (1 - unit @ unit.T)[~np.eye(40, dtype=bool)]
  found = jax.jit(metrics.cosine_distance)(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(found, pairs.mean(), rtol=1e-5)


def test_cosine_distance_of_one_row_is_nan():
  assert np.isnan(metrics.cosine_distance(jnp.ones((1, 3))))


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
