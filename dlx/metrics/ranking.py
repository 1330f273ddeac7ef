"""How well scores rank positives above negatives: ROC-AUC and average precision.

A ranking is of all examples together, so there are two ways over batches and shards:

exact   `place_scores` gathers scores, labels and weights by the number of the example,
        as sums of 12 bytes an example; `roc_auc` and `average_precision` are of all.
binned  `score_sums` counts the scores in bins, as sums of a fixed size;
        `ranking_of_bins` takes the scores of a bin as equal and says how much of the
        ROC-AUC that leaves open.

Of several classes: `one_vs_rest`. Where only one class has weight there is nothing to
rank, and the result is nan; so it is where a score that counts is nan.
"""

from typing import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.config import check_bounds
from dlx.precision import at_least_float32
from dlx.state import Array, Metric, example_weights

RANKING: Mapping[str, Metric] = {
  'roc_auc': Metric(
    'ROC-AUC',
    'higher',
    'Chance that a positive example has a higher score than a negative one, ties '
    'counting half.',
    '%',
    'share',
    0.5,
  ),
  'average_precision': Metric(
    'Average precision',
    'higher',
    'Mean of the precision at the score of each positive example, the area under the '
    'curve of precision over recall.',
    '%',
    'share',
  ),
}


def roc_auc(score_N: Array, label_N: Array, weight_N: Array | None = None) -> Array:
  """Area under the ROC curve, a scalar in [0, 1]: scikit-learn's `roc_auc_score`.

  Args:
    score_N: higher for positives; finite where the weight is not 0.
    label_N: bool or 0 and 1.
    weight_N: None: all ones.
  """
  below, equal, _, positive_N, negative_N = _ranked(score_N, label_N, weight_N)
  total = positive_N.sum() * negative_N.sum()
  wins = (positive_N * (below(negative_N) + 0.5 * equal(negative_N))).sum()
  return jnp.where(total > 0, wins / jnp.where(total > 0, total, 1), jnp.nan)


def average_precision(
  score_N: Array, label_N: Array, weight_N: Array | None = None
) -> Array:
  """Sum of (rise of recall) x (precision) over the thresholds, a scalar in [0, 1].

  Without interpolation: scikit-learn's `average_precision_score`. nan also where all
  examples are positive, which needs no ranking.

  Args:
    score_N, label_N, weight_N: see `roc_auc`.
  """
  _, _, above, positive_N, negative_N = _ranked(score_N, label_N, weight_N)
  total, other = positive_N.sum(), negative_N.sum()
  hits_N = above(positive_N)
  found_N = hits_N + above(negative_N)
  precision_N = jnp.where(found_N > 0, hits_N / jnp.where(found_N > 0, found_N, 1), 0)
  mean = (positive_N * precision_N).sum() / jnp.where(total > 0, total, 1)
  return jnp.where((total > 0) & (other > 0), mean, jnp.nan)


def _ranked(score_N, label_N, weight_N):
  """Sums of a weight over what scores less, the same, and at least as much; weights.

  All in the order of the scores.
  """
  chex.assert_rank([score_N, label_N], 1)
  chex.assert_equal_shape([score_N, label_N])
  # Also of NumPy, which no traced order could index.
  label_N = jnp.asarray(label_N)
  weight_N = jnp.asarray(example_weights(score_N, weight_N), jnp.float32)
  counted_N = weight_N != 0
  score_N = jnp.where(counted_N, at_least_float32(score_N), 0)
  broken = jnp.isnan(score_N).any()
  order = jnp.argsort(score_N)
  score_N, weight_N = score_N[order], weight_N[order]
  positive_N = jnp.where(label_N[order].astype(bool), weight_N, 0)
  low_N = jnp.searchsorted(score_N, score_N, side='left')
  high_N = jnp.searchsorted(score_N, score_N, side='right')
  until = lambda x_N: jnp.concatenate([jnp.zeros(1, x_N.dtype), jnp.cumsum(x_N)])
  below = lambda x_N: until(x_N)[low_N]
  equal = lambda x_N: until(x_N)[high_N] - until(x_N)[low_N]
  above = lambda x_N: until(x_N)[-1] - until(x_N)[low_N]
  spoilt = jnp.where(broken, jnp.nan, 1.0)
  return below, equal, above, positive_N * spoilt, (weight_N - positive_N) * spoilt


def one_vs_rest(
  metric: Callable[..., Array],
  score_NK: Array,
  label_N: Array,
  weight_N: Array | None = None,
) -> Array:
  """`roc_auc` or `average_precision` of each class against all others, [K].

  nan of a class that is absent, or alone; `jnp.nanmean` of it is the macro average.

  Args:
    metric: (score_N, label_N, weight_N) -> scalar.
    score_NK: a column a class.
    label_N: int, in [0, K).
    weight_N: None: all ones.
  """
  chex.assert_rank([score_NK, label_N], [2, 1])
  classes = jnp.arange(score_NK.shape[1])
  one = lambda score_N, k: metric(score_N, label_N == k, weight_N)
  return jax.vmap(one, (1, 0))(score_NK, classes)


def place_scores(
  score_B: Array, label_B: Array, index_B: Array, weight_B: Array, num_rows: int
) -> dict[str, Array]:
  """A sum over batches that gathers them: example i in row i of each array [num_rows].

  Args:
    score_B: finite where the weight is not 0.
    label_B: bool, or 0 and 1.
    index_B: int, the number of the example; one outside [0, num_rows) is left out.
    weight_B: 0 of padding.
    num_rows: examples of the whole set.

  Returns:
    `score`, `label` and `weight`, the arguments of `roc_auc`.
  """
  counted_B = (weight_B != 0) & labels.is_index(index_B, num_rows)
  blank = jnp.zeros(num_rows, jnp.float32)
  place = lambda x_B: blank.at[index_B].add(
    jnp.where(counted_B, x_B.astype(jnp.float32), 0), mode='drop'
  )
  return {'score': place(score_B), 'label': place(label_B), 'weight': place(weight_B)}


def score_sums(
  score_B: Array,
  label_B: Array,
  weight_B: Array | None = None,
  *,
  low: float = 0.0,
  high: float = 1.0,
  num_bins: int = 1024,
) -> dict[str, Array]:
  """Summed weights by bin of the score: `positive` and `negative`, [num_bins] each.

  Args:
    score_B: bins divide [low, high] evenly; beyond it the outermost ones count.
    label_B: bool, or 0 and 1.
    weight_B: None: all ones.
  """
  check_bounds('num_bins', num_bins, 1)
  weight_B = example_weights(score_B, weight_B).astype(jnp.float32)
  score_B = at_least_float32(score_B)
  place_B = jnp.floor((score_B - low) / (high - low) * num_bins)
  bin_B = jnp.clip(jnp.nan_to_num(place_B), 0, num_bins - 1).astype(jnp.int32)
  broken_B = jnp.isnan(score_B) & (weight_B != 0)
  weight_B = jnp.where(broken_B, jnp.nan, weight_B)
  positive_B = label_B.astype(bool)
  count = lambda chosen_B: (
    jnp.zeros(num_bins, jnp.float32).at[bin_B].add(jnp.where(chosen_B, weight_B, 0))
  )
  return {'positive': count(positive_B), 'negative': count(~positive_B)}


def ranking_of_bins(sums: Mapping[str, Array]) -> dict[str, Array]:
  """`roc_auc`, `average_precision`, and `roc_auc_margin` of the sums of `score_sums`.

  The ROC-AUC of the scores themselves lies within the margin of the binned one; with
  1024 bins and smooth scores that is about 0.0005.
  """
  positive_N, negative_N = sums['positive'], sums['negative']
  bins_N = jnp.arange(positive_N.shape[0], dtype=jnp.float32)
  score_N = jnp.concatenate([bins_N, bins_N])
  label_N = jnp.concatenate([jnp.ones_like(bins_N), jnp.zeros_like(bins_N)])
  weight_N = jnp.concatenate([positive_N, negative_N])
  pairs = positive_N.sum() * negative_N.sum()
  tied = 0.5 * (positive_N * negative_N).sum()
  return {
    'roc_auc': roc_auc(score_N, label_N, weight_N),
    'average_precision': average_precision(score_N, label_N, weight_N),
    'roc_auc_margin': jnp.where(
      pairs > 0, tied / jnp.where(pairs > 0, pairs, 1), jnp.nan
    ),
  }
