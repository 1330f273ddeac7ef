"""Losses of a class for every pixel: cross-entropy and Dice, one value an image.

Pixels whose label is `ignore` (void, as the borders of objects in PASCAL VOC) count in
neither, whatever their logits are. An image of which all pixels are ignored has loss 0.
"""

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.losses.classification import example_weight, softmax_cross_entropy
from dlx.precision import at_least_float32
from dlx.state import Array


def pixel_cross_entropy(
  logits_BHWK: Array,
  label_BHW: Array,
  *,
  class_weight_K: Array | None = None,
  ignore: int | None = None,
) -> Array:
  """Mean cross-entropy of the pixels that count in each image [B], nats.

  Args:
    logits_BHWK: any float dtype.
    label_BHW: int in [0, K), or `ignore`; nan for another.
    class_weight_K: w, at least 0: the mean is weighted by that of each pixel's class.
    ignore: a label whose pixels do not count, e.g. 255; None: all count.
  """
  pixels, num_classes = _checked(logits_BHWK, label_BHW), logits_BHWK.shape[-1]
  label_N = label_BHW.reshape(-1)
  loss_N = softmax_cross_entropy(
    logits_BHWK.reshape(-1, num_classes),
    label_N,
    class_weight_K=class_weight_K,
    ignore=ignore,
  )
  weight_N = example_weight(
    label_N, num_classes, class_weight_K=class_weight_K, ignore=ignore
  )
  loss_B, count_B = (x_N.reshape(pixels).sum(1) for x_N in (loss_N, weight_N))
  return loss_B / jnp.where(count_B == 0, 1, count_B)


def dice(
  logits_BHWK: Array,
  label_BHW: Array,
  *,
  smooth: float = 1.0,
  ignore: int | None = None,
) -> Array:
  """One minus the mean Dice coefficient of the classes of an image [B], in [0, 1].

  `(2 sum p t + s) / (sum p + sum t + s)` of each class that the image has, p its
  probability by the softmax, t 1 where it is the label, sums over the pixels that count
  (arXiv:1606.04797, whose sums below are of squares). A class counts alike whatever its
  number of pixels. Absent classes do not: most are, and the best that can be done for
  them is background everywhere. Probability that goes to one lacks at the true one.

  Args:
    logits_BHWK: any float dtype, finite.
    label_BHW: int in [0, K), or `ignore`; nan for another.
    smooth: s, pixels, at least 0: how little a class of a few pixels counts.
    ignore: see `pixel_cross_entropy`.
  """
  pixels, num_classes = _checked(logits_BHWK, label_BHW), logits_BHWK.shape[-1]
  logits_BNK = at_least_float32(logits_BHWK).reshape(*pixels, num_classes)
  label_BN, counted = label_BHW.reshape(pixels), None
  if ignore is not None:
    counted = label_BN.astype(jnp.int32) != ignore
    # Not through the logits of such a pixel, which may be nan and stay so times 0.
    logits_BNK = jnp.where(counted[..., None], logits_BNK, 0)
    label_BN = jnp.where(counted, label_BN, 0)
  p_BNK = jax.nn.softmax(logits_BNK)
  t_BNK = labels.one_hot(label_BN, num_classes, p_BNK.dtype)
  if counted is not None:
    p_BNK, t_BNK = (jnp.where(counted[..., None], x, 0) for x in (p_BNK, t_BNK))
  both_BK, true_BK = (p_BNK * t_BNK).sum(1), t_BNK.sum(1)
  score_BK = (2 * both_BK + smooth) / (p_BNK.sum(1) + true_BK + smooth)
  there_BK = true_BK != 0  # Also where it is nan, of a label that is no class.
  missed_BK = jnp.where(there_BK, 1 - score_BK, 0)
  return missed_BK.sum(1) / jnp.maximum(there_BK.sum(1), 1)


def _checked(logits_BHWK: Array, label_BHW: Array) -> tuple[int, int]:
  """Images, and pixels of each."""
  chex.assert_rank([logits_BHWK, label_BHW], [4, 3])
  chex.assert_equal_shape_prefix([logits_BHWK, label_BHW], 3)
  b, h, w = label_BHW.shape
  return b, h * w
