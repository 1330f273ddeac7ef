"""Nets of tables by name: what each is made of, and what is refused in one line."""

import pytest

from dlx.errors import ConfigError
from dlx.layers.embeddings import LinearNumbers, PeriodicNumbers
from dlx.models.ft_transformer import FTTransformer
from dlx.models.table_nets import Tokens, net
from dlx.models.tabular import Tabular


def named(name, numbers='plain', embedding=None):
  return net(
    name,
    num_values=[2, 64],
    num_outputs=3,
    features=(8,),
    embedding=embedding,
    dropout=0.1,
    numbers=numbers,
    tokens=Tokens(width=12, heads=3, layers=2),
  )


def test_what_nets_are_made_of():
  mlp, linear = named('mlp'), named('linear', embedding=7)
  assert isinstance(mlp, Tabular) and isinstance(linear, Tabular)
  # 1.6 times 2^0.56 = 1.474, 64^0.56 = 10.27; of a linear model categories are one-hot.
  assert (mlp.embeddings, mlp.widths, mlp.numbers) == ([2, 16], (8,), None)
  assert (linear.embeddings, linear.widths) == ([0, 0], ())
  assert named('mlp', embedding=7).embeddings == [7, 7]
  assert isinstance(named('mlp', 'periodic').numbers, PeriodicNumbers)
  tokens = named('ft_transformer')
  assert isinstance(tokens, FTTransformer) and tokens.num_layers == 2
  assert (tokens.block.width, tokens.block.num_heads) == (12, 3)
  assert isinstance(tokens.numbers, LinearNumbers)
  assert isinstance(named('ft_transformer', 'periodic').numbers, PeriodicNumbers)


def test_refused():
  with pytest.raises(ConfigError, match='heads=5 is not allowed: must be a divisor of'):
    Tokens(heads=5)
  with pytest.raises(ConfigError, match='sigma=0 is not allowed: must be above 0'):
    Tokens(sigma=0)
  with pytest.raises(ConfigError, match='model=forest is not allowed: must be one of'):
    named('forest')
  with pytest.raises(ConfigError, match='numbers=periodic is not allowed'):
    named('linear', 'periodic')
