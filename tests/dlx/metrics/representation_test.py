"""How far features are apart, by hand and by all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics


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
