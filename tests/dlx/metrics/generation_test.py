"""Nearest rows and how varied samples are: by hand, and by brute force in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics

# On a line: 0, 1, 3 and 7, each twice as far as it looks in one of two entries.
LINE = np.float32([[0, 0], [0, 1], [0, 3], [0, 7]])
HALF = 0.5**0.5  # Root mean square of a difference of 1 in one entry of two.


def test_nearest_other_row_by_hand():
  found = metrics.nearest_distance(LINE, 4)
  np.testing.assert_allclose(found, HALF * np.array([1, 1, 2, 4]), rtol=1e-6)
  # The last row is nobody's neighbour, and 3 is then the only one that is far.
  found = metrics.nearest_distance(LINE[::-1], 3)
  np.testing.assert_allclose(found, [HALF * 4, HALF * 2, HALF * 2, np.nan], rtol=1e-6)


def test_nearest_row_of_a_bank_by_hand():
  distance, row = metrics.nearest_rows(np.float32([[0, 2], [0, 6]]), LINE)
  np.testing.assert_array_equal(row, [1, 3])  # Of 1 and 3, as near, the first.
  np.testing.assert_allclose(distance, [HALF, HALF], rtol=1e-6)
  distance, row = metrics.nearest_rows(LINE, LINE, jnp.arange(4))
  np.testing.assert_array_equal(row, [1, 0, 1, 2])
  np.testing.assert_allclose(distance, HALF * np.array([1, 1, 2, 4]), rtol=1e-6)


@pytest.mark.parametrize('chunk', [2, 256])
def test_nearest_row_is_that_of_brute_force(chunk):
  rng = np.random.default_rng(0)
  query, bank = (rng.normal(size=(n, 5)).astype(np.float32) for n in (7, 11))
  apart = np.square(np.float64(query)[:, None] - bank[None]).mean(-1) ** 0.5
  distance, row = jax.jit(lambda *x: metrics.nearest_rows(*x, chunk=chunk))(query, bank)
  np.testing.assert_array_equal(row, apart.argmin(1))
  np.testing.assert_allclose(distance, apart.min(1), rtol=1e-5)


def test_diversity_by_hand():
  fake = np.float32([[0, 0], [0, 0], [0, 5], [0, 9]])
  found = metrics.diversity(fake, LINE, 4)
  # Of samples 0, 0, 4, 4; two of them are nearer than any two real ones.
  np.testing.assert_allclose(found['nearest'], HALF * 2, rtol=1e-6)
  np.testing.assert_allclose(found['nearest_real'], HALF * 2, rtol=1e-6)
  assert float(found['duplicates']) == 0.5
