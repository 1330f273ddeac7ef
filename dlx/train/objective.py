"""What is minimised: one loss, or several by name, each with a weight; penalties.

A loss gives one value an example, [B]; a penalty gives a scalar. Both may give several:
a mapping from names to values, or to (weight, values). The weighted sum is minimised,
and each is reported by its name, without its weight.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.state import Array, Metrics

Weighted = Array | tuple[float | Array, Array]
Terms = Array | Mapping[str, Weighted]


def add_up(
  found: Terms, shape: tuple[int, ...], what: str
) -> tuple[Array, dict[str, Array]]:
  """The weighted sum of the terms, and each term by its name.

  Args:
    found: what a loss or a penalty gave.
    shape: that every term must have: (B,) of a loss, () of a penalty.
    what: 'loss' or 'penalty', for messages.

  Returns:
    (sum, terms by name); no names where `found` is one array.

  Raises:
    ConfigError: no term at all, a term of another shape, a tuple of other than two, or
      a term that is called `loss`, as the sum is.
  """
  named = isinstance(found, Mapping)
  terms: dict[str, Any] = {**found} if isinstance(found, Mapping) else {what: found}
  total, values = None, {}
  for name, term in terms.items():
    label = f'{what} {name!r}' if named else what
    if isinstance(term, tuple) and len(term) != 2:
      raise ConfigError(
        f'The {label} is a tuple of {len(term)}: must be a value, or (weight, value).'
      )
    weight, value = term if isinstance(term, tuple) else (None, term)
    if jnp.shape(value) != shape:
      each = 'one value an example' if shape else 'a scalar'
      raise ConfigError(
        f'The {label} has the shape {jnp.shape(value)}: must be {shape}, {each}.'
      )
    if named and name == 'loss':
      raise ConfigError(f'The {label} is not allowed: the sum has that name.')
    values[name] = jnp.asarray(value)
    part = values[name]
    if weight is not None:
      part = jnp.asarray(weight, part.dtype) * part
    total = part if total is None else total + part
  if total is None:
    raise ConfigError(f'The {what} is empty: give at least one term.')
  return total, values if named else {}


def joined(*several: Metrics) -> dict[str, Any]:
  """Metrics in one mapping.

  Raises:
    ConfigError: a name that two of them have, of which one would be lost.
  """
  out: dict[str, Any] = {}
  for metrics in several:
    for name, value in metrics.items():
      if name in out:
        raise ConfigError(
          f'The metric {name!r} is reported twice: give one of the two another name.'
        )
      out[name] = value
  return out
