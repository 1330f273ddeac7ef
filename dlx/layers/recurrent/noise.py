"""What a recurrent layer drops in training: variational dropout and zoneout.

Variational dropout (arXiv:1512.05287) draws one mask a row and keeps it for all steps,
of a layer's inputs and of the old output before its product with the hidden kernel.
Zoneout (arXiv:1606.01305) draws anew at each step which entries of the state keep their
old value; evaluation takes the expectation of it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlx.config import Group
from dlx.layers.recurrent.cells import Cell

Array = jax.Array


class Noise(NamedTuple):
  """What `unroll` multiplies and mixes; nothing of it gets a gradient.

  Attributes:
    hidden_BH: factor of h before the product with the hidden kernel, in every step;
      None: 1.
    old: by part of the state, [T, B, H] or of size 1 on any of B and H: the share of
      the old value that stays after a step, 0 or 1 where it is drawn. None: 0.
  """

  hidden_BH: Array | None = None
  old: tuple[Array, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentNoise(Group):
  """Flags of what a recurrent layer drops; `recurrent: RecurrentNoise` in a Config."""

  # Share of the inputs of a recurrent layer dropped, the same units at all steps.
  input_dropout: float = 0.0
  # Share of h dropped before the recurrent product, the same units at all steps.
  dropout: float = 0.0
  # Share of the output h that a step leaves unchanged, drawn anew at each step.
  zoneout: float = 0.0
  # Share of an LSTM's memory c that a step leaves unchanged, drawn anew at each.
  cell_zoneout: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    names = (field.name for field in dataclasses.fields(self))
    self.bounds(*names, least=0, below=1)

  @property
  def draws(self) -> bool:
    """Whether training needs a random key."""
    return any(dataclasses.astuple(self))

  def of_inputs(self, key: Array, x_BTD: Array) -> Array:
    """Inputs of a layer with the same entries dropped at all steps of a row."""
    if not self.input_dropout:
      return x_BTD
    shape = (x_BTD.shape[0], 1, x_BTD.shape[2])
    return x_BTD * kept(key, self.input_dropout, shape, x_BTD.dtype)

  def of_steps(
    self, key: Array | None, cell: Cell, shape: tuple[int, ...], dtype: Any
  ) -> Noise | None:
    """What the steps of a layer drop; None: nothing.

    Args:
      key: None: the expectations, of evaluation.
      cell: whose state has the part c, if any.
      shape: T, B and H.
      dtype: of the state.
    """
    rates = [self.cell_zoneout if part == 'c' else self.zoneout for part in cell.state]
    hidden_BH = old = None
    if key is None:
      if not any(rates):
        return None
      full = (jnp.full((shape[0], 1, 1), rate, dtype) for rate in rates)
      return Noise(None, tuple(full))
    first, *keys = jax.random.split(key, 1 + len(rates))
    if self.dropout:
      hidden_BH = kept(first, self.dropout, shape[1:], dtype)
    if any(rates):
      old = tuple(
        jax.random.bernoulli(k, rate, shape).astype(dtype)
        for k, rate in zip(keys, rates, strict=True)
      )
    return None if hidden_BH is None and old is None else Noise(hidden_BH, old)


def kept(key: Array, rate: float, shape: tuple[int, ...], dtype: Any) -> Array:
  """Inverted dropout: 0 with probability `rate`, else 1 / (1 - rate)."""
  keep = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(keep, 1 / (1 - rate), 0).astype(dtype)
