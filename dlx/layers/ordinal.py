"""Ordered classes from one score: the proportional odds model (McCullagh 1980)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def log_probabilities(score_B: Array, threshold_T: Array) -> Array:
  """log P(class k) where P(class <= k) = sigmoid(t_k - score), [B, T + 1].

  By log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - exp(b - a)), so that far scores
  are exact, too.

  Args:
    score_B: float32 or wider; the higher, the higher the class.
    threshold_T: rising strictly; where two are equal, the class between has -inf.
  """
  chex.assert_rank([score_B, threshold_T], 1)
  below_BT = threshold_T[None] - score_B[:, None]
  first_B1 = jax.nn.log_sigmoid(below_BT[:, :1])
  last_B1 = jax.nn.log_sigmoid(-below_BT[:, -1:])
  gap_T = threshold_T[:-1] - threshold_T[1:]
  between_BT = jax.nn.log_sigmoid(below_BT[:, 1:]) + jax.nn.log_sigmoid(
    -below_BT[:, :-1]
  )
  between_BT += jnp.log(-jnp.expm1(gap_T))[None]
  return jnp.concatenate([first_B1, between_BT, last_B1], 1)


class Ordinal(nn.Module):
  """Learned thresholds of a score, which give the log-probabilities of the classes.

  They rise by softplus of `steps` from `first`, and start where a score of 0 makes all
  classes equally likely.

  Attributes:
    num_classes: K, at least 2.
  """

  num_classes: int

  @nn.compact
  def __call__(self, score_B: Array) -> Array:
    """[B] scores -> [B, K]."""
    share = np.arange(1, self.num_classes) / self.num_classes
    start = np.log(share / (1 - share))
    # The inverse of softplus.
    steps = np.log(np.expm1(np.diff(start)))
    dtype = jnp.promote_types(score_B.dtype, jnp.float32)
    first, steps_S = (
      jnp.asarray(self.param(name, lambda _, x=x: jnp.asarray(x, dtype)), dtype)
      for name, x in (('first', start[:1]), ('steps', steps))
    )
    rise_S = jnp.cumsum(nn.softplus(steps_S))
    threshold_T = jnp.concatenate([first, first + rise_S])
    return log_probabilities(score_B.astype(dtype), threshold_T)
