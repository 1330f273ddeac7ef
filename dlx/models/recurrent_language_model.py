"""A language model that reads its text token by token: a state in place of a context.

arXiv:1308.0850, arXiv:1506.02078, without connections that skip layers.
"""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.layers.matmul import Dense
from dlx.layers.recurrent.cells import Cell, State, zero_state
from dlx.layers.recurrent.stack import RecurrentStack


class RecurrentLanguageModel(nn.Module):
  """Embedding, recurrent layers whose state goes in and out, Dense.

  Attributes:
    vocabulary_size: V.
    embedding: width of the token vectors.
    cell: one of dlx.layers.recurrent.cells.CELLS.
    features: H of each layer.
    dropout: share of the outputs of each layer that are dropped.
    dtype: of the arithmetic; states and logits are at least float32.
    param_dtype: of the parameters.
  """

  vocabulary_size: int
  embedding: int
  cell: Cell
  features: Sequence[int]
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @property
  def wide(self) -> Any:
    return jnp.promote_types(self.dtype, jnp.float32)

  def empty(self, rows: int) -> list[list[State]]:
    """The states before the first token, by layer and direction."""
    return [[zero_state(self.cell, rows, h, self.wide)] for h in self.features]

  @nn.compact
  def __call__(
    self, token_BT: jax.Array, states: Any = None, *, train: bool = False
  ) -> tuple[jax.Array, list[list[State]]]:
    """(Logits [B, T, V] of the token after each; the states after the last).

    Args:
      token_BT: int, in [0, V); another gives nan from there on.
      states: before the first token, as `empty` and this give them; None: `empty`.
      train: drop units (rng 'dropout').
    """
    dtypes: dict[str, Any] = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    table = nn.Embed(
      self.vocabulary_size,
      self.embedding,
      embedding_init=nn.initializers.normal(1.0),
      param_dtype=self.param_dtype,
      name='embedding',
    )
    x_BTD = labels.rows(jnp.asarray(table.embedding, self.dtype), token_BT)
    h_BTH, after = RecurrentStack(
      self.cell, self.features, dropout=self.dropout, name='layers', **dtypes
    )(x_BTD, None, states, train=train)
    h_BTH = nn.Dropout(self.dropout, deterministic=not train)(h_BTH)
    head = Dense(
      self.vocabulary_size, dtype=self.wide, param_dtype=self.param_dtype, name='head'
    )
    return head(h_BTH), after
