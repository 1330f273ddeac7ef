"""Nets over the columns of a table, by name."""

import dataclasses
from typing import Any, Sequence

import flax.linen as nn

from dlx.config import Group, check_choice
from dlx.layers.block_config import BlockConfig
from dlx.layers.embeddings import LinearNumbers, PeriodicNumbers
from dlx.models.ft_transformer import FTTransformer
from dlx.models.tabular import Tabular, embedding_width

NETS = ('mlp', 'linear', 'ft_transformer')
NUMBERS = ('plain', 'periodic')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Group):
  """What a column becomes in an FT-Transformer, or a number where it is periodic."""

  width: int = 32  # Width of the vector that a column becomes.
  layers: int = 2  # Blocks of the FT-Transformer.
  heads: int = 4  # Heads of the FT-Transformer, a divisor of the width.
  frequencies: int = 16  # Learned frequencies of each number, if periodic.
  # Deviation of the initial frequencies, in turns a standard deviation of the number.
  sigma: float = 0.3

  def __post_init__(self):
    super().__post_init__()
    self.bounds('width', 'layers', 'heads', 'frequencies', least=1)
    self.bounds('sigma', above=0)
    divides = self.width % self.heads == 0
    self.require('heads', divides, f'a divisor of width={self.width}')


def net(
  name: str,
  *,
  num_values: Sequence[int],
  num_outputs: int,
  features: Sequence[int],
  embedding: int | None,
  dropout: float,
  numbers: str,
  tokens: Tokens,
  **dtypes: Any,
) -> nn.Module:
  """A net of NETS: (row, train=...) -> [B, K], see `Tabular`.

  Args:
    name: mlp, linear (of one-hot categories) or ft_transformer.
    num_values: of each category.
    num_outputs: K.
    features: widths of the hidden layers of mlp.
    embedding: width of a category in mlp; None: by its values; 0: one-hot.
    dropout: share of hidden units dropped in mlp; of attention weights and branches in
      ft_transformer.
    numbers: of NUMBERS, for all but linear.
    tokens: sizes of ft_transformer, and of periodic numbers.
    dtypes: dtype and param_dtype.

  Raises:
    ConfigError: another name, other numbers, or a linear model of periodic ones.
  """
  check_choice('model', name, NETS)
  check_choice('numbers', numbers, NUMBERS if name != 'linear' else NUMBERS[:1])
  embedded = None
  if numbers == 'periodic':
    embedded = PeriodicNumbers(tokens.width, tokens.frequencies, tokens.sigma, **dtypes)
  if name == 'ft_transformer':
    block = BlockConfig(
      width=tokens.width,
      num_heads=tokens.heads,
      mlp_ratio=2,
      dropout=dropout,
      unroll=tokens.layers,
      **dtypes,
    )
    embedded = embedded or LinearNumbers(tokens.width, **dtypes)
    return FTTransformer(num_values, tokens.layers, block, num_outputs, embedded)
  linear = name == 'linear'
  width = 0 if linear else embedding
  return Tabular(
    num_values=num_values,
    embeddings=[embedding_width(n) if width is None else width for n in num_values],
    widths=() if linear else features,
    num_outputs=num_outputs,
    dropout=dropout,
    numbers=embedded,
    **dtypes,
  )
