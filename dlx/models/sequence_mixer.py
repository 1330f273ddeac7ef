"""Residual blocks of one kind of sequence layer: recurrent, linear or selective."""

from typing import Any, Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from dlx.layers.recurrent.cells import CELLS
from dlx.layers.recurrent.linear import LRU, MinGRU
from dlx.layers.recurrent.selective import MambaBlock
from dlx.layers.recurrent.stack import Recurrent

# By name: (features, name, dtypes) -> a module that maps [B, T, features] to the same
# and a state.
MIXERS: Mapping[str, Callable[..., nn.Module]] = {
  **{
    cell: lambda features, cell=cell, **fields: Recurrent(
      CELLS[cell], features, **fields
    )
    for cell in ('rnn', 'lstm', 'gru')
  },
  'min_gru': MinGRU,
  'lru': lambda features, **fields: LRU(features, states=features, **fields),
  'mamba': MambaBlock,
}


class SequenceMixer(nn.Module):
  """Symbols to logits: x + mixer(norm(x)) a block, and a linear layer at the end.

  Attributes:
    num_symbols: of the inputs.
    num_outputs: K.
    mixer: a name of MIXERS.
    depth: blocks.
    features: width.
    last: steps from the end whose logits are given; None: all.
    dtype: of the matrix products; logits and recurrences are at least float32.
    param_dtype: of the parameters.
  """

  num_symbols: int
  num_outputs: int
  mixer: str = 'mamba'
  depth: int = 2
  features: int = 64
  last: int | None = None
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, symbols_BT: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, T or last, K].

    Args:
      symbols_BT: whole numbers in [0, num_symbols), rows that all have T steps; another
        number is a step without a symbol, zeros.
      train: without effect, as nothing is dropped.
    """
    del train
    dtypes: dict[str, Any] = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    embed = nn.Embed(self.num_symbols, self.features, name='embed', **dtypes)
    known_BT1 = ((symbols_BT >= 0) & (symbols_BT < self.num_symbols))[..., None]
    x = jnp.where(known_BT1, embed(jnp.where(known_BT1[..., 0], symbols_BT, 0)), 0)
    for i in range(self.depth):
      y = LayerNorm(name=f'norm_{i}', **dtypes)(x)
      y, _ = MIXERS[self.mixer](self.features, name=f'mixer_{i}', **dtypes)(y)
      x = x + y
    x = x if self.last is None else x[:, -self.last :]
    x = LayerNorm(name='norm', **dtypes)(x)
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(x)
