"""Metrics as sums: adding those of two parts gives those of the whole.

Functions of a batch return a `Mean` or raw sums, in float32 or wider. `summarize`
functions take the sums of a whole pass and return what is reported; they are pure jnp
and can be mapped over members. Counts in float32 are exact up to 2**24 = 16.8 million
for each sum; beyond it, additions of 1 are lost.

`weight_B` is 0 for padding rows and 1 for real ones; None means all ones. A label
outside [0, K), or a row of logits with a nan, whose weight is not 0 makes a sum nan.
Of no examples a mean is nan, and precision, recall and F1 are 0.
"""

from typing import Any, Mapping

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.precision import EXACT
from dlx.state import Array, Mean, Metric, Metrics, example_weights, mean, ratios

# What classifiers report, beside the loss that they are trained by.
CLASSIFICATION: Mapping[str, Metric] = {
  'accuracy': Metric(
    'Accuracy',
    'higher',
    'Share of the examples whose likeliest class is the true one.',
    '%',
    'share',
  ),
  'precision': Metric(
    'Precision',
    'higher',
    'Share of the predictions of a class that are right, averaged over the classes by '
    'their number of examples.',
    '%',
    'share',
  ),
  'recall': Metric(
    'Recall',
    'higher',
    'Share of the examples of a class that are found, averaged over the classes by '
    'their number of examples.',
    '%',
    'share',
  ),
  'f1': Metric(
    'F1',
    'higher',
    'Harmonic mean of precision and recall, averaged over the classes by their number '
    'of examples.',
    '%',
    'share',
  ),
}
TOP_5 = Metric(
  'Top-5 accuracy',
  'higher',
  'Share of the examples whose true class is among the five likeliest.',
  '%',
  'share',
)
CROSS_ENTROPY = Metric(
  'Cross-entropy',
  'lower',
  'Mean over the examples of the negative logarithm of the probability that the model '
  'gives to the true class.',
  'nats',
  'loss',
)


def accuracy(logits_BK: Array, label_B: Array, weight_B: Array | None = None) -> Mean:
  """Fraction of rows whose largest logit (the first of equals) is the label's."""
  chex.assert_rank([logits_BK, label_B], [2, 1])
  hit_B = logits_BK.argmax(1) == label_B
  return mean(_of_labels(hit_B, logits_BK, label_B, weight_B), weight_B)


def top_k(
  logits_BK: Array, label_B: Array, weight_B: Array | None = None, *, k: int = 5
) -> Mean:
  """Fraction of rows whose label is among the k largest logits.

  Of equal logits the lower class counts as larger, so that k = 1 is `accuracy`.
  """
  chex.assert_rank([logits_BK, label_B], [2, 1])
  # Of -0.0 and 0.0, which are equal, lax takes the second for larger.
  best_Bk = jax.lax.top_k(jnp.where(logits_BK == 0, 0, logits_BK), k)[1]
  hit_B = (best_Bk == label_B[:, None]).any(1)
  return mean(_of_labels(hit_B, logits_BK, label_B, weight_B), weight_B)


def confusion(
  logits_BK: Array,
  label_B: Array,
  weight_B: Array | None = None,
  *,
  num_classes: int | None = None,
) -> Array:
  """Confusion matrix: summed weight by true class (row) and predicted class (column).

  Args:
    logits_BK: the prediction is the largest, the first of equals.
    label_B: int, in [0, K).
    weight_B: None: all ones.
    num_classes: K; None: as many as there are logits.

  Returns:
    float32 [K, K]; with weights 0 and 1 each cell is exact up to 2**24. All nan where
    a label or prediction with a weight is none of the K classes.
  """
  chex.assert_rank([logits_BK, label_B], [2, 1])
  num_classes = logits_BK.shape[1] if num_classes is None else num_classes
  weight_B = example_weights(label_B, weight_B).astype(jnp.float32)
  counted_B1 = weight_B[:, None] != 0
  hot = lambda class_B: jnp.where(counted_B1, labels.one_hot(class_B, num_classes), 0)
  true_BK = hot(label_B) * weight_B[:, None]
  # argmax finds the first nan: as a prediction it is none of the classes.
  broken_B = jnp.isnan(logits_BK).any(1)
  predicted_BK = hot(jnp.where(broken_B, -1, logits_BK.argmax(1)))
  # A product of one-hot rows rather than a scatter: sharded rows need one all-reduce.
  # HIGHEST, since weights other than 0 and 1 would be rounded to bfloat16 on TPU.
  return jnp.einsum('bi,bj->ij', true_BK, predicted_BK, precision=EXACT).astype(
    jnp.float32
  )


def classification_sums(
  logits_BK: Array, label_B: Array, weight_B: Array | None = None
) -> dict[str, Any]:
  """Sums for `classification_summary`: `accuracy` and `confusion`."""
  return {
    'accuracy': accuracy(logits_BK, label_B, weight_B),
    'confusion': confusion(logits_BK, label_B, weight_B),
  }


def precision_recall_f1(
  confusion_KK: Array, average: str | None = 'weighted'
) -> dict[str, Array]:
  """Precision, recall and F1 of a confusion matrix; 0 where a denominator is 0.

  precision = tp / (tp + fp), recall = tp / (tp + fn), f1 = 2 tp / (2 tp + fp + fn),
  class by class.

  Args:
    confusion_KK: rows true, columns predicted.
    average: 'weighted' (by the true examples of a class), 'macro' (all K classes
      alike, absent ones too) or None.

  Returns:
    `precision`, `recall` and `f1`: scalars, or [K] each where average is None.

  Raises:
    ValueError: another average.
  """
  chex.assert_rank(confusion_KK, 2)
  true_K, predicted_K = confusion_KK.sum(1), confusion_KK.sum(0)
  hit_K = jnp.diagonal(confusion_KK)
  scores = {
    'precision': _divide(hit_K, predicted_K),
    'recall': _divide(hit_K, true_K),
    'f1': _divide(2 * hit_K, true_K + predicted_K),
  }
  if average is None:
    return scores
  if average == 'macro':
    return {name: score_K.mean() for name, score_K in scores.items()}
  if average == 'weighted':
    total = true_K.sum()
    return {
      name: _divide((score_K * true_K).sum(), total) for name, score_K in scores.items()
    }
  raise ValueError(f"average={average!r}: must be 'weighted', 'macro' or None.")


def classification_summary(metrics: Metrics) -> Mapping[str, Any]:
  """Every mean, weighted `precision`, `recall`, `f1`, and the `confusion` itself.

  Args:
    metrics: the sums of `classification`; others (`loss`) become their means.
  """
  return {**ratios(metrics), **precision_recall_f1(metrics['confusion'])}


def _of_labels(
  value_B: Array, logits_BK: Array, label_B: Array, weight_B: Array | None
) -> Array:
  """The values as floats; nan where a label that counts is none of the classes, or
  logits are nan."""
  known_B = labels.is_index(label_B, logits_BK.shape[1])
  known_B &= ~jnp.isnan(logits_BK).any(1)
  if weight_B is not None:
    known_B |= weight_B == 0
  return jnp.where(known_B, value_B.astype(jnp.float32), jnp.nan)


def _divide(a: Array, b: Array) -> Array:
  return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))
