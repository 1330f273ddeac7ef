"""Restricted Boltzmann machines, one or a stack of them, as pure functions.

A machine has binary units v [V] and h [H] and the probability

  P(v, h) proportional to exp(v W h + a v + b h)

(Smolensky 1986), so that the units of one side are independent given the other side.
Its parameters are a dict: `kernel` W [V, H], `visible` a [V] and `hidden` b [H]. In a
stack the hidden units of a machine are the visible ones of the next
(doi:10.1162/neco.2006.18.7.1527). Arithmetic is in the dtype of what is given.
"""

from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx.state import Array, Key

Machine = Mapping[str, Array]


def init(
  key: Key, visible: int, hidden: int, dtype: Any = 'float32'
) -> dict[str, Array]:
  """A machine of normal weights of deviation 0.01 and biases of 0 (Hinton 2010)."""
  return {
    'kernel': 0.01 * jax.random.normal(key, (visible, hidden), dtype),
    'visible': jnp.zeros(visible, dtype),
    'hidden': jnp.zeros(hidden, dtype),
  }


def up(machine: Machine, v_BV: Array) -> Array:
  """Probabilities of the hidden units [B, H], given the visible ones."""
  return jax.nn.sigmoid(v_BV @ machine['kernel'] + machine['hidden'][None])


def down(machine: Machine, h_BH: Array) -> Array:
  """Probabilities of the visible units [B, V], given the hidden ones."""
  return jax.nn.sigmoid(h_BH @ machine['kernel'].T + machine['visible'][None])


def draw(key: Key, probability: Array) -> Array:
  """Units, 0 or 1, of these probabilities, in their dtype."""
  return jax.random.bernoulli(key, probability).astype(probability.dtype)


def gibbs(machine: Machine, key: Key, h_BH: Array, steps: int) -> Array:
  """Hidden units [B, H] after so many rounds of drawing v from h and h from v."""

  def body(i, h_BH):
    visible, hidden = jax.random.split(jax.random.fold_in(key, i))
    return draw(hidden, up(machine, draw(visible, down(machine, h_BH))))

  return jax.lax.fori_loop(0, steps, body, h_BH)


def up_all(stack: Sequence[Machine], v_BV: Array) -> Array:
  """Through a stack from below: hidden probabilities of its last machine."""
  for machine in stack:
    v_BV = up(machine, v_BV)
  return v_BV


def down_all(stack: Sequence[Machine], h_BH: Array) -> Array:
  """Through a stack from above: visible probabilities of its first machine."""
  for machine in reversed(stack):
    h_BH = down(machine, h_BH)
  return h_BH
