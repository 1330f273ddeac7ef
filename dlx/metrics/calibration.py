"""Whether a probability of 0.8 is right 8 times in 10 (arXiv 1706.04599)."""

from typing import Mapping

import jax
import jax.numpy as jnp

from dlx import labels
from dlx.precision import EXACT
from dlx.state import Array, Metric

CALIBRATION: Mapping[str, Metric] = {
  'ece': Metric(
    'Calibration error',
    'lower',
    'Mean distance of confidence and accuracy over the bins of confidence, 0 where '
    'predictions of 80 % are right 8 times in 10.',
    '%',
    'share',
  )
}


def calibration_sums(
  probs_BK: Array, label_B: Array, weight_B: Array | None = None, num_bins: int = 15
) -> dict[str, Array]:
  """Sums over the examples of each bin of confidence: additive over batches.

  Bin i holds confidences in (i / n, (i + 1) / n], the largest probability of a row.

  Returns:
    `count`, `confidence` and `correct`, each [num_bins]; the last is nan where a label
    that has a weight is none of the classes, all of them where a probability that has
    one is nan.
  """
  weight_B = jnp.ones(label_B.shape) if weight_B is None else weight_B
  known_B = labels.is_index(label_B, probs_BK.shape[1]) | (weight_B == 0)
  confidence_B = jnp.where(weight_B == 0, 0, probs_BK.max(1))  # Not nan times 0.
  bin_B = jnp.clip(jnp.ceil(confidence_B * num_bins).astype(int) - 1, 0, num_bins - 1)
  hot_BN = jax.nn.one_hot(bin_B, num_bins) * weight_B[:, None]
  right_B = (probs_BK.argmax(1) == label_B).astype(jnp.float32)
  correct_B = jnp.where(known_B, right_B, jnp.nan)
  return {
    'count': hot_BN.sum(0),
    'confidence': jnp.dot(confidence_B, hot_BN, precision=EXACT),
    'correct': jnp.dot(correct_B, hot_BN, precision=EXACT),
  }


def calibration_error(found: Mapping[str, Array]) -> Array:
  """Expected calibration error: mean |accuracy - confidence| over the bins, in [0, 1].

  Weighted by the examples of a bin; nan of none.
  """
  gap_N = jnp.abs(found['correct'] - found['confidence'])
  return gap_N.sum(-1) / found['count'].sum(-1)
