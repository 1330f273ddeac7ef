"""Losses: one value an example, natural units, at least float32.

Every function takes a batch and returns one value a row, `[B]`. Predictions with more
axes are averaged over all but the first, so that a learning rate does not depend on
the size of an output. Inputs narrower than float32 are widened before the first
exponential or square. `state.mean` makes a metric of the values.

Shapes are checked, never broadcast: `[B, 1]` against `[B]` would give a silent
`[B, B]`.
"""

import math

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.losses.regression import _mean_of_rows, flat_rows
from dlx.precision import at_least_float32
from dlx.state import Array


def softmax_cross_entropy(
  logits_BK: Array,
  target: Array,
  label_smoothing: float | Array = 0.0,
  *,
  class_weight_K: Array | None = None,
  ignore: int | None = None,
) -> Array:
  """Cross-entropy of a softmax, in nats: `-sum_k t_k log softmax(logits)_k`.

  With smoothing s the target t becomes `(1 - s) t + s / K` (arXiv:1512.00567). Finite
  wherever the logits and their differences are.

  A class of logit -inf is none (a row that only fills a vocabulary up): K does not
  count it, and it adds nothing where its target is 0.

  Args:
    logits_BK: any float dtype; at least one of a row is above -inf.
    target: int labels [B], or soft targets [B, K] whose rows sum to 1.
    label_smoothing: s, in [0, 1).
    class_weight_K: w, at least 0: the loss is `-sum_k w_k t_k log softmax(logits)_k`.
      For the mean over examples divide by the sum of `example_weight`.
    ignore: a label, e.g. -100, whose rows have loss 0 and gradient 0, whatever their
      logits are.

  Returns:
    [B]; nan for a label outside [0, K), since 0 would hide it.
  """
  chex.assert_rank(logits_BK, 2)
  num_classes = logits_BK.shape[1]
  logits_BK = at_least_float32(logits_BK)
  if ignore is not None:
    ignored_B = _is_ignored(target, ignore)
    # Not through the logits of such a row, which may be nan and stay so times 0.
    logits_BK = jnp.where(ignored_B[:, None], 0, logits_BK)
    target = jnp.where(ignored_B, 0, target)
    loss_B = softmax_cross_entropy(
      logits_BK, target, label_smoothing, class_weight_K=class_weight_K
    )
    return jnp.where(ignored_B, 0, loss_B)
  if class_weight_K is not None and jnp.issubdtype(target.dtype, jnp.integer):
    target = labels.one_hot(target, num_classes, logits_BK.dtype)
  if jnp.issubdtype(target.dtype, jnp.integer):
    chex.assert_shape(target, logits_BK.shape[:1])
    # The maximum goes first: log-sum-exp of logits near 1e4 would keep 3 decimals.
    shifted_BK = logits_BK - jax.lax.stop_gradient(logits_BK.max(1, keepdims=True))
    # A mask and a sum, since its gradient needs no scatter and K may be sharded.
    hit_BK = labels.hits(target, num_classes)
    picked_B = jnp.where(hit_BK, shifted_BK, 0).sum(1)
    if not _is_zero(label_smoothing):
      real_BK = shifted_BK > -jnp.inf
      uniform_B = jnp.where(real_BK, shifted_BK, 0).sum(1) / real_BK.sum(1)
      picked_B = (1 - label_smoothing) * picked_B + label_smoothing * uniform_B
    loss_B = jnp.log(jnp.exp(shifted_BK).sum(1)) - picked_B
    return jnp.where(labels.is_index(target, num_classes), loss_B, jnp.nan)
  chex.assert_equal_shape([logits_BK, target])
  target = at_least_float32(target)
  if not _is_zero(label_smoothing):
    real_BK = logits_BK > -jnp.inf
    uniform_BK = jnp.where(real_BK, label_smoothing / real_BK.sum(1, keepdims=True), 0)
    target = (1 - label_smoothing) * target + uniform_BK
  if class_weight_K is not None:
    chex.assert_shape(class_weight_K, (num_classes,))
    target = target * at_least_float32(class_weight_K)[None]
  log_BK = jax.nn.log_softmax(logits_BK, 1)
  return -jnp.where(target == 0, 0, target * log_BK).sum(1)  # Not 0 times -inf.


def example_weight(
  label_B: Array,
  num_classes: int,
  *,
  class_weight_K: Array | None = None,
  ignore: int | None = None,
) -> Array:
  """What examples count in the mean of `softmax_cross_entropy` [B], float32 at least.

  The weight of its class; 0 for an ignored one, nan for a label outside [0, K). That
  mean is the sum of losses over the sum of these, `Mean(loss_B.sum(), weight_B.sum())`:
  where all rows are ignored, or there are none, its count is 0.
  """
  chex.assert_rank(label_B, 1)
  if class_weight_K is None:
    class_weight_K = jnp.ones(num_classes, jnp.float32)
  weight_B = labels.rows(at_least_float32(class_weight_K), label_B, num_classes)
  if ignore is None:
    return weight_B
  return jnp.where(_is_ignored(label_B, ignore), 0, weight_B)


def smoothed_entropy(label_smoothing: float, num_classes: int) -> float:
  """The least `softmax_cross_entropy` of a class with smoothing, in nats.

  The entropy of the smoothed target, 0 without smoothing.

  Args:
    label_smoothing: s, in [0, 1).
    num_classes: K, all of which logits allow.
  """
  rest = label_smoothing / num_classes
  shares = [1 - label_smoothing + rest] + [rest] * (num_classes - 1)
  return -sum(share * math.log(share) for share in shares if share)


def sigmoid_binary_cross_entropy(
  logits: Array, target: Array, pos_weight: float | Array = 1.0
) -> Array:
  """Binary cross-entropy of a sigmoid, in nats: `p t log(1+e^-x) + (1-t) log(1+e^x)`.

  Args:
    logits: [B] or [B, ...]: independent yes-no questions.
    target: same shape, bool, int or float in [0, 1].
    pos_weight: p, how much a yes counts, at least 0: one number, or one a question, of
      the shape of an example. The number of no over that of yes balances them.

  Returns:
    [B], the mean over the questions of an example, whatever their weights.
  """
  chex.assert_equal_shape([logits, target])
  logits, target = at_least_float32(logits), at_least_float32(target)
  values = _sigmoid_cross_entropy(logits, target)
  if not (isinstance(pos_weight, int | float) and pos_weight == 1):
    more = jnp.broadcast_to(jnp.asarray(pos_weight, values.dtype) - 1, values.shape[1:])
    yes = _sigmoid_cross_entropy(logits, jnp.ones_like(target))
    values = values + more[None] * target * yes
  if values.ndim == 1:
    return values
  # A product: XLA on a CPU takes what feeds a sum into one loop with it, which for this
  # chain is 20 times slower. The step of a VAE takes 1.8 ms, not 6.
  rows_BX = flat_rows(values)
  mean_X = jnp.full(rows_BX.shape[1], 1 / rows_BX.shape[1], rows_BX.dtype)
  return jnp.matmul(rows_BX, mean_X, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def _sigmoid_cross_entropy(x: Array, t: Array) -> Array:
  """t softplus(-x) + (1 - t) softplus(x), with one exponential for both.

  Not softplus(x) - x t, of which nothing is left from x = 17 on in float32. Losses and
  gradients of [128, 784] take 0.24 ms, 0.38 with two of jax.nn.softplus (two cores).
  """
  linear = t * jnp.maximum(-x, 0) + (1 - t) * jnp.maximum(x, 0)
  return linear + _log1p(jnp.exp(-jnp.abs(x)))


@_sigmoid_cross_entropy.defjvp
def _sigmoid_cross_entropy_jvp(values, slopes):
  (x, t), (dx, dt) = values, slopes
  slope = (1 - t) * jax.nn.sigmoid(x) - t * jax.nn.sigmoid(-x)
  return _sigmoid_cross_entropy(x, t), slope * dx - x * dt


def _log1p(u: Array) -> Array:
  """log(1 + u) for u in [0, 1], as exact as XLA's in float32, and shorter."""
  if u.dtype != jnp.float32:
    return jnp.log1p(u)
  # 2 artanh(u / (2 + u)); the first term left out is below 2e-9 of the sum.
  s = u / (2 + u)
  # A square below 1e-30 changes nothing, and as a denormal it costs 100 cycles.
  z, series = jnp.maximum(s * s, 1e-30), jnp.float32(1 / 15)
  for n in (13, 11, 9, 7, 5, 3, 1):
    series = series * z + 1 / n
  return 2 * s * series


def binary_cross_entropy(
  probability: Array, target: Array, clip: float = 1e-15
) -> Array:
  """Binary cross-entropy of probabilities, in nats: `-t log p - (1-t) log(1-p)`.

  p and 1 - p are each kept above `clip`, so a certain and wrong answer costs
  -log(1e-15) = 34.5 and has gradient 0: train on logits where there are any.

  Args:
    probability: [B] or [B, ...], in [0, 1].
    target: same shape, bool, int or float in [0, 1].
    clip: least probability. It bounds 1 - p as well as p since 1 - 1e-15 is 1 in
      float32.

  Returns:
    [B], the mean over the trailing axes.
  """
  chex.assert_equal_shape([probability, target])
  p, target = at_least_float32(probability), at_least_float32(target)
  yes, no = jnp.log(jnp.maximum(p, clip)), jnp.log(jnp.maximum(1 - p, clip))
  return _mean_of_rows(-(target * yes + (1 - target) * no))


def _is_ignored(label_B: Array, ignore: int) -> Array:
  """Whether each label is that one, bool [B]; soft targets cannot be ignored."""
  chex.assert_type(label_B, int)
  # In int32 or wider: -100 is no uint8.
  return label_B.astype(jnp.promote_types(label_B.dtype, jnp.int32)) == ignore


def _is_zero(x) -> bool:
  """Whether smoothing is off for certain; a tracer of a sweep is not."""
  return isinstance(x, (int, float)) and x == 0
