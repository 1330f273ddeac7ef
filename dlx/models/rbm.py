"""Restricted Boltzmann machines, one or a stack or the net it begins: pure functions.

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

from dlx.layers.dropout import drop
from dlx.layers.matmul import kernel_gradient, rows_product
from dlx.precision import at_least_float32
from dlx.state import Array, Key, seed_keys

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
  return jax.nn.sigmoid(rows_product(v_BV, machine['kernel']) + machine['hidden'][None])


def down(machine: Machine, h_BH: Array) -> Array:
  """Probabilities of the visible units [B, V], given the hidden ones."""
  return jax.nn.sigmoid(
    rows_product(h_BH, machine['kernel'].T) + machine['visible'][None]
  )


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


def error(a_BV: Array, b_BV: Array) -> Array:
  """Mean squared difference of each row [B], float32 at least."""
  return at_least_float32(jnp.square(a_BV - b_BV)).mean(1)


def contrast(machine: Machine, v_BV: Array, key: Key) -> tuple[dict[str, Array], Array]:
  """One step of contrastive divergence (Hinton 2002, doi:10.1162/089976602760128018).

  Hidden units are drawn from the data, visible ones are made from these.

  Returns:
    (what to descend, float32 at least: the difference of the products v h after and
    before, and of the units; errors of what was made [B]).
  """
  h_BH = up(machine, v_BV)
  made_BV = down(machine, draw(key, h_BH))
  then_BH = up(machine, made_BV)
  before_VH = kernel_gradient(v_BV, h_BH)
  after_VH = kernel_gradient(made_BV, then_BH)
  grads = {
    'kernel': (after_VH - before_VH) / len(v_BV),
    'visible': (made_BV - v_BV).mean(0),
    'hidden': (then_BH - h_BH).mean(0),
  }
  return jax.tree.map(at_least_float32, grads), error(v_BV, made_BV)


def errors(stack: Sequence[Machine], v_BV: Array) -> list[Array]:
  """Of each machine of a stack, how well its hidden probabilities say what lies below.

  Returns:
    From below, the `error` of each example [B].
  """
  found = []
  for machine in stack:
    h_BH = up(machine, v_BV)
    found.append(error(v_BV, down(machine, h_BH)))
    v_BV = h_BH
  return found


def sample(stack: Sequence[Machine], seed_B: Array, steps: int) -> Array:
  """Visible probabilities [B, V] of draws of a whole stack, one a seed (uint32).

  A Gibbs chain of so many rounds in the machine on top, then down by probabilities.
  """
  top = stack[-1]['kernel']

  def chain(key):
    start, key = jax.random.split(key)
    h_1H = draw(start, jnp.full((1, top.shape[1]), 0.5, top.dtype))
    return gibbs(stack[-1], key, h_1H, steps)[0]

  return down_all(stack, jax.vmap(chain)(seed_keys(seed_B)))


def as_layer(machine: Machine) -> dict[str, Array]:
  """The layer of a net of sigmoids that a machine becomes: `kernel` and `bias`."""
  return {'kernel': machine['kernel'], 'bias': machine['hidden']}


def net_logits(
  net: Mapping[str, Mapping[str, Array]],
  v_BV: Array,
  rng: Key | None = None,
  *,
  dropout: float = 0.0,
  input_dropout: float = 0.0,
) -> Array:
  """Logits [B, K], float32 at least, of a net of sigmoids that a stack has begun.

  Args:
    net: layers `hidden_0` and on, of `as_layer`, and `head`.
    v_BV: the data.
    rng: units are dropped where it is given.
    dropout, input_dropout: shares of hidden units and of the data.
  """
  depth = len(net) - 1
  keys = [None] * (depth + 1) if rng is None else jax.random.split(rng, depth + 1)
  thin = lambda x, rate, key: x if key is None or rate == 0 else drop(key, x, rate)
  v_BV = thin(v_BV, input_dropout, keys[0])
  for k, key in enumerate(keys[1:]):
    layer = net[f'hidden_{k}']
    v_BV = jax.nn.sigmoid(rows_product(v_BV, layer['kernel']) + layer['bias'][None])
    v_BV = thin(v_BV, dropout, key)
  head = net['head']
  return at_least_float32(rows_product(v_BV, head['kernel']) + head['bias'][None])
