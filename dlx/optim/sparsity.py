"""Weights that are exactly 0: L1 by its proximal step, and how many there are."""

import jax
import jax.numpy as jnp
import optax

from dlx.config import check_bounds
from dlx.errors import ConfigError
from dlx.optim.copies import in_float32
from dlx.optim.optimizers import Mask, decay_mask, learning_rate, rated
from dlx.optim.schedules import Number
from dlx.precision import at_least_float32
from dlx.state import Array, Mean, Metric, PyTree

# The declaration of the share that `zero_weights` gives.
ZERO_WEIGHTS = Metric(
  'Zero weights',
  None,
  'Share of the weights of kernels that are exactly 0.',
  '%',
  'share',
)


def proximal_l1(
  tx: optax.GradientTransformation, l1: Number, mask: Mask = decay_mask
) -> optax.GradientTransformation:
  """Every update of `tx`, then `learning_rate * l1` nearer to 0, and not past it.

  Of gradient descent this is ISTA (Beck and Teboulle 2009), which minimises the loss
  plus `l1` times the sum of absolute weights. Weights become exactly 0; by the gradient
  of such a penalty they only swing around it. Of an adaptive optimiser the L1 is
  decoupled, as the decay of `adamw` is. Clipping and freezing go around it.

  Args:
    tx: of dlx.optim, whose learning rate is known.
    l1: at least 0.
    mask: what is drawn to 0.

  Raises:
    ConfigError: `tx` does not tell its learning rate.
  """
  check_bounds('l1', l1, 0)
  schedule = getattr(tx, 'rate', None)
  if schedule is None:
    raise ConfigError(
      'proximal_l1 of an optimiser without a known learning rate is not allowed: take '
      'one of dlx.optim.'
    )
  inner = optax.with_extra_args_support(tx)

  def update(updates, state, params=None, **extra):
    moves, new = inner.update(updates, state, params, **extra)
    # A schedule counts its updates in the state; without one the rate is constant.
    rate = learning_rate(tx, state, new, jnp.zeros((), jnp.int32))
    assert rate is not None
    chosen = mask(params) if callable(mask) else mask

    def one(p, move, drawn):
      if not drawn:
        return move
      moved, bound = p + move, (rate * l1).astype(p.dtype)
      return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - bound, 0) - p

    return jax.tree.map(one, params, moves, chosen), new

  shrinking = optax.GradientTransformationExtraArgs(tx.init, update)
  return rated(in_float32(shrinking), schedule)


def zero_weights(params: PyTree, most: Number = 0.0, mask: Mask = decay_mask) -> Mean:
  """Share of the weights whose size is at most `most`; the count is that of weights.

  Args:
    params: any tree.
    most: 0: weights that are exactly 0.
    mask: which leaves count; kernels where not given.
  """
  chosen = mask(params) if callable(mask) else mask
  leaves = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
  counted = [p for p, c in leaves if c]
  small: list[Array] = [(jnp.abs(at_least_float32(p)) <= most).sum() for p in counted]
  total = sum(small, start=jnp.zeros((), jnp.int32)).astype(jnp.float32)
  return Mean(total, jnp.asarray(sum(p.size for p in counted), jnp.float32))
