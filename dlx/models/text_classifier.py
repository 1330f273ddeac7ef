"""Classifiers of token sequences: embedding, recurrent encoder, pooling, Dense.

Token 0 pads: the length of a row is the number of its other tokens.
"""

from typing import Any, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.layers.matmul import Dense
from dlx.layers.recurrent.cells import Cell, State
from dlx.layers.recurrent.noise import RecurrentNoise
from dlx.layers.recurrent.stack import Recurrent, RecurrentStack

POOLINGS = ('last', 'max', 'mean')


def pool(h_BTH: jax.Array, length_B: jax.Array, pooling: str) -> jax.Array:
  """Largest or mean output over the tokens of each row, float32 or wider, [B, H].

  Args:
    h_BTH: outputs.
    length_B: tokens of each row; a row without any gives 0.
    pooling: 'max' or 'mean'.
  """
  wide = h_BTH.astype(jnp.promote_types(h_BTH.dtype, jnp.float32))
  inside_BT1 = (jnp.arange(h_BTH.shape[1])[None] < length_B[:, None])[..., None]
  if pooling == 'mean':
    total_BH = jnp.where(inside_BT1, wide, 0).sum(1)
    return total_BH / jnp.maximum(length_B, 1)[:, None].astype(wide.dtype)
  low = jnp.finfo(wide.dtype).min
  best_BH = jnp.where(inside_BT1, wide, low).max(1)
  return jnp.where((length_B > 0)[:, None], best_BH, 0)


def word_vectors(
  model: Any, tokens_BT: jax.Array, name: str = 'embedding'
) -> jax.Array:
  """Word vectors [B, T, D]; nan for a token that is none of the vocabulary."""
  table = nn.Embed(
    model.vocabulary_size,
    model.embedding,
    embedding_init=nn.initializers.normal(0.1),
    param_dtype=model.param_dtype,
    name=name,
  )
  return labels.rows(jnp.asarray(table.embedding, model.dtype), tokens_BT)


class TextClassifier(nn.Module):
  """Embedding, recurrent layers, last state or pooled outputs, Dense.

  Attributes:
    vocabulary_size: rows of the embedding table.
    embedding: width of the word vectors.
    cell: of the encoder.
    hidden: H of each recurrent layer.
    num_outputs: K.
    bidirectional: encode from both ends.
    pooling: 'last' (final states of the last layer), 'max' or 'mean' over the tokens.
    embedding_dropout: share of the entries of word vectors dropped.
    dropout: share of units dropped between layers and before the Dense layer.
    noise: what the recurrent layers drop besides, see dlx/layers/recurrent/noise.py.
    dtype: of the arithmetic; pooling and the Dense layer are at least float32.
    param_dtype: of the parameters.
  """

  vocabulary_size: int
  embedding: int
  cell: Cell
  hidden: Sequence[int]
  num_outputs: int = 2
  bidirectional: bool = False
  pooling: str = 'last'
  embedding_dropout: float = 0.0
  dropout: float = 0.0
  noise: RecurrentNoise = RecurrentNoise()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, tokens_BT: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider; padding changes them by nothing.

    Args:
      tokens_BT: int, 0 from the end of a row on.
      train: drop units (rng 'dropout').
    """
    return self.forward(tokens_BT, train)[0]

  def features(self, tokens_BT: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F]: last states or pooled outputs, after dropout."""
    return self.forward(tokens_BT, train)[1]

  @nn.compact
  def forward(self, tokens_BT: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    length_B = (tokens_BT != 0).sum(1)
    x_BTD = word_vectors(self, tokens_BT)
    x_BTD = nn.Dropout(self.embedding_dropout, deterministic=not train)(x_BTD)
    h_BTH, finals = RecurrentStack(
      self.cell,
      self.hidden,
      bidirectional=self.bidirectional,
      dropout=self.dropout,
      noise=self.noise,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='encoder',
    )(x_BTD, length_B, train=train)
    if self.pooling == 'last':
      pooled_BH = jnp.concatenate([state[0] for state in finals[-1]], axis=-1)
    else:
      pooled_BH = pool(h_BTH, length_B, self.pooling)
    pooled_BH = nn.Dropout(self.dropout, deterministic=not train)(pooled_BH)
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(pooled_BH), pooled_BH


class CarriedClassifiers(nn.Module):
  """For each of several cells: embedding, a layer whose state goes in and out, Dense.

  The cells share nothing but their inputs: with a loss that is the sum over the cells,
  each learns what it would alone.

  Attributes:
    cells: by name; also the names of the results and of the parameters.
    vocabulary_size: rows of each embedding table.
    embedding: width of the word vectors.
    features: H.
    num_outputs: K.
    dtype: of the arithmetic; states and the Dense layer are at least float32.
    param_dtype: of the parameters.
  """

  cells: Mapping[str, Cell]
  vocabulary_size: int
  embedding: int
  features: int
  num_outputs: int = 2
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    tokens_BT: jax.Array,
    length_B: jax.Array,
    states: Mapping[str, State] | None = None,
    nudges: Mapping[str, jax.Array] | None = None,
  ) -> tuple[dict[str, jax.Array], dict[str, State]]:
    """By cell, logits [B, K] of the state after the window, and that state.

    Args:
      tokens_BT: int, one window of each row.
      length_B: tokens of the window that are the row's.
      states: before the window; None: zeros.
      nudges: [T, B, H] for some or all cells, see `layers.recurrence.unroll`.
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    wide = jnp.promote_types(self.dtype, jnp.float32)
    logits, after = {}, {}
    for name, cell in self.cells.items():
      x_BTD = word_vectors(self, tokens_BT, f'{name}_embedding')
      layer = Recurrent(cell, self.features, name=f'{name}_encoder', **dtypes)
      state = None if states is None else states[name]
      _, after[name] = layer(x_BTD, length_B, state, (nudges or {}).get(name))
      head = Dense(
        self.num_outputs, dtype=wide, param_dtype=self.param_dtype, name=f'{name}_head'
      )
      logits[name] = head(after[name][0])
    return logits, after
