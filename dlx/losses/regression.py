"""Losses of real-valued predictions, one value a row."""

import math

import chex
import jax.numpy as jnp

from dlx.precision import at_least_float32
from dlx.state import Array


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


def smooth_l1(prediction: Array, target: Array, beta: float | Array = 1.0) -> Array:
  """The absolute error, rounded off within `beta` of 0 (arXiv:1504.08083).

  `e^2 / (2 beta)` for |e| <= beta, else `|e| - beta / 2`: `huber` over beta, so that
  far from 0 the gradient is 1 for every beta.

  Args:
    prediction: [B] or [B, ...].
    target: same shape.
    beta: above 0; `absolute_error` is that of 0.

  Returns:
    [B], the mean over the trailing axes.
  """
  return huber(prediction, target, beta) / beta


def pinball(prediction: Array, target: Array, levels: Array) -> Array:
  """Quantile loss `max(q e, (q - 1) e)` of e = target - prediction (Koenker 1978).

  Its least expectation is at the quantile q of the target: of the level 1/2 at the
  median, where it is half the absolute error.

  Args:
    prediction: [B, ..., Q], one number a level.
    target: [B, ...].
    levels: [Q], in (0, 1).

  Returns:
    [B], the mean over levels and trailing axes.
  """
  chex.assert_shape(levels, prediction.shape[-1:])
  spread = jnp.broadcast_to(target[..., None], prediction.shape)
  error = _error(spread, prediction)
  levels = at_least_float32(jnp.asarray(levels)).reshape((1,) * target.ndim + (-1,))
  return _mean_of_rows(jnp.maximum(levels * error, (levels - 1) * error))


def _error(prediction: Array, target: Array) -> Array:
  chex.assert_equal_shape([prediction, target])
  return at_least_float32(prediction) - at_least_float32(target)


def _mean_of_rows(values: Array) -> Array:
  return flat_rows(values).mean(1) if values.ndim > 1 else values


def flat_rows(values: Array) -> Array:
  """[B, ...] -> [B, all others]; also of no rows, where -1 is no size."""
  return values.reshape(values.shape[0], math.prod(values.shape[1:]))
