"""Integer arithmetic of a jaxpr, followed where its numbers are known.

How often a loop turns, and which branch is taken, follows from numbers that a program
computes before it runs: bounds of blocks, counters.
"""

from typing import Any

import jax
import numpy as np

# Of integers and truth values the number that all entries have, where that is known.
Known = tuple[int | None, ...]


def is_integer(variable: Any) -> bool:
  dtype = getattr(variable.aval, 'dtype', None)
  return dtype is not None and (
    dtype == np.bool_ or jax.dtypes.issubdtype(dtype, np.integer)
  )


def result(eqn: Any, given: Known) -> int | None:
  """The result of integer arithmetic; None where something is not known."""
  if None in given or not is_integer(eqn.outvars[0]):
    return None
  value = BY_PRIMITIVE[eqn.primitive.name](*given)
  if value is None:
    return None
  dtype = np.dtype(eqn.outvars[0].aval.dtype)
  if dtype == np.bool_:
    return int(bool(value))
  info = np.iinfo(dtype)  # Arithmetic is modulo a power of 2.
  return (value - int(info.min)) % 2**info.bits + int(info.min)


def _divided(a: int, b: int) -> int | None:
  """As lax.div: towards 0."""
  if not b:
    return None
  return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _remainder(a: int, b: int) -> int | None:
  """As lax.rem: with the sign of a."""
  quotient = _divided(a, b)
  return None if quotient is None else a - b * quotient


BY_PRIMITIVE = {
  'add': lambda a, b: a + b,
  'sub': lambda a, b: a - b,
  'mul': lambda a, b: a * b,
  'div': _divided,
  'rem': _remainder,
  'neg': lambda a: -a,
  'sign': lambda a: (a > 0) - (a < 0),
  'max': max,
  'min': min,
  'lt': lambda a, b: int(a < b),
  'le': lambda a, b: int(a <= b),
  'gt': lambda a, b: int(a > b),
  'ge': lambda a, b: int(a >= b),
  'eq': lambda a, b: int(a == b),
  'ne': lambda a, b: int(a != b),
  'and': lambda a, b: a & b,
  'or': lambda a, b: a | b,
  'select_n': lambda which, *cases: cases[which],
  'clamp': lambda low, x, high: min(max(x, low), high),
  'convert_element_type': lambda a: a,
  'copy': lambda a: a,
  'broadcast_in_dim': lambda a: a,
  'squeeze': lambda a: a,
  'reshape': lambda a: a,
  'pvary': lambda a: a,
}
