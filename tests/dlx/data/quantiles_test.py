"""Bins of equal counts, by hand and by their properties."""

import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data import quantiles
from dlx.errors import ConfigError, DataError


def test_quartiles_by_hand():
  bins = quantiles.fit([8.0, 1.0, 5.0, 2.0, 7.0, 3.0, 6.0, 4.0], 4)
  np.testing.assert_array_equal(bins.edges, [2, 4, 6])
  np.testing.assert_array_equal(bins.low, [1, 2, 4, 6])
  np.testing.assert_array_equal(bins.high, [2, 4, 6, 8])
  np.testing.assert_array_equal(bins.middle, [1.5, 3.5, 5.5, 7.5])
  np.testing.assert_array_equal(bins.counts, [2, 2, 2, 2])
  found = quantiles.bin_of(bins.edges, jnp.array([-9, 2, 2.01, 4, 5, 99, jnp.nan]))
  np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 3, -1])
  assert found.dtype == jnp.int32


def test_qcut_of_pandas_by_hand():
  """pd.qcut(range(11), 3): edges 3.33 and 6.67, so that 4, 3 and 4 numbers."""
  np.testing.assert_array_equal(quantiles.fit(np.arange(11), 3).counts, [4, 3, 4])


@pytest.mark.parametrize('num_bins', (2, 3, 5, 7, 10, 20, 100))
@pytest.mark.parametrize('size', (100, 101, 353, 1000))
def test_distinct_numbers_are_balanced_within_one(size, num_bins):
  x = np.random.default_rng(size).permutation(size).astype(np.float32) / 7
  bins = quantiles.fit(x, num_bins)
  label = np.asarray(quantiles.bin_of(bins.edges, jnp.asarray(x)))
  counts = np.bincount(label, minlength=num_bins)
  np.testing.assert_array_equal(counts, bins.counts)
  assert counts.max() - counts.min() <= 1
  # In the order of the numbers, and each within its interval.
  assert (np.diff(label[np.argsort(x)]) >= 0).all()
  assert (x >= bins.low[label]).all() and (x <= bins.high[label]).all()
  inside = [np.median(x[label == k]) for k in range(num_bins)]
  np.testing.assert_allclose(bins.middle, inside, rtol=1e-6)


def test_any_rising_map_of_the_numbers_gives_the_same_classes():
  x = np.random.default_rng(0).normal(size=500).astype(np.float32)
  labels = [
    quantiles.bin_of(quantiles.fit(y, 9).edges, jnp.asarray(y))
    for y in (x, 3 * x - 5, np.exp(x))
  ]
  np.testing.assert_array_equal(labels[0], labels[1])
  np.testing.assert_array_equal(labels[0], labels[2])


def test_equal_numbers_share_a_bin():
  """Half of the numbers are 5: of four bins the third stays empty."""
  bins = quantiles.fit([1, 2, 3, 4, 5, 5, 5, 5], 4)
  found = np.asarray(quantiles.bin_of(bins.edges, jnp.array([5.0, 5.0, 4.0])))
  assert found[0] == found[1]
  assert bins.counts.sum() == 8 and (bins.counts > 0).sum() == 3
  for field in bins[:-1]:
    assert np.isfinite(field).all() and (np.diff(field) >= 0).all()


def test_a_normal_distribution():
  edges = quantiles.of_normal(4).edges
  np.testing.assert_allclose(edges, [-0.674, 0, 0.674], atol=0.03)


@pytest.mark.parametrize(
  'target, num_bins, error, told',
  (
    ([1.0, 2.0], 1, ConfigError, 'bins=1 is not allowed: must be at least 2'),
    ([1.0, 2.0], 3, DataError, 'target: 3 bins need as many training rows, found 2'),
    ([1.0, np.nan], 2, DataError, r'target: training row 1 \(from 0\): nan is no'),
    ([4.0, 4.0, 4.0], 2, DataError, 'target: all 3 training rows fall into one bin'),
  ),
)
def test_refused_in_one_line(target, num_bins, error, told):
  with pytest.raises(error, match=told) as found:
    quantiles.fit(target, num_bins)
  assert '\n' not in str(found.value)
