"""Optimisers besides SGD and Adam: RMSprop, Adagrad, Lion, LAMB and Muon.

Thin builders over optax, as those of optimizers.py: every number may be a tracer,
moments are float32 at least, and the learning rate of an update is known.
"""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from dlx.config import check_bounds
from dlx.optim.copies import in_float32
from dlx.optim.optimizers import Mask, decay_mask, rated
from dlx.optim.schedules import Number, Schedule
from dlx.state import PyTree


def rmsprop(
  learning_rate: Number | Schedule,
  decay: Number = 0.99,
  eps: Number = 1e-8,
  momentum: Number | None = None,
  centered: bool = False,
  weight_decay: Number | None = None,
  mask: Mask = decay_mask,
) -> optax.GradientTransformation:
  """Gradients over the root of their running mean square (Hinton 2012, lecture 6e).

  `v = decay v + (1 - decay) g^2`, then `params -= learning_rate g / (sqrt(v) + eps)`.

  Args:
    learning_rate: a number or a schedule.
    decay: of the mean square, which begins at 0.
    eps: added to its root.
    momentum: of the steps, heavy ball; None: none.
    centered: take the running variance in place of the mean square (arXiv:1308.0850).
    weight_decay: `weight_decay * params` is added to the gradient, as an L2 penalty
      does; None: none.
    mask: what is decayed.
  """
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('momentum', momentum, 0, 1)
  tx = optax.rmsprop(
    learning_rate, decay, eps, eps_in_sqrt=False, centered=centered, momentum=momentum
  )
  if weight_decay is not None:
    check_bounds('weight_decay', weight_decay, 0)
    tx = optax.chain(optax.add_decayed_weights(weight_decay, mask), tx)
  return rated(in_float32(tx), learning_rate)


def adagrad(
  learning_rate: Number | Schedule, initial: Number = 0.0, eps: Number = 1e-10
) -> optax.GradientTransformation:
  """Gradients over the root of the sum of all their squares (Duchi et al. 2011).

  Args:
    learning_rate: a number or a schedule.
    initial: what the sum of squares begins with.
    eps: added to the sum, within the root.
  """
  check_bounds('learning_rate', learning_rate, 0)
  tx = optax.adagrad(learning_rate, initial, eps)
  return rated(in_float32(tx), learning_rate)


def lion(
  learning_rate: Number | Schedule,
  weight_decay: Number = 0.0,
  b1: Number = 0.9,
  b2: Number = 0.99,
  mask: Mask = decay_mask,
) -> optax.GradientTransformation:
  """The sign of a mean of gradients (arXiv:2302.06675); each entry moves as far.

  `params -= learning_rate (sign(b1 m + (1 - b1) g) + weight_decay params)`, then
  `m = b2 m + (1 - b2) g`. Rates are 3 to 10 times below those of Adam, decays as much
  above.

  Args:
    learning_rate: a number or a schedule.
    weight_decay: at least 0.
    b1: share of the mean in the direction of a step.
    b2: decay of the mean.
    mask: what is decayed.
  """
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('weight_decay', weight_decay, 0)
  tx = optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=mask)
  return rated(in_float32(tx), learning_rate)


def lamb(
  learning_rate: Number | Schedule,
  weight_decay: Number = 1e-2,
  b1: Number = 0.9,
  b2: Number = 0.999,
  eps: Number = 1e-6,
  mask: Mask = decay_mask,
) -> optax.GradientTransformation:
  """Adam whose steps have the length of what they change (arXiv:1904.00962).

  The step of each tensor, decay included, is scaled by the norm of the tensor over the
  norm of the step (1 where either is 0): for batches of thousands of examples.

  Args:
    learning_rate: a number or a schedule.
    weight_decay: at least 0.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    mask: what is decayed.
  """
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('weight_decay', weight_decay, 0)
  tx = optax.lamb(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
  return rated(in_float32(tx), learning_rate)


def matrices(params: PyTree) -> PyTree:
  """True for leaves of rank 2: what `muon` takes for matrices."""
  return jax.tree.map(lambda p: jnp.ndim(p) == 2, params)


def muon(
  learning_rate: Number | Schedule,
  weight_decay: Number = 0.0,
  momentum: Number = 0.95,
  nesterov: bool = True,
  adam_share: Number = 0.1,
  mask: Mask = matrices,
) -> optax.GradientTransformation:
  """Momentum whose steps of matrices are made orthogonal (Jordan et al. 2024).

  Five Newton-Schulz turns bring the singular values of a step near 1; it is scaled by
  `sqrt(max(1, columns / rows))` of a kernel [rows, columns], and decays are decoupled
  (arXiv:2502.16982). What is no matrix is moved by Adam without decay. Leave embeddings
  and the last layer out by `mask`, as its authors do.

  Args:
    learning_rate: of the matrices, a number or a schedule.
    weight_decay: of the matrices, at least 0.
    momentum: in [0, 1].
    nesterov: look ahead.
    adam_share: rate of Adam over `learning_rate`.
    mask: what is a matrix, of rank 2 each.
  """
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('weight_decay', weight_decay, 0)
  check_bounds('momentum', momentum, 0, 1)
  check_bounds('adam_share', adam_share, 0)

  def labels(params):
    chosen = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda m: 'matrix' if m else 'other', chosen)

  of_matrices = contrib.muon(
    learning_rate, beta=momentum, nesterov=nesterov, weight_decay=weight_decay
  )
  of_others = optax.adam(_times(learning_rate, adam_share))
  tx = optax.partition({'matrix': of_matrices, 'other': of_others}, labels)
  return rated(in_float32(tx), learning_rate)


def _times(rate: Number | Schedule, factor: Number) -> Number | Schedule:
  return (lambda count: rate(count) * factor) if callable(rate) else rate * factor
