"""Focal losses: cross-entropy in which examples that are right already count less.

`(1 - p)^gamma` times the cross-entropy, p the probability of the true answer
(arXiv:1708.02002). gamma = 0 is cross-entropy. 1 - p is computed as a logarithm, so
that no gradient is infinite where p is 1, also for gamma below 1.
"""

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.losses.regression import _mean_of_rows
from dlx.precision import at_least_float32
from dlx.state import Array


def softmax_focal(
  logits_BK: Array,
  label_B: Array,
  gamma: float | Array = 2.0,
  class_weight_K: Array | None = None,
) -> Array:
  """`-w_y (1 - p_y)^gamma log p_y` of a softmax [B], nats.

  Args:
    logits_BK: any float dtype, finite; K at least 2.
    label_B: int; nan for one outside [0, K).
    gamma: at least 0.
    class_weight_K: w, at least 0, the paper's alpha; None: 1.
  """
  chex.assert_rank([logits_BK, label_B], [2, 1])
  chex.assert_equal_shape_prefix([logits_BK, label_B], 1)
  num_classes = logits_BK.shape[1]
  log_BK = jax.nn.log_softmax(at_least_float32(logits_BK), 1)
  hit_BK = labels.hits(label_B, num_classes)
  own_B = jnp.where(hit_BK, log_BK, 0).sum(1)
  # The logarithm of 1 - p: that of the sum of all others.
  rest_B = jax.nn.logsumexp(jnp.where(hit_BK, -jnp.inf, log_BK), 1)
  loss_B = -jnp.exp(gamma * rest_B) * own_B
  if class_weight_K is not None:
    loss_B *= labels.rows(at_least_float32(class_weight_K), label_B, num_classes)
  return jnp.where(labels.is_index(label_B, num_classes), loss_B, jnp.nan)


def sigmoid_focal(
  logits: Array,
  target: Array,
  gamma: float | Array = 2.0,
  alpha: float | Array | None = None,
) -> Array:
  """Focal loss of independent yes-no questions, the form of the paper, in nats.

  `t a (1 - p)^gamma log(1/p) + (1 - t) (1 - a) p^gamma log(1/(1-p))`, p = sigmoid(x).

  Args:
    logits: [B] or [B, ...], finite.
    target: same shape, bool, int or float in [0, 1].
    gamma: at least 0.
    alpha: weight a of yes; None: yes and no weigh 1 each. With gamma 2 the paper has
      0.25.

  Returns:
    [B], the mean over the questions of an example.
  """
  chex.assert_equal_shape([logits, target])
  x, target = at_least_float32(logits), at_least_float32(target)

  def missed(x):  # Where the answer is yes: sigmoid(-x)^gamma softplus(-x).
    return jnp.exp(-gamma * jax.nn.softplus(x)) * jax.nn.softplus(-x)

  yes, no = target * missed(x), (1 - target) * missed(-x)
  if alpha is not None:
    yes, no = alpha * yes, (1 - alpha) * no
  return _mean_of_rows(yes + no)
