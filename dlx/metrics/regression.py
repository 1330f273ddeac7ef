"""Metrics of real-valued predictions, from sums that add up over batches."""

from typing import Any, Mapping

import chex
import jax.numpy as jnp

from dlx.state import Array, Mean, Metric, Metrics, mean, ratios


def regression_metrics(
  unit: str = '', deviation: float | None = None
) -> dict[str, Metric]:
  """Declarations of what `regression_summary` reports.

  Args:
    unit: of the target.
    deviation: standard deviation of the targets, the error of their mean.
  """
  error = lambda title, meaning: Metric(title, 'lower', meaning, unit, 'error')
  return {
    'mse': Metric(
      'Mean squared error',
      'lower',
      'Mean over the examples of the squared error of the prediction.',
      f'({unit})²' if unit else '',
      'squared error',
      None if deviation is None else deviation**2,
    ),
    'rmse': error(
      'Root mean squared error',
      'Root of the mean squared error, in the unit of the target.',
    )._replace(chance=deviation),
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
      0.0,
    ),
  }


def regression_sums(
  prediction_B: Array,
  target_B: Array,
  weight_B: Array | None = None,
  *,
  shift: float | Array,
) -> dict[str, Mean]:
  """Sums for `regression_summary`.

  Args:
    prediction_B: in the unit of the target.
    target_B: what should have been predicted.
    weight_B: None: all ones.
    shift: one constant near the mean of the targets, the same for all batches (that
      of the training set; 0 for standardised targets). The variance of the targets
      is a difference of sums with relative error of about
      `eps * (1 + (mean - shift)^2 / variance)`, so that there is no default.

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

  r2 = 1 - mse / variance of the targets; 1 where every prediction is exact, and else 0
  where all targets are equal to the shift, as in scikit-learn. nan where the targets
  are so far from the shift that rounding hides their variance.

  Args:
    metrics: the sums of `regression_sums`, in its unit (squared for mse).
  """
  means = dict(ratios(metrics))
  square = means.pop('target_squared')
  variance = square - jnp.square(means.pop('target'))
  mse = means['mse']
  # Sums of n terms are off by some eps of themselves, and so is their difference.
  hidden = variance <= 64 * jnp.finfo(square.dtype).eps * square
  r2 = 1 - mse / jnp.where(hidden, 1, variance)
  r2 = jnp.where(hidden, jnp.where(square == 0, 0.0, jnp.nan), r2)
  means['r2'] = jnp.where(mse == 0, 1.0, r2)
  means['rmse'] = jnp.sqrt(mse)
  return means
