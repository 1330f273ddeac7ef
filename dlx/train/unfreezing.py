"""Which layers of a transferred trunk learn, and from which step on.

  parts = unfreezing.parts(trunk, last=0, later=20)    the head learns; then 20 layers
  tx = unfreezing.optimizer(parts, 500, adam(1e-3), lambda begins: adam(1e-5))
  grads = unfreezing.without(parts.waiting + parts.never, grads)    until step 500

Layers are paths in the order of the forward pass (dlx/models/forward_order.py).
"""

import dataclasses
import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import optax

from dlx import optim
from dlx.config import Group
from dlx.state import PyTree
from dlx.train import steps

Layers = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Group):
  """What learns later than the rest."""

  at: int | None = None  # Steps of the task after which more layers learn; None: never.
  # Last layers of the trunk that learn after unfreeze.at; None: all.
  last: int | None = None

  def __post_init__(self):
    super().__post_init__()
    self.bounds('at', 'last', least=1)


class Parts(NamedTuple):
  """The layers of a trunk, each in one of these.

  Attributes:
    early: learn from the first step on.
    waiting: join them later.
    never: keep every byte.
  """

  early: Layers
  waiting: Layers
  never: Layers


def parts(trunk: Sequence[str], last: int | None, later: int | None = 0) -> Parts:
  """The parts of a trunk: its ends learn, the layers that are called last.

  Args:
    trunk: paths of its layers, in the order of the forward pass.
    last: how many of the last learn at once, at most all; None: all.
    later: how many learn later, at once or not: fewer than `last` change nothing.
  """
  layers = tuple(trunk)
  size = lambda n: len(layers) if n is None else min(n, len(layers))
  early, late = len(layers) - size(last), len(layers) - max(size(last), size(later))
  return Parts(layers[early:], layers[late:early], layers[:late])


def mask(layers: Sequence[str]) -> Callable[[PyTree], PyTree]:
  """Parameters -> whether each is of one of these layers; of none where there is none.

  Raises:
    ConfigError: when it is used: a layer has no parameter.
  """
  if not layers:
    return lambda params: jax.tree.map(lambda _: False, params)
  return optim.by_path(*(f'{re.escape(layer)}/.*' for layer in layers))


def without(layers: Sequence[str], grads: PyTree) -> PyTree:
  """Gradients in which those of these layers are 0; XLA computes none of them."""
  return steps.hold(mask(layers)(grads), grads, jax.tree.map(jnp.zeros_like, grads))


def optimizer(
  parts: Parts,
  at: int,
  head: optax.GradientTransformation,
  trunk: Callable[[int], optax.GradientTransformation],
  clipping: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
  """An optimiser for all layers; that of what waits begins at its own first step.

  Args:
    parts: of the trunk.
    at: updates after which `waiting` learns.
    head: of what is in no part; the rate that is told is its.
    trunk: updates before it begins -> the optimiser of layers of the trunk.
    clipping: see `optim.clip`; of all gradients but those of `never`.
  """
  groups = {}
  for layers, begins in ((parts.early, 0), (parts.waiting, at)):
    if layers:
      names = '|'.join(map(re.escape, layers))
      tx = trunk(begins)
      groups[f'({names})/.*'] = optim.frozen_until(tx, begins) if begins else tx
  tx = optim.clip(optim.grouped(groups, head) if groups else head, **(clipping or {}))
  return optim.freeze(tx, mask(parts.never)) if parts.never else tx
