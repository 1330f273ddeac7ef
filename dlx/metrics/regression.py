"""Metrics of real-valued predictions, from sums that add up over batches."""

from typing import Any, Mapping

import chex
import jax.numpy as jnp

from dlx.state import Array, Mean, Metric, Metrics, mean, ratios


def regression_metrics(unit: str = '') -> dict[str, Metric]:
  """Declarations of what `regression_summary` reports.

  Args:
    unit: of the target.
  """
  error = lambda title, meaning: Metric(title, 'lower', meaning, unit, 'error')
  return {
    'mse': Metric(
      'Mean squared error',
      'lower',
      'Mean over the examples of the squared error of the prediction.',
      f'({unit})²' if unit else '',
      'squared error',
    ),
    'rmse': error(
      'Root mean squared error',
      'Root of the mean squared error, in the unit of the target.',
    ),
    'mae': error(
      'Mean absolute error',
      'Mean size of the error of the prediction, in the unit of the target.',
    ),
    'r2': Metric(
      'R²',
      'higher',
      'Share of the variance of the target that the prediction explains, 1 where every '
      'prediction is exact and 0 for the mean.',
      '',
      'share',
    ),
  }


def regression_sums(
  prediction_B: Array,
  target_B: Array,
  weight_B: Array | None = None,
  *,
  shift: float | Array = 0.0,
) -> dict[str, Mean]:
  """Sums for `regression_summary`.

  Args:
    prediction_B: in the unit of the target.
    target_B: what should have been predicted.
    weight_B: None: all ones.
    shift: one constant near the mean of the targets, the same for all batches (that
      of the training set; 0 for standardised targets). The variance of the targets
      is a difference of sums with relative error of about
      `eps * (1 + (mean - shift)^2 / variance)`.

  Returns:
    `mse`, `mae`, and the first two moments of `target - shift`.
  """
  chex.assert_rank([prediction_B, target_B], 1)
  chex.assert_equal_shape([prediction_B, target_B])
  dtype = jnp.promote_types(
    jnp.promote_types(prediction_B.dtype, target_B.dtype), jnp.float32
  )
  prediction_B, target_B = prediction_B.astype(dtype), target_B.astype(dtype)
  error_B, shifted_B = prediction_B - target_B, target_B - shift
  return {
    'mse': mean(jnp.square(error_B), weight_B),
    'mae': mean(jnp.abs(error_B), weight_B),
    'target': mean(shifted_B, weight_B),
    'target_squared': mean(jnp.square(shifted_B), weight_B),
  }


def regression_summary(metrics: Metrics) -> Mapping[str, Any]:
  """`mse`, `rmse`, `mae` and `r2`; other entries (`loss`) become their means.

  r2 = 1 - mse / variance of the targets; where all targets are equal it is 1 if every
  prediction is exact and 0 otherwise, as in scikit-learn.

  Args:
    metrics: the sums of `regression`, in its unit (squared for mse).
  """
  means = dict(ratios(metrics))
  variance = means.pop('target_squared') - jnp.square(means.pop('target'))
  mse = means['mse']
  constant = variance <= 0  # Rounding can take it below 0.
  r2 = 1 - mse / jnp.where(constant, 1, variance)
  means['r2'] = jnp.where(constant, jnp.where(mse == 0, 1.0, 0.0), r2)
  means['rmse'] = jnp.sqrt(mse)
  return means
