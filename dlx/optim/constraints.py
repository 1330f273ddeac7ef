"""Weights that are kept in a set: after every update they are brought back into it."""

import jax
import jax.numpy as jnp
import optax

from dlx.config import check_bounds
from dlx.optim.copies import in_float32
from dlx.optim.optimizers import Mask, decay_mask, rated
from dlx.optim.schedules import Number
from dlx.precision import at_least_float32, euclidean_norm


def max_norm(
  tx: optax.GradientTransformation, limit: Number, mask: Mask = decay_mask
) -> optax.GradientTransformation:
  """Every update of `tx`, then weights of a unit that are too long are shortened.

  The weights into one unit are those of one entry of a kernel's last axis; their norm
  is at most `limit` (Srivastava et al. 2014, section 5.1; 3 for the output layer of
  arXiv:1408.5882). Clipping and freezing go around it.

  Args:
    tx: the optimiser.
    limit: largest Euclidean norm, above 0.
    mask: which leaves are bounded, as `optim.by_path` gives it; kernels where not
      given.

  Raises:
    ConfigError: a limit that is not above 0.
  """
  check_bounds('max_norm', limit, 0, above=True)
  inner = optax.with_extra_args_support(tx)

  def update(updates, state, params=None, **extra):
    moves, new = inner.update(updates, state, params, **extra)
    chosen = mask(params) if callable(mask) else mask

    def one(p, move, bounded):
      if not bounded:
        return move
      moved = at_least_float32(p + move)
      norm = euclidean_norm(moved.reshape(-1, moved.shape[-1]), axis=0)
      # No norm of 0 is divided by: such a unit is left as it is.
      share = jnp.where(norm > limit, limit / jnp.maximum(norm, limit), 1)
      return (moved * share.reshape((1,) * (moved.ndim - 1) + (-1,)) - p).astype(
        p.dtype
      )

    return jax.tree.map(one, params, moves, chosen), new

  bounded = in_float32(optax.GradientTransformationExtraArgs(inner.init, update))
  return rated(bounded, getattr(tx, 'rate', None))
