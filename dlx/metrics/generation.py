"""Measures of generated images: Frechet distance, nearest neighbours, diversity."""

import math
from typing import Mapping

import jax.numpy as jnp

from dlx import labels
from dlx.metrics.linear_probe import in_chunks
from dlx.precision import EXACT
from dlx.state import Array, Metric

# What `diversity` reports.
DIVERSITY: Mapping[str, Metric] = {
  'nearest': Metric(
    'Distance of samples',
    None,
    'Mean distance of a sample to the nearest other sample, to be compared with that '
    'of real images.',
    '',
    'distance',
  ),
  'nearest_real': Metric(
    'Distance of real images',
    None,
    'Mean distance of a real image to the nearest other real image.',
    '',
    'distance',
  ),
  'duplicates': Metric(
    'Duplicates',
    'lower',
    'Share of the samples with a nearer neighbour than all but 1 % of the real images '
    'have.',
    '%',
    'share',
  ),
}


def place_rows(
  image_BHWC: Array, index_B: Array, weight_B: Array, num_rows: int
) -> Array:
  """A sum over batches that gathers images: [num_rows, H*W*C], image i in row i.

  Images of weight 0 and those whose number is outside [0, num_rows) are left out.
  """
  size = math.prod(image_BHWC.shape[1:])  # Also of no rows, where -1 is no size.
  flat_BF = image_BHWC.reshape(image_BHWC.shape[0], size) * weight_B[:, None]
  counted_B = (weight_B != 0) & labels.is_index(index_B, num_rows)
  flat_BF = jnp.where(counted_B[:, None], flat_BF, 0)  # Not nan times 0.
  blank = jnp.zeros((num_rows, flat_BF.shape[1]), flat_BF.dtype)
  return blank.at[index_B].add(flat_BF, mode='drop')


def nearest_distance(rows_NF: Array, count: Array | int) -> Array:
  """Distance of each row to the nearest other, [N]: root mean square over entries.

  inf of a row that is alone. Rows from `count` on are nobody's neighbour and have nan.
  """
  number_N = jnp.arange(rows_NF.shape[0])
  square_N = jnp.square(rows_NF).sum(1)
  dot_NN = jnp.matmul(rows_NF, rows_NF.T, precision=EXACT)
  distance_NN = square_N[:, None] + square_N[None, :] - 2 * dot_NN
  barred_NN = (number_N[:, None] == number_N[None, :]) | (number_N >= count)[None, :]
  nearest_N = jnp.where(barred_NN, jnp.inf, distance_NN).min(1, initial=jnp.inf)
  distance_N = jnp.sqrt(jnp.maximum(nearest_N, 0) / rows_NF.shape[1])
  return jnp.where(number_N < count, distance_N, jnp.nan)


def nearest_rows(
  query_MF: Array, bank_NF: Array, itself_M: Array | None = None, *, chunk: int = 256
) -> tuple[Array, Array]:
  """The nearest row of a bank to each query: (distance [M], row int32 [M]).

  Args:
    query_MF: of M examples.
    bank_NF: of N examples, at least one; two where `itself_M` bars one.
    itself_M: int, a row of the bank that query m must not find: leave-one-out.
    chunk: queries at a time: `chunk` x N distances are held at once.

  Returns:
    The distance is the root mean square over entries; of equal distances the first row.
  """
  if itself_M is None:
    itself_M = jnp.full(query_MF.shape[:1], -1, jnp.int32)
  square_N, row_N = jnp.square(bank_NF).sum(1), jnp.arange(bank_NF.shape[0])

  def some(part):
    query_bF, itself_b = part
    dot_bN = jnp.matmul(query_bF, bank_NF.T, precision=EXACT)
    distance_bN = jnp.square(query_bF).sum(1)[:, None] + square_N[None] - 2 * dot_bN
    distance_bN = jnp.where(row_N[None] == itself_b[:, None], jnp.inf, distance_bN)
    at_b = distance_bN.argmin(1).astype(jnp.int32)
    least_b = jnp.take_along_axis(distance_bN, at_b[:, None], 1)[:, 0]
    return jnp.sqrt(jnp.maximum(least_b, 0) / bank_NF.shape[1]), at_b

  return in_chunks(some, (query_MF, itself_M), chunk)


def diversity(fake_NF: Array, real_NF: Array, count: Array | int) -> dict[str, Array]:
  """`nearest`, `nearest_real` and `duplicates`; see `SampleReport.evaluation`.

  Args:
    count: rows that are images, the first ones.
  """
  fake_N = nearest_distance(fake_NF, count)
  real_N = nearest_distance(real_NF, count)
  close_N = fake_N < jnp.nanquantile(real_N, 0.01)  # False for nan.
  return {
    'nearest': jnp.nanmean(fake_N),
    'nearest_real': jnp.nanmean(real_N),
    'duplicates': close_N.sum() / jnp.minimum(count, fake_NF.shape[0]),
  }


def frechet_distance(
  mean_a_F: Array, cov_a_FF: Array, mean_b_F: Array, cov_b_FF: Array
) -> Array:
  """|m_a - m_b|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2)) of two Gaussians.

  Source: arXiv 1706.08500. By symmetric eigenvalues only; rounding below 0 counts 0.
  """
  values, vectors = jnp.linalg.eigh(cov_a_FF)
  dot = lambda a, b: jnp.dot(a, b, precision=EXACT)
  root_FF = dot(vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :], vectors.T)
  inner = jnp.linalg.eigvalsh(dot(dot(root_FF, cov_b_FF), root_FF))
  trace = jnp.trace(cov_a_FF) + jnp.trace(cov_b_FF)
  distance = ((mean_a_F - mean_b_F) ** 2).sum() + trace
  return jnp.maximum(distance - 2 * jnp.sqrt(jnp.maximum(inner, 0)).sum(), 0)


def feature_moments(feature_BF: Array, weight_B: Array) -> dict[str, Array]:
  """Sums of weight, w x and w x x^T; additive over batches."""
  feature_BF = jnp.where(weight_B[:, None] != 0, feature_BF, 0)  # Not nan times 0.
  weighted_BF = feature_BF * weight_B[:, None]
  return {
    'n': weight_B.sum(),
    'sum': weighted_BF.sum(0),
    'outer': jnp.dot(weighted_BF.T, feature_BF, precision=EXACT),
  }


def frechet_of(a: Mapping[str, Array], b: Mapping[str, Array]) -> Array:
  """`frechet_distance` of any features, from the sums of `feature_moments` of each.

  nan where one side has no more rows than features: its covariance is singular and the
  distance far too low.
  """
  distance = frechet_distance(*gaussian(a), *gaussian(b))
  enough = lambda sums: sums['n'] > sums['sum'].shape[-1]
  return jnp.where(enough(a) & enough(b), distance, jnp.nan)


def gaussian(sums: Mapping[str, Array]) -> tuple[Array, Array]:
  """Mean and covariance (n - 1) from the sums of `feature_moments`."""
  mean_F = sums['sum'] / sums['n']
  centred = sums['outer'] - sums['n'] * mean_F[:, None] * mean_F[None, :]
  return mean_F, centred / jnp.maximum(sums['n'] - 1, 1)
