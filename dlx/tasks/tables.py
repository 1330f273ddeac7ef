"""What experiments on tables share: net by name, columns, figures of the target."""

from typing import Any, Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import figures, labels, losses, metrics
from dlx.data.batches.resident import InOrder
from dlx.data.sets.columns import ColumnData
from dlx.errors import ConfigError
from dlx.experiment import Field, Figure, Function
from dlx.layers.transformer import matrices
from dlx.models import ft_transformer, table_nets
from dlx.state import Array, Batch, Metric, TrainState
from dlx.tasks import classification
from dlx.tasks.regression import Standardised

Outputs = Callable[[TrainState, Batch], Array]

SQUARED = Metric(
  'Squared error',
  'lower',
  'Mean over the rows of the squared error in standard deviations of the target.',
  '',
  'loss',
)
LINEAR = Metric(
  'Accuracy of least squares',
  None,
  'Share of the test rows whose class least squares on one-hot classes finds, which a '
  'net should beat.',
  '%',
  'share',
)

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


def num_inputs(data: ColumnData) -> int:
  """F of `inputs`."""
  shapes = data.train.shapes
  plain = sum(shapes[k].shape[0] for k in ('number', 'missing') if k in shapes)
  return plain + sum(len(category.values) + 1 for category in data.categories)


def inputs(data: ColumnData, row: Mapping[str, Any]) -> Array:
  """All columns as numbers, float32 [B, F]: for learners that tell no kinds apart.

  Args:
    data: the table.
    row: fields of a batch: `number` standardised, `missing` 0 or 1, `code` one-hot; an
      unknown code, not 0 but out of range, makes its numbers nan.
  """
  found = [jnp.asarray(row[k], jnp.float32) for k in ('number', 'missing') if k in row]
  for i, category in enumerate(data.categories):
    code_B = jnp.asarray(row['code'])[:, i]
    found.append(labels.one_hot(code_B, len(category.values) + 1))
  return jnp.concatenate(found, 1)


def reported(data: ColumnData, outputs: Outputs) -> tuple[dict[str, Any], Callable]:
  """What an experiment that predicts the target of a table is scored by.

  Args:
    data: the table; its target decides: classes or numbers.
    outputs: (state, batch) -> [B, K] logits, or [B, 1] the target standardised.

  Returns:
    Arguments of `supervised` (`loss`, `metrics`, `train_metrics`, `summarize`,
    `declared`, `headline`, `functions`, `figures`), and `summarize` of the test split,
    of which least squares is known.
  """
  return (_classes if data.class_names else _numbers)(data, outputs)


def _numbers(data: ColumnData, outputs: Outputs) -> tuple[dict[str, Any], Callable]:
  """Arguments of `supervised` for a target of numbers, and the summary of the test."""
  target = Standardised(
    data.target_mean, data.target_std, data.baseline['rmse'], data.target_name
  )

  def predict(state, inputs):
    """Of a row as measured, in the unit of the target."""
    return {'target': target.in_units(outputs(state, data.fields(inputs))[:, 0])}

  number = {'target': Field('number', (), 'float32')}
  return dict(
    loss=lambda outputs, batch: losses.squared_error(outputs[:, 0], batch['target']),
    metrics=target.sums,
    train_metrics=target.train_sums,
    summarize=metrics.regression_summary,
    declared={'loss': SQUARED, **target.declared},
    headline=('test/rmse', 'test/r2', 'test/linear_rmse'),
    functions={'predict': Function(predict, fields(data), number)},
    figures={
      'predictions': target.figure(outputs, InOrder(data.test, data.test.size or 1))
    },
  ), target.summary


def _classes(data: ColumnData, outputs: Outputs) -> tuple[dict[str, Any], Callable]:
  """`reported` of classes."""

  def sums(logits, batch, weight):
    label = batch['label']
    bins = metrics.calibration_sums(jax.nn.softmax(logits), label, weight)
    return {**metrics.classification_sums(logits, label, weight), 'bins': bins}

  def summarize(found):
    ece = metrics.calibration_error(found['bins'])
    return {**metrics.classification_summary(found), 'ece': ece}

  def beside_linear(found):
    linear = jnp.float32(data.baseline['accuracy'])
    return {**summarize(found), 'linear_accuracy': linear}

  return dict(
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    metrics=sums,
    train_metrics=lambda logits, batch, weight: {
      'accuracy': metrics.accuracy(logits, batch['label'], weight)
    },
    summarize=summarize,
    declared={
      **classification.of_classes(len(data.class_names)),
      **metrics.CALIBRATION,
      'linear_accuracy': LINEAR,
    },
    headline=('test/accuracy', 'test/linear_accuracy', 'test/loss'),
    functions={
      'predict': classification.class_probabilities(
        lambda state, inputs: outputs(state, data.fields(inputs)),
        fields(data),
        data.class_names,
      )
    },
    figures={
      'confusion': classification.confusion(data.class_names),
      'reliability': Figure(
        lambda found: figures.calibration_diagram({'model': found['bins']}), eval='test'
      ),
    },
  ), beside_linear
