"""FT-Transformer: each column of a table is a token (arXiv:2106.11959)."""

from typing import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import transformer
from dlx.layers.block_config import BlockConfig
from dlx.layers.embeddings import LabelEmbedding
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import Stacked, Transformer

Array = jax.Array

PLACEMENT = transformer.PLACEMENT  # Of the state on a mesh; the rest lies by size.


class FTTransformer(nn.Module):
  """Tokens of the columns behind a learned token, pre-norm blocks, norm, ReLU, Dense.

  A token is a number times a vector with a bias, or what `numbers` makes of it; a mark
  of a missing number is a number of 0 or 1; a category is a row of `embedding_0`, ...
  Tokens have no positions: their weights tell the columns apart. Otherwise than in the
  paper the first block has its first norm, too, the feed-forward part is GELU's, and
  categories have no second bias. Layers are `numbers`, `embedding_0`, ...,
  `transformer`, `norm` and `head`.

  Attributes:
    num_values: V of each category; its codes are in [0, V], 0 for none of its values.
    num_layers: L.
    block: of each layer; its width D is that of a token. Outputs are at least float32.
    num_outputs: K.
    numbers: numbers [B, N] -> tokens [B, N, D], a module of dlx/layers/embeddings.py.
  """

  num_values: Sequence[int]
  num_layers: int
  block: BlockConfig
  num_outputs: int
  numbers: nn.Module

  def __call__(self, row: Mapping[str, Array], *, train: bool) -> Array:
    """Outputs [B, K], float32 or wider.

    Args:
      row: `number` [B, N], `missing` bool [B, M] and `code` int [B, C], those that the
        table has.
      train: drop units (rng 'dropout').
    """
    return self.forward(row, train=train)[0]

  def attention(self, row: Mapping[str, Array]) -> Array:
    """Attention weights [L, B, H, T, T]; the learned token is first, then the columns.

    The columns are those of `number`, of `missing` and of `code`, T - 1 in all.
    """
    stacked = self.forward(row, train=False, return_weights=True)[1]
    assert stacked.weights_NBHLM is not None
    return stacked.weights_NBHLM

  @nn.compact
  def forward(
    self, row: Mapping[str, Array], *, train: bool, return_weights: bool = False
  ) -> tuple[Array, Stacked]:
    """Outputs, and what the stack gives."""
    c = self.block
    batch = jax.tree.leaves(dict(row))[0].shape[0]
    start_D = self.param(
      'start', nn.initializers.normal(c.width**-0.5), (c.width,), c.param_dtype
    )
    tokens = [jnp.broadcast_to(start_D.astype(c.dtype), (batch, 1, c.width))]
    found = [jnp.asarray(row[k], c.dtype) for k in ('number', 'missing') if k in row]
    if found:
      tokens.append(self.numbers(jnp.concatenate(found, 1)))
    for i, size in enumerate(self.num_values):
      embedding = LabelEmbedding(size, c.width, name=f'embedding_{i}', **c.dtypes)
      tokens.append(embedding(row['code'][:, i])[:, None])
    stacked = Transformer(self.num_layers, c, name='transformer')(
      jnp.concatenate(tokens, 1), train=train, return_weights=return_weights
    )
    x_BD = LayerNorm(epsilon=1e-5, name='norm', **c.dtypes)(stacked.x_BLD[:, 0])
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(c.dtype, jnp.float32),
      param_dtype=c.param_dtype,
      name='head',
    )
    return head(nn.relu(x_BD)), stacked
