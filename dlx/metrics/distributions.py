"""How far two sets of features lie apart: MMD; how varied samples are: inception score.

The Frechet distance is that of generation.py. Each takes the features of any model, or
the probabilities of any classifier: figures compare within one model alone.
"""

from typing import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from dlx.config import check_bounds
from dlx.precision import EXACT, at_least_float32
from dlx.state import Array, Mean, Metric, example_weights

Kernel = Callable[[Array, Array], Array]  # [N, F], [M, F] -> [N, M]

DISTRIBUTIONS: Mapping[str, Metric] = {
  'mmd': Metric(
    'MMD²',
    'lower',
    'Squared maximum mean discrepancy of the features of samples and of real examples, '
    'near 0 where both are of one distribution.',
    '',
    'distance',
  ),
  'inception_score': Metric(
    'Inception score',
    'higher',
    'Exponential of the mutual information of sample and class, 1 where all samples '
    'look alike and the number of classes at most.',
    '',
    'score',
  ),
}


def gaussian_kernel(bandwidth: float | Array) -> Kernel:
  """`exp(-|x - y|^2 / (2 bandwidth^2))`; sums of several are kernels, too."""
  check_bounds('bandwidth', bandwidth, 0, above=True)
  return lambda x_NF, y_MF: jnp.exp(-_squared(x_NF, y_MF) / (2 * bandwidth**2))


def polynomial_kernel(degree: int = 3) -> Kernel:
  """`(x y / F + 1)^degree` of F features; of degree 3 KID's (arXiv:1801.01401)."""

  def kernel(x_NF, y_MF):
    dot = jnp.dot(x_NF, y_MF.T, precision=EXACT)
    return (dot / x_NF.shape[1] + 1) ** degree

  return kernel


def median_distance(x_NF: Array, y_MF: Array) -> Array:
  """Median distance of a row of x and a row of y, a usual bandwidth; nan of no rows."""
  distance_NM = jnp.sqrt(_squared(x_NF, y_MF))
  return jnp.median(distance_NM) if distance_NM.size else jnp.asarray(jnp.nan)


def mmd(
  x_NF: Array,
  y_MF: Array,
  kernel: Kernel,
  weight_N: Array | None = None,
  weight_M: Array | None = None,
  *,
  unbiased: bool = True,
) -> Array:
  """Squared maximum mean discrepancy (Gretton et al. 2012), a scalar.

  `mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`. Unbiased, the first two means are
  over pairs of different rows: its mean over draws is exactly the distance, and it may
  be below 0. Biased, over all pairs: never below 0 but for rounding.

  All rows at once, N x M kernel values: gather features over batches and shards first,
  as by `place_rows`; rows of weight 0 do not count.

  Args:
    x_NF: features.
    y_MF: features.
    kernel: positive definite: `gaussian_kernel`, `polynomial_kernel`.
    weight_N, weight_M: 0 or 1; None: all ones.
    unbiased: nan then of less than two rows on a side; biased of none.
  """
  chex.assert_rank([x_NF, y_MF], 2)
  x_NF, y_MF = at_least_float32(x_NF), at_least_float32(y_MF)
  w_N = example_weights(x_NF[:, 0], weight_N).astype(x_NF.dtype)
  w_M = example_weights(y_MF[:, 0], weight_M).astype(y_MF.dtype)
  # Rows that do not count may hold anything.
  x_NF = jnp.where(w_N[:, None] != 0, x_NF, 0)
  y_MF = jnp.where(w_M[:, None] != 0, y_MF, 0)

  def within(rows, w):
    pairs = w[:, None] * w[None, :]
    if unbiased:
      pairs = pairs * (1 - jnp.eye(w.shape[0], dtype=w.dtype))
    total = pairs.sum()
    mean = (kernel(rows, rows) * pairs).sum() / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, mean, jnp.nan)

  pairs = w_N[:, None] * w_M[None, :]
  between = (kernel(x_NF, y_MF) * pairs).sum() / pairs.sum()
  return within(x_NF, w_N) + within(y_MF, w_M) - 2 * between


def _squared(x_NF: Array, y_MF: Array) -> Array:
  """Squared distances [N, M], at least 0."""
  x_NF, y_MF = at_least_float32(x_NF), at_least_float32(y_MF)
  if x_NF.shape[0]:  # Around their mean, as large offsets would hide small distances.
    middle_1F = x_NF.mean(0, keepdims=True)
    x_NF, y_MF = x_NF - middle_1F, y_MF - middle_1F
  dot_NM = jnp.dot(x_NF, y_MF.T, precision=EXACT)
  rows = lambda z: jnp.square(z).sum(1)
  return jnp.maximum(rows(x_NF)[:, None] + rows(y_MF)[None, :] - 2 * dot_NM, 0)


def inception_sums(
  probs_BK: Array, weight_B: Array | None = None
) -> dict[str, Mean | Array]:
  """Sums for `inception_score`: `entropy` of each sample, nats, and `classes` [K].

  Args:
    probs_BK: of a classifier, rows sum to 1.
    weight_B: None: all ones.
  """
  chex.assert_rank(probs_BK, 2)
  probs_BK = at_least_float32(probs_BK)
  weight_B = example_weights(probs_BK[:, 0], weight_B).astype(probs_BK.dtype)
  probs_BK = jnp.where(weight_B[:, None] != 0, probs_BK, 0)
  entropy_B = jax.scipy.special.entr(probs_BK).sum(1)
  return {
    'entropy': Mean((entropy_B * weight_B).sum(), weight_B.sum()),
    'classes': jnp.dot(weight_B, probs_BK, precision=EXACT),
  }


def inception_score(sums: Mapping[str, Mean | Array]) -> Array:
  """`exp(mean KL(p(y | x) | p(y)))` (arXiv:1606.03498), in [1, K]; nan of no samples.

  Of all samples as one split, as exp(entropy of the mean - mean entropy).
  """
  entropy, classes_K = sums['entropy'], sums['classes']
  assert isinstance(entropy, Mean) and not isinstance(classes_K, Mean)
  mean_K = classes_K / entropy.count
  within = entropy.total / entropy.count
  return jnp.exp(jax.scipy.special.entr(mean_K).sum() - within)
