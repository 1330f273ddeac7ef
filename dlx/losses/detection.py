"""Losses of objects as points: heat maps and boxes, one value an image."""

import chex
import jax
import jax.numpy as jnp

from dlx import boxes
from dlx.precision import at_least_float32
from dlx.state import Array


def heat_focal(
  logits_BHWK: Array, target_BHWK: Array, alpha: float = 2.0, beta: float = 4.0
) -> Array:
  """Focal loss of heat maps [B], nats for each peak (arXiv:1808.01244, 1904.07850).

  p = sigmoid(logit) and target t: `(1 - p)^a log(1/p)` where t is 1, elsewhere `(1 -
  t)^b p^a log(1/(1-p))`, so that cells near a peak count less; the sum over cells and
  classes, by the number of peaks, or by 1 where there is none. At least 0, and 0 in the
  limit of logits that are right.

  Args:
    logits_BHWK: any float dtype.
    target_BHWK: in [0, 1], 1 at a peak; nan of an image with a nan.
    alpha: a, at least 0: how little cells count that are right already.
    beta: b, at least 0.
  """
  chex.assert_rank([logits_BHWK, target_BHWK], 4)
  chex.assert_equal_shape([logits_BHWK, target_BHWK])
  x, t = at_least_float32(logits_BHWK), at_least_float32(target_BHWK)
  missed = lambda x: jnp.exp(-alpha * jax.nn.softplus(x)) * jax.nn.softplus(-x)
  peak = t == 1
  loss = jnp.where(peak, missed(x), jnp.power(1 - t, beta) * missed(-x))
  count_B = peak.sum((1, 2, 3))
  return loss.sum((1, 2, 3)) / jnp.maximum(count_B, 1)


def box_giou(found_BM4: Array, box_BM4: Array, real_BM: Array | None = None) -> Array:
  """One minus the generalised IoU, the mean of the boxes of an image [B], in [0, 2].

  arXiv:1902.09630. 0 of an image without a box.

  Args:
    found_BM4: (top, left, bottom, right) in any unit.
    box_BM4: the true ones.
    real_BM: bool; where it is False no box counts, whatever either holds; None: all do.
  """
  chex.assert_shape([found_BM4, box_BM4], (None, None, 4))
  chex.assert_equal_shape([found_BM4, box_BM4])
  if real_BM is None:
    real_BM = jnp.ones(box_BM4.shape[:2], bool)
  real_BM = real_BM.astype(bool)
  # Not through a box that does not count, which may be nan and stay so times 0.
  pair = (
    jnp.where(real_BM[..., None], at_least_float32(x), 0) for x in (found_BM4, box_BM4)
  )
  off_BM = jnp.where(real_BM, 1 - boxes.giou(*pair), 0)
  return off_BM.sum(1) / jnp.maximum(real_BM.sum(1), 1)
