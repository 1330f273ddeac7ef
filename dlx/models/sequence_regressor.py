"""Numbers from a sequence of vectors: a recurrent stack and a linear layer."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.matmul import Dense
from dlx.layers.recurrent.cells import Cell
from dlx.layers.recurrent.stack import RecurrentStack


class SequenceRegressor(nn.Module):
  """The last output of a recurrent stack, through one linear layer.

  Attributes:
    cell: one of dlx.layers.recurrent.cells.CELLS.
    features: H of each layer.
    num_outputs: K.
    dropout: share of units dropped between layers.
    hidden_init: how the hidden kernels start, see `Recurrent`.
    dtype: of the arithmetic; the outputs are at least float32.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: Sequence[int]
  num_outputs: int = 1
  dropout: float = 0.0
  hidden_init: str = 'orthogonal'
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: jax.Array, *, train: bool) -> jax.Array:
    """Outputs [B, K] of rows that all have T steps.

    Args:
      x_BTD: inputs.
      train: drop units (rng 'dropout').
    """
    dtypes: dict[str, Any] = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    encoder = RecurrentStack(
      self.cell,
      self.features,
      dropout=self.dropout,
      hidden_init=self.hidden_init,
      name='encoder',
      **dtypes,
    )
    h_BTH, _ = encoder(x_BTD, train=train)
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(h_BTH[:, -1])
