"""How well the pixels of images are told apart: IoU, Dice and accuracy, as sums.

All come from one confusion matrix of pixels, summed over the whole set, as PASCAL VOC
and Cityscapes count: not the mean of figures of single images. A cell of float32 is
exact up to 2**24 pixels; beyond that, sums of batches are rounded to 6e-8 of it.
"""

from typing import Any, Mapping

import chex
import jax.numpy as jnp

from dlx.metrics.classification import confusion
from dlx.state import Array, Metric, Metrics, example_weights, ratios

SEGMENTATION: Mapping[str, Metric] = {
  'mean_iou': Metric(
    'Mean IoU',
    'higher',
    'Mean over the classes of the intersection over union of true and predicted '
    'pixels, over the whole set.',
    '%',
    'share',
  ),
  'least_iou': Metric(
    'Least IoU',
    'higher',
    'Intersection over union of the class for which that is least.',
    '%',
    'share',
  ),
  'dice': Metric(
    'Dice',
    'higher',
    'Mean over the classes of twice the common pixels over the sum of true and '
    'predicted pixels, the F1 of pixels.',
    '%',
    'share',
  ),
  'pixel_accuracy': Metric(
    'Pixel accuracy',
    'higher',
    'Share of the pixels whose likeliest class is the true one.',
    '%',
    'share',
  ),
}


def segmentation_sums(
  logits_BHWK: Array,
  label_BHW: Array,
  weight_B: Array | None = None,
  *,
  ignore: int | None = None,
) -> dict[str, Array]:
  """Sums for `segmentation_summary`: `confusion` of pixels, float32 [K, K].

  Args:
    logits_BHWK: the prediction is the largest, the first of equals.
    label_BHW: int in [0, K), or `ignore`; of another the sums are nan.
    weight_B: of the images; None: all ones.
    ignore: a label whose pixels do not count, e.g. 255; None: all count.
  """
  chex.assert_rank([logits_BHWK, label_BHW], [4, 3])
  chex.assert_equal_shape_prefix([logits_BHWK, label_BHW], 3)
  weight_B = example_weights(label_BHW[:, 0, 0], weight_B).astype(jnp.float32)
  weight_BHW = jnp.broadcast_to(weight_B[:, None, None], label_BHW.shape)
  if ignore is not None:
    weight_BHW = jnp.where(label_BHW.astype(jnp.int32) == ignore, 0, weight_BHW)
  return {
    'confusion': confusion(
      logits_BHWK.reshape(-1, logits_BHWK.shape[-1]),
      label_BHW.reshape(-1),
      weight_BHW.reshape(-1),
    )
  }


def iou(confusion_KK: Array) -> Array:
  """Intersection over union of each class [K], tp / (tp + fp + fn).

  nan of a class that has neither a true nor a predicted pixel.

  Args:
    confusion_KK: rows true, columns predicted.
  """
  hit_K, true_K, predicted_K = _counts(confusion_KK)
  return _share(hit_K, true_K + predicted_K - hit_K)


def dice_score(confusion_KK: Array) -> Array:
  """Dice coefficient of each class [K], 2 tp / (2 tp + fp + fn); nan as of `iou`."""
  hit_K, true_K, predicted_K = _counts(confusion_KK)
  return _share(2 * hit_K, true_K + predicted_K)


def segmentation_summary(sums: Metrics) -> Mapping[str, Any]:
  """`mean_iou`, `least_iou`, `dice`, `pixel_accuracy`; for figures also `iou` [K].

  A class that has neither a true nor a predicted pixel counts in no mean; where no
  pixel counts all are nan.

  Args:
    sums: of `segmentation_sums`; others (`loss`) become their means.
  """
  confusion_KK = sums['confusion']
  iou_K = iou(confusion_KK)
  return {
    **ratios(sums),
    'mean_iou': jnp.nanmean(iou_K),
    'least_iou': jnp.nanmin(iou_K),
    'dice': jnp.nanmean(dice_score(confusion_KK)),
    'pixel_accuracy': _share(jnp.trace(confusion_KK), confusion_KK.sum()),
    'iou': iou_K,
  }


def _counts(confusion_KK: Array) -> tuple[Array, Array, Array]:
  """Pixels of each class [K]: found, true, predicted."""
  chex.assert_rank(confusion_KK, 2)
  return jnp.diagonal(confusion_KK), confusion_KK.sum(1), confusion_KK.sum(0)


def _share(a: Array, b: Array) -> Array:
  return jnp.where(b == 0, jnp.nan, a / jnp.where(b == 0, 1.0, b))
