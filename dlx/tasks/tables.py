"""What experiments on tables share: the net by its name, the columns that it takes."""

from typing import Any

import flax.linen as nn

from dlx.data.sets.columns import ColumnData
from dlx.errors import ConfigError
from dlx.experiment import Field
from dlx.layers.transformer import matrices
from dlx.models import ft_transformer, table_nets

PLACEMENT = ft_transformer.PLACEMENT  # Other nets have no leaf of these names.
decayed = matrices  # What weight decay is for: kernels and embeddings, by their names.


def net(config: Any, data: ColumnData, num_outputs: int) -> nn.Module:
  """A net over the columns of a table.

  Args:
    config: `model`, `features`, `embedding`, `dropout`, `numbers`, `tokens` and the
      dtypes are read: see `table_nets.net`.
    data: the table.
    num_outputs: K.
  """
  return table_nets.net(
    config.model,
    num_values=[len(category.values) for category in data.categories],
    num_outputs=num_outputs,
    features=config.features,
    embedding=config.embedding,
    dropout=config.dropout,
    numbers=config.numbers,
    tokens=config.tokens,
    **config.dtypes,
  )


def check(config: Any):
  """Refuses fields of `net` that are impossible; for `__post_init__`.

  Raises:
    FieldError: one line.
  """
  config.choice('model', of=table_nets.NETS)
  config.choice('numbers', of=table_nets.NUMBERS)
  if config.model == 'linear':
    config.unused('numbers', why='a linear model takes numbers as they are')
  config.bounds('features', least=1, some=True)
  config.bounds('embedding', least=0)
  config.bounds('dropout', least=0, below=1)


def fields(data: ColumnData) -> dict[str, Field]:
  """The columns that a function `predict` takes.

  Raises:
    ConfigError: a column whose name is that of an argument of `run.predict`.
  """
  if 'resize' in [c.name for c in (*data.numbers, *data.categories)]:
    raise ConfigError(
      f"--config.dataset={data.name} has a column 'resize': rename it, and prepare the "
      'set again.'
    )
  numbers = {
    c.name: Field('column', (), 'float32', since=c.since) for c in data.numbers
  }
  categories = {
    c.name: Field('column', (), 'int32', names=c.values) for c in data.categories
  }
  return {**numbers, **categories}
