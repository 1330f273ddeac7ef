"""Numbers and categories of a table: embeddings beside the numbers, then an MLP."""

from typing import Any, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.layers.embeddings import LabelEmbedding
from dlx.models.mlp import MLP


def embedding_width(num_values: int) -> int:
  """Numbers that stand for a category of so many values: 1.6 n^0.56, rounded.

  The rule of fastai (arXiv:2002.04688): 2 of 2 values, 4 of 5, 16 of 64.
  """
  return round(1.6 * num_values**0.56)


class Tabular(nn.Module):
  """An MLP over numbers, over what is missing, and over embeddings of categories.

  Layers are `numbers`, where numbers are embedded, `embedding_0`, ... for categories
  (arXiv:1604.06737), and those of `mlp`. Without a hidden layer and without embeddings
  it is linear in the numbers and in one-hot categories.

  Attributes:
    num_values: V of each category; its codes are in [0, V], 0 for none of its values.
    embeddings: width of each embedding; 0: V + 1 numbers, one of them 1.
    widths: of the hidden layers.
    num_outputs: K.
    dropout: probability that a hidden unit is dropped.
    numbers: numbers [B, N] -> [B, N, F], e.g. PeriodicNumbers; None: as they are.
    dtype: see MLP.
    param_dtype: see MLP.
  """

  num_values: Sequence[int]
  embeddings: Sequence[int]
  widths: Sequence[int]
  num_outputs: int
  dropout: float = 0.0
  numbers: nn.Module | None = None
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, row: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
    """Outputs [B, K], float32 or wider.

    Args:
      row: `number` [B, N], `missing` bool [B, M] and `code` int [B, C], those that the
        table has.
      train: drop units (rng 'dropout').
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    parts = [jnp.asarray(row[k], self.dtype) for k in ('number', 'missing') if k in row]
    if self.numbers is not None and 'number' in row:
      parts[0] = self.numbers(row['number']).reshape(parts[0].shape[0], -1)
    for i, (size, width) in enumerate(zip(self.num_values, self.embeddings)):
      code_B = row['code'][:, i]
      if width:
        embedding = LabelEmbedding(size, width, name=f'embedding_{i}', **dtypes)
        parts.append(embedding(code_B))
      else:
        parts.append(labels.one_hot(code_B, size + 1, self.dtype))
    mlp = MLP(self.widths, self.num_outputs, self.dropout, name='mlp', **dtypes)
    return mlp(jnp.concatenate(parts, 1), train=train)
