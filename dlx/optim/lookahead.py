"""Look-ahead: slow weights that follow an optimiser's, which goes on from them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlx.config import check_bounds
from dlx.optim.copies import in_float32
from dlx.optim.optimizers import rated
from dlx.optim.schedules import Number, Schedule, constant
from dlx.precision import at_least_float32
from dlx.state import Array, PyTree


class LookaheadState(NamedTuple):
  """Attributes:
  updates: int32, how many were done.
  slow: the slow weights.
  inner: state of the optimiser.
  """

  updates: Array
  slow: PyTree
  inner: PyTree


def lookahead(
  tx: optax.GradientTransformation,
  every: int = 5,
  share: Number | Schedule = 0.5,
  last: int | None = None,
) -> optax.GradientTransformation:
  """`tx`, drawn back after every few updates (arXiv:1907.08610).

  After `every` updates `slow += share (params - slow)`, and `params = slow`; slow
  weights begin as the parameters do. Moments of `tx` go on.

  Args:
    tx: the optimiser, without frozen parameters: freezing goes around it.
    every: updates of `tx` for one of the slow weights, at least 1.
    share: in [0, 1], or a schedule of it by the number of updates done.
    last: the update that ends the run, after which it is done whatever `every` is, so
      that the run ends on slow weights; None: as `every` says.
  """
  check_bounds('every', every, 1)
  if not callable(share):
    check_bounds('share', share, 0, 1)
  shares = share if callable(share) else constant(share)
  inner = optax.with_extra_args_support(tx)

  def init(params):
    # Copies: one buffer twice in a state that is donated is an error.
    slow = jax.tree.map(lambda p: jnp.copy(at_least_float32(p)), params)
    return LookaheadState(jnp.zeros((), jnp.int32), slow, inner.init(params))

  def update(updates, state, params=None, **extra):
    moves, new = inner.update(updates, state.inner, params, **extra)
    done = state.updates + 1
    now = done % every == 0
    if last is not None:
      now |= done == last
    of_fast = jnp.asarray(shares(done))

    def follow(slow, p, move):
      ahead = p + move - slow
      return jnp.where(now, slow + of_fast.astype(slow.dtype) * ahead, slow)

    slow = jax.tree.map(follow, state.slow, params, moves)
    moves = jax.tree.map(
      lambda s, p, move: jnp.where(now, s - p, move).astype(move.dtype),
      slow,
      params,
      moves,
    )
    return moves, LookaheadState(done, slow, new)

  ahead = optax.GradientTransformationExtraArgs(init, update)
  return rated(in_float32(ahead), getattr(tx, 'rate', None))
