"""Temperature scaling: logits over one number that is fitted on held-out examples.

arXiv 1706.04599, section 4.2: the order of the classes, and so the accuracy, stays.
Of several nets the mean of the probabilities is scaled, not each net before it is
averaged (arXiv 2007.08792): averaging makes answers less sure.
"""

import jax
import jax.numpy as jnp

from dlx.metrics.calibration import log_probabilities
from dlx.precision import at_least_float32
from dlx.state import Array

LEAST, MOST = 0.01, 100.0
_STEPS = 60  # Newton needs some 6; halving the logarithms of the bounds, 30.


def tempered(probs_NK: Array, temperature: Array | float) -> Array:
  """softmax(log(probs) / temperature): above 1 less sure, below 1 surer.

  Logarithms of probabilities are logits up to a constant a row.

  Args:
    probs_NK: rows sum to 1.
    temperature: above 0.
  """
  log_NK = log_probabilities(at_least_float32(probs_NK))
  return jax.nn.softmax(log_NK / temperature)


def fit_temperature(probs_NK: Array, label_N: Array) -> Array:
  """The temperature of the least mean negative log-likelihood, in [LEAST, MOST].

  The loss is convex in the inverse of the temperature. Newton's method finds where its
  slope is 0, and halves the logarithm of the interval where a step would leave that.
  The loss has no minimum where every answer is right, as any lower number makes them
  surer: then one is found at which it is 0 in float32. MOST: the answers are of no use.

  Args:
    probs_NK: rows sum to 1.
    label_N: the true class of each, one of the K.

  Returns:
    A scalar, float32 or wider; nan of no example.
  """
  log_NK = log_probabilities(at_least_float32(probs_NK))
  true_N = jnp.take_along_axis(log_NK, label_N[:, None], 1)[:, 0]

  def slope(inverse: Array) -> tuple[Array, Array]:
    """Of the mean loss, and its second derivative."""
    share_NK = jax.nn.softmax(log_NK * inverse)
    mean_N = (share_NK * log_NK).sum(1)
    spread_N = (share_NK * jnp.square(log_NK - mean_N[:, None])).sum(1)
    return (mean_N - true_N).mean(), spread_N.mean()

  def step(_, bounds: tuple[Array, Array, Array]):
    low, high, at = bounds
    first, second = slope(at)
    low, high = jnp.where(first < 0, at, low), jnp.where(first < 0, high, at)
    newton = at - first / jnp.maximum(second, jnp.finfo(second.dtype).tiny)
    inside = (newton >= low) & (newton <= high)
    return low, high, jnp.where(inside, newton, jnp.sqrt(low * high))

  number = lambda x: jnp.asarray(x, log_NK.dtype)
  start = number(1 / MOST), number(1 / LEAST), number(1)
  _, _, inverse = jax.lax.fori_loop(0, _STEPS, step, start)
  found = jnp.clip(1 / inverse, LEAST, MOST)
  return jnp.where(len(label_N) > 0, found, jnp.nan)
