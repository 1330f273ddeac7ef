"""Whether a probability of 0.8 is right 8 times in 10 (arXiv 1706.04599).

calibration_sums, calibration_error   by bins of confidence, over batches
probability_scores                    accuracy, nll, brier and ece of a whole set
disagreement                          how often two nets choose different classes
"""

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


def probability_scores(
  probs_NK: Array, label_N: Array, num_bins: int = 15
) -> dict[str, Array]:
  """What probabilities of all examples of a set are worth.

  Args:
    probs_NK: rows sum to 1.
    label_N: the true class of each.
    num_bins: of the calibration error.

  Returns:
    `accuracy` in [0, 1]; `nll`, the mean of -log of the probability of the true class,
    in nats, where a probability below the least normal number counts as that;
    `brier`, the mean squared distance from the one-hot label, in [0, 2] (Brier 1950);
    `ece`, see `calibration_error`. nan of no example, and where a label is none of
    the classes.
  """
  dtype = jnp.promote_types(probs_NK.dtype, jnp.float32)
  probs_NK, classes = probs_NK.astype(dtype), probs_NK.shape[1]
  known_N = labels.is_index(label_N, classes)
  true_N = jnp.take_along_axis(probs_NK, label_N[:, None], 1, mode='clip')[:, 0]
  hot_NK = labels.one_hot(label_N, classes, dtype)
  each = {
    'accuracy': (probs_NK.argmax(1) == label_N).astype(dtype),
    'nll': -log_probabilities(true_N),
    'brier': jnp.square(probs_NK - hot_NK).sum(1),
  }
  means = {k: jnp.where(known_N, x, jnp.nan).mean() for k, x in each.items()}
  bins = calibration_sums(probs_NK, label_N, num_bins=num_bins)
  return {**means, 'ece': calibration_error(bins)}


def log_probabilities(probs: Array) -> Array:
  """Their logarithms, of 0 that of the least normal number: finite."""
  return jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))


def disagreement(probs_MNK: Array) -> Array:
  """Share of the examples for which two of M nets choose different classes.

  The mean over all pairs (arXiv 1912.02757), in [0, 1]; nan of one net.
  """
  chosen_MN = probs_MNK.argmax(-1)
  count = len(chosen_MN)
  differ = (chosen_MN[:, None] != chosen_MN[None]).astype(jnp.float32).mean(-1)
  return differ.sum() / (count * (count - 1))
