"""Weights narrower than float32 are updated in a float32 copy, with float32 moments.

A step that is less than half the spacing of two numbers changes nothing: bfloat16 has
256 numbers from 1 to 2, so that a weight of 1 ignores steps below 0.002, and a decay of
0.999 is 1 there (mixed precision with a master copy: arXiv:1710.03740).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlx.errors import ConfigError
from dlx.precision import at_least_float32
from dlx.state import Array, PyTree, leaves_by_path


class Copies(NamedTuple):
  """State of an optimiser of narrow parameters.

  Attributes:
    params: the parameters in float32; None where they are that wide themselves.
    inner: state of the optimiser, which sees float32 alone.
  """

  params: PyTree
  inner: Any


def is_narrow(x: Array) -> bool:
  """Whether it is a float of less than 32 bits."""
  return jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32


def in_float32(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """`tx` for parameters of any width; the builders of dlx.optim call it.

  Where no parameter is narrower than float32 it is `tx`, with its state. Narrow ones
  are the float32 copy, rounded; one that something else has changed (a warm start) is
  copied anew.
  """
  tx = optax.with_extra_args_support(tx)

  def init(params):
    if not any(map(is_narrow, jax.tree.leaves(params))):
      return tx.init(params)
    copies = jax.tree.map(
      lambda p: at_least_float32(p) if is_narrow(p) else None, params
    )
    return Copies(copies, tx.init(_filled(copies, params)))

  def update(updates, state, params=None, **extra):
    if not isinstance(state, Copies):
      return tx.update(updates, state, params, **extra)
    old = _filled(state.params, params)
    wide = jax.tree.map(lambda g, w: g.astype(w.dtype), updates, old)
    moves, inner = tx.update(wide, state.inner, old, **extra)
    new = optax.apply_updates(old, moves)
    moves = jax.tree.map(_move, params, new, moves)
    copies = jax.tree.map(lambda p, w: w if is_narrow(p) else None, params, new)
    return moves, Copies(copies, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def _filled(copies: PyTree, params: PyTree) -> PyTree:
  """The copies, and the parameters that have none."""

  def one(copy, p):
    return p if copy is None else jnp.where(copy.astype(p.dtype) == p, copy, p)

  return jax.tree.map(one, copies, params, is_leaf=lambda x: x is None)


def _move(p: Array, new: Array, move: Array) -> Array:
  """What `optax.apply_updates` adds to a parameter to give `new`, rounded."""
  if not is_narrow(p):
    return move
  rounded = new.astype(p.dtype)
  # Adding -0.0 keeps the bytes of every number.
  return jnp.where(rounded == p, -0.0, at_least_float32(rounded) - p)


def check(params: PyTree, opt_state: PyTree):
  """Raises ConfigError for narrow parameters whose optimiser keeps no float32 copy."""
  kept = lambda x: isinstance(x, Copies)
  if any(map(kept, jax.tree.leaves(opt_state, is_leaf=kept))):
    return
  for name, p in leaves_by_path(params).items():
    if is_narrow(p):
      raise ConfigError(
        f'Parameter {name} of {p.dtype} is not allowed with this optimiser, whose '
        'moments and steps would stand still: take it from dlx.optim, or wrap it in '
        'optim.in_float32.'
      )


def check_average(slow: PyTree):
  """Raises ConfigError for an average whose dtype would let it stand still."""
  for name, x in leaves_by_path(slow).items():
    if is_narrow(x):
      raise ConfigError(
        f'An average {name} of {x.dtype} is not allowed, as it would stand still: '
        'begin it with steps.wide_copy.'
      )
