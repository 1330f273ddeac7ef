"""Values inside branches and loops, which a traced function has where they run.

A branch that is not taken gives nothing, nor does a loop of no turns: nan, which is no
value of a layer, or 0 where it is no float.
"""

import functools
from typing import Any, Callable, Sequence

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp


def is_choice(eqn: Any) -> bool:
  """Whether it is a branch by a value; one by the platform is one layer's own way."""
  return eqn.primitive.name == 'cond' and eqn.params.get('branches_platforms') is None


def filled(results: Sequence[Callable], given: Any) -> list[Callable]:
  """Branches that give all that any of them finds, nothing for what is not theirs.

  Args:
    results: given -> (outputs, found by name); no name of two branches.
    given: what they are called with.
  """
  shapes = [jax.eval_shape(result, given)[1] for result in results]

  def call(i, given):
    outputs, found = results[i](given)
    for j, other in enumerate(shapes):
      if j != i:
        found = {**found, **nothing(other)}
    return outputs, found

  return [functools.partial(call, i) for i in range(len(results))]


def last_turn(eqn: Any, given: Sequence[Any], turn: Callable) -> tuple[list, Any]:
  """A while loop, and what its last turn finds; nothing where it has no turn.

  Args:
    eqn: of the loop.
    given: all that it reads.
    turn: carry -> (carry, found).
  """
  read, of_body = eqn.params['cond_nconsts'], eqn.params['body_nconsts']
  goes_on = jex_core.jaxpr_as_fun(eqn.params['cond_jaxpr'])
  carry = list(given[read + of_body :])
  found = nothing(jax.eval_shape(turn, carry)[1])
  return jax.lax.while_loop(
    lambda x: goes_on(*given[:read], *x[0])[0], lambda x: turn(x[0]), (carry, found)
  )


def nothing(shapes: Any) -> Any:
  """A tree of nan, of 0 where it is no float."""

  def none(x):
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    return jnp.full(x.shape, jnp.nan if floats else 0, x.dtype)

  return jax.tree.map(none, shapes)
