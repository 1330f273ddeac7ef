"""A number as a class: bins of equal counts, fitted to training rows alone.

  bins = quantiles.fit(target, 10)         deciles; 100: percentiles; any n
  label = quantiles.bin_of(bins.edges, target)

Bin k holds what is above edge k - 1 and at most edge k, as pandas.qcut has it. Of
distinct numbers no two bins differ by more than one row. Equal numbers share a bin, so
that of repeated ones bins are unequal, and some may be empty: `counts` says which.
"""

import functools
import statistics
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError, DataError
from dlx.state import Array


class Bins(NamedTuple):
  """n bins of the numbers that they were fitted to, all finite.

  Attributes:
    edges: float32 [n - 1], rising, each the highest number of its bin.
    low: float32 [n]: the edge below a bin; of the first the least number.
    high: float32 [n]: the edge above a bin; of the last the greatest number.
    middle: float32 [n]: median of the numbers of a bin; of an empty one its edge.
    counts: int [n]: numbers in each bin.
  """

  edges: Any
  low: Any
  high: Any
  middle: Any
  counts: Any


def fit(target_N: Any, num_bins: int) -> Bins:
  """Bins between the quantiles k / n, interpolated linearly; on the host.

  Args:
    target_N: numbers of the training rows, compared as float32.
    num_bins: n.

  Raises:
    ConfigError: fewer than two bins.
    DataError: fewer numbers than bins, one that is not finite, or all in one bin.
  """
  if num_bins < 2:
    raise ConfigError(f'bins={num_bins} is not allowed: must be at least 2.')
  x_N = np.asarray(target_N, np.float32).astype(np.float64)
  if x_N.ndim != 1 or len(x_N) < num_bins:
    raise DataError(
      f'target: {num_bins} bins need as many training rows, found {x_N.size}: take '
      'fewer bins.'
    )
  if not np.isfinite(x_N).all():
    row = int(np.flatnonzero(~np.isfinite(x_N))[0])
    raise DataError(
      f'target: training row {row} (from 0): {x_N[row]} is no number to be put into a '
      'bin: leave the row out.'
    )
  sorted_N = np.sort(x_N)
  between = np.quantile(sorted_N, np.arange(1, num_bins) / num_bins)
  # By rounding, a quantile that is one of the numbers may lie just below it.
  close = between + 4 * np.finfo(np.float64).eps * np.abs(between)
  # The largest number up to a quantile parts them alike, and is a float32.
  edges = sorted_N[np.searchsorted(sorted_N, close, side='right') - 1]
  label_N = np.searchsorted(edges, x_N)
  counts = np.bincount(label_N, minlength=num_bins)
  if (counts > 0).sum() < 2:
    raise DataError(
      f'target: all {len(x_N)} training rows fall into one bin, as too many are equal: '
      'take more bins, or another target.'
    )
  low, high = np.append(sorted_N[0], edges), np.append(edges, sorted_N[-1])
  parts = [x_N[label_N == k] for k in range(num_bins)]
  middle = [np.median(x) if len(x) else low[k] for k, x in enumerate(parts)]
  edges, low, high, middle = (np.float32(x) for x in (edges, low, high, middle))
  return Bins(edges, low, high, middle, counts)


@functools.cache
def of_normal(num_bins: int) -> Bins:
  """Bins of a standard normal distribution, before any number is known."""
  size = 32 * num_bins  # Close enough for what is replaced before the first step.
  drawn = statistics.NormalDist()
  return fit([drawn.inv_cdf((i + 0.5) / size) for i in range(size)], num_bins)


def bin_of(edges: Array, target_B: Array) -> Array:
  """The bin of each number, int32 in [0, n); -1 for nan. Pure jnp.

  Args:
    edges: of `Bins`, [n - 1].
    target_B: any float; what is outside of all edges is in the first or last bin.
  """
  label_B = jnp.searchsorted(edges, target_B).astype(jnp.int32)
  return jnp.where(jnp.isnan(target_B), -1, label_B)
