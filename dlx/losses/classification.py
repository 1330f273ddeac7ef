"""Losses: one value an example, natural units, at least float32.

Every function takes a batch and returns one value a row, `[B]`. Predictions with more
axes are averaged over all but the first, so that a learning rate does not depend on
the size of an output. Inputs narrower than float32 are widened before the first
exponential or square. `weighted_mean` makes a `Mean` of the values.

Shapes are checked, never broadcast: `[B, 1]` against `[B]` would give a silent
`[B, B]`.
"""

import chex
import jax
import jax.numpy as jnp

# One implementation: the mean of a loss is a metric like any other.
from dlx.metrics import mean as weighted_mean
from dlx.state import Array

__all__ = (
  'absolute_error',
  'binary_cross_entropy',
  'distillation',
  'gaussian_kl',
  'gaussian_kl_terms',
  'huber',
  'sigmoid_binary_cross_entropy',
  'softmax_cross_entropy',
  'squared_error',
  'weighted_mean',
)


def softmax_cross_entropy(
  logits_BK: Array, target: Array, label_smoothing: float | Array = 0.0
) -> Array:
  """Cross-entropy of a softmax, in nats: `-sum_k t_k log softmax(logits)_k`.

  With smoothing s the target t becomes `(1 - s) t + s / K` (arXiv:1512.00567). Finite
  wherever the logits and their differences are.

  Args:
    logits_BK: any float dtype.
    target: int labels [B], or soft targets [B, K] whose rows sum to 1.
    label_smoothing: s, in [0, 1).

  Returns:
    [B]; nan for a label outside [0, K), since 0 would hide it.
  """
  chex.assert_rank(logits_BK, 2)
  num_classes = logits_BK.shape[1]
  logits_BK = _at_least_float32(logits_BK)
  if jnp.issubdtype(target.dtype, jnp.integer):
    chex.assert_shape(target, logits_BK.shape[:1])
    # The maximum goes first: log-sum-exp of logits near 1e4 would keep 3 decimals.
    shifted_BK = logits_BK - jax.lax.stop_gradient(logits_BK.max(1, keepdims=True))
    # A mask and a sum, since its gradient needs no scatter and K may be sharded.
    hit_BK = target[:, None] == jnp.arange(num_classes, dtype=target.dtype)[None]
    picked_B = jnp.where(hit_BK, shifted_BK, 0).sum(1)
    if not _is_zero(label_smoothing):
      uniform_B = shifted_BK.mean(1)
      picked_B = (1 - label_smoothing) * picked_B + label_smoothing * uniform_B
    loss_B = jnp.log(jnp.exp(shifted_BK).sum(1)) - picked_B
    return jnp.where((target >= 0) & (target < num_classes), loss_B, jnp.nan)
  chex.assert_equal_shape([logits_BK, target])
  target = _at_least_float32(target)
  if not _is_zero(label_smoothing):
    target = (1 - label_smoothing) * target + label_smoothing / num_classes
  return -(target * jax.nn.log_softmax(logits_BK, 1)).sum(1)


def sigmoid_binary_cross_entropy(logits: Array, target: Array) -> Array:
  """Binary cross-entropy of a sigmoid, in nats: `t log(1+e^-x) + (1-t) log(1+e^x)`.

  Args:
    logits: [B] or [B, ...]: independent yes-no questions.
    target: same shape, bool, int or float in [0, 1].

  Returns:
    [B], the mean over the questions of an example.
  """
  chex.assert_equal_shape([logits, target])
  logits, target = _at_least_float32(logits), _at_least_float32(target)
  values = _sigmoid_cross_entropy(logits, target)
  if values.ndim == 1:
    return values
  # A product: XLA on a CPU takes what feeds a sum into one loop with it, which for this
  # chain is 20 times slower. The step of a VAE takes 1.8 ms, not 6.
  rows_BX = values.reshape(values.shape[0], -1)
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
  p, target = _at_least_float32(probability), _at_least_float32(target)
  yes, no = jnp.log(jnp.maximum(p, clip)), jnp.log(jnp.maximum(1 - p, clip))
  return _mean_of_rows(-(target * yes + (1 - target) * no))


def squared_error(prediction: Array, target: Array) -> Array:
  """`(prediction - target)^2`, without a half; gradient `2 (prediction - target)`.

  Args:
    prediction: [B] or [B, ...].
    target: same shape.

  Returns:
    [B], the mean over the trailing axes.
  """
  return _mean_of_rows(jnp.square(_error(prediction, target)))


def absolute_error(prediction: Array, target: Array) -> Array:
  """`|prediction - target|`; gradient 0 where they are equal.

  Args:
    prediction: [B] or [B, ...].
    target: same shape.

  Returns:
    [B], the mean over the trailing axes.
  """
  error = _error(prediction, target)
  # The derivative of jnp.abs at 0 is 1: an exact prediction would be pushed away.
  return _mean_of_rows(jnp.where(error == 0, 0, jnp.abs(error)))


def huber(prediction: Array, target: Array, delta: float | Array = 1.0) -> Array:
  """Half the squared error near 0, linear beyond `delta` (Huber 1964).

  `e^2 / 2` for |e| <= delta, else `delta (|e| - delta / 2)`. Divided by delta it is
  the smooth L1 loss.

  Args:
    prediction: [B] or [B, ...].
    target: same shape.
    delta: error from which on the gradient grows no more, above 0.

  Returns:
    [B], the mean over the trailing axes.
  """
  size = jnp.abs(_error(prediction, target))
  near = jnp.minimum(size, delta)  # Never squares a large error: no inf times 0.
  return _mean_of_rows(near * (size - near / 2))


def gaussian_kl_terms(mean_BL: Array, log_var_BL: Array) -> Array:
  """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent [B, L], nats.

  `(mean^2 + var - 1 - log_var) / 2`; arXiv 1312.6114, appendix B.
  """
  chex.assert_equal_shape([mean_BL, log_var_BL])
  mean_BL, log_var_BL = _at_least_float32(mean_BL), _at_least_float32(log_var_BL)
  # expm1, since exp(log_var) - 1 - log_var loses all digits near log_var = 0.
  return (mean_BL**2 + jnp.expm1(log_var_BL) - log_var_BL) / 2


def gaussian_kl(mean_BL: Array, log_var_BL: Array) -> Array:
  """KL of a diagonal Gaussian from the standard normal [B], nats; the sum over L."""
  return gaussian_kl_terms(mean_BL, log_var_BL).sum(-1)


def distillation(
  student_BK: Array,
  teacher_BK: Array,
  label_B: Array | None = None,
  *,
  temperature: float | Array = 4.0,
  alpha: float | Array = 1.0,
) -> Array:
  """Cross-entropy with a teacher's softened answers (arXiv 1503.02531) [B], nats.

  `alpha T^2 KL(teacher / T || student / T) + (1 - alpha) CE(label)`: the KL is zero
  where student and teacher agree; T^2 keeps its gradient's size independent of T.

  Args:
    student_BK: logits.
    teacher_BK: logits; no gradient flows there.
    label_B: needed where alpha is not 1.
    temperature: T, above 0.
    alpha: share of the soft part, in [0, 1].
  """
  chex.assert_equal_shape([student_BK, teacher_BK])
  teacher_BK = jax.lax.stop_gradient(_at_least_float32(teacher_BK)) / temperature
  student_T_BK = _at_least_float32(student_BK) / temperature
  log_t, log_s = jax.nn.log_softmax(teacher_BK), jax.nn.log_softmax(student_T_BK)
  soft_B = temperature**2 * (jnp.exp(log_t) * (log_t - log_s)).sum(-1)
  if label_B is None:
    return alpha * soft_B
  return alpha * soft_B + (1 - alpha) * softmax_cross_entropy(student_BK, label_B)


def _error(prediction: Array, target: Array) -> Array:
  chex.assert_equal_shape([prediction, target])
  return _at_least_float32(prediction) - _at_least_float32(target)


def _mean_of_rows(values: Array) -> Array:
  return values.reshape(values.shape[0], -1).mean(1) if values.ndim > 1 else values


def _at_least_float32(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _is_zero(x) -> bool:
  """Whether smoothing is off for certain; a tracer of a sweep is not."""
  return isinstance(x, (int, float)) and x == 0
