"""A number as a class: in which tenth of all rows does it lie?

  python -m launch.train --exp=label_deciles
  python -m launch.train --exp=label_deciles --config.bins=100 \
      --config.model=ft_transformer --config.lr=3e-4
  python -m launch.train --exp=label_deciles --config.dataset=california_housing \
      --config.num_steps=6000 --config.features=256,256 --config.dropout=0.1 \
      --config.lr=3e-3 --config.weight_decay=0.01 --data_dir=DATA

The target of a regression becomes `bins` classes of as many training rows each, one
more or less: 10 are deciles, 100 percentiles. The edges are quantiles of the rows that
are trained on, and of no others; they lie in the state, fitted before step 0. Equal
targets share a class, so that of repeated ones classes are unequal, and some may have
no row: `filled` counts those that have. Any table of numbers to predict will do,
california_housing and your own, see `tabular`.

Beside accuracy stand `top_k` and `distance`, in bins, of the likeliest class. In the
unit of the target, what is predicted is the mean of the medians of the classes by
their probabilities: `rmse`, `mae`, `r2`. The baseline is least squares on the same
rows, whose prediction lies in some bin: `linear_accuracy`, `linear_distance`,
`linear_rmse`. `--config.ordered` trains one score and thresholds (the proportional odds
model), which knows that class 3 lies between 2 and 4.

`predict` gives the probabilities, `target`, and `low` and `high`, the ends of the
likeliest bin; the outer ends are the least and the greatest training target.

Measured: California housing, deciles: accuracy 46.25 % (1 seed; least squares 27.57).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlx import experiment, labels, losses, metrics, optim
from dlx.data import quantiles
from dlx.data.batches.choose import in_order, parts, training
from dlx.data.sets import columns
from dlx.data.sources import remembered
from dlx.errors import ConfigError
from dlx.models.binned import FITTED, Binned
from dlx.models.table_nets import Tokens
from dlx.precision import EXACT
from dlx.state import Array, Batch, Metric, ratios
from dlx.tasks import classification, tables
from dlx.train.supervised import make_predict, supervised

DISTANCE = Metric(
  'Distance',
  'lower',
  'Mean over the rows of how many bins lie between the likeliest and the true one, 1 '
  'for neighbours.',
  'bins',
  'distance',
)
FILLED = Metric(
  'Filled bins',
  None,
  'How many bins have a training row: fewer than there are where targets are equal.',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 150  # Steps between evaluations; None: at the end.
  dataset: str = 'diabetes'  # diabetes, california_housing, or a set of your own.
  bins: int = (
    10  # Classes of equally many training rows; 10: deciles, 100: percentiles.
  )
  top: int = 3  # Likeliest classes among which top_k looks for the true one.
  ordered: bool = False  # Whether the classes share one score, between thresholds.
  # mlp; ft_transformer; linear: no hidden layer, one-hot categories.
  model: str = 'mlp'
  numbers: str = 'plain'  # How nets read numbers: plain, or periodic (by sines).
  # What a missing number becomes: indicator (the median, and a mark), median, refuse.
  missing: str = 'indicator'
  features: tuple[int, ...] = (64,)  # Widths of the hidden layers of the mlp.
  # Numbers that stand for a category; None: 1.6 n^0.56 of n values; 0: one-hot.
  embedding: int | None = None
  dropout: float = 0.5  # Share of hidden units dropped in training.
  tokens: Tokens = Tokens()
  lr: float = 1e-3  # Peak of the one-cycle learning rate.
  weight_decay: float = 1.0  # Decoupled decay of kernels and embeddings.

  def __post_init__(self):
    super().__post_init__()
    tables.check(self)
    self.choice('missing', of=columns.MISSING)
    self.bounds('bins', least=2, most=10_000)
    self.bounds('top', least=1)
    self.require('top', self.top < self.bins, f'below bins={self.bins}')
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)


# The least run that still has every part.
SMALL = Config.small(features=(32,), dropout=0.1)


def build(config: Config) -> experiment.Experiment:
  data = columns.table(config.dataset, config.missing)
  if data.class_names:
    raise ConfigError(
      f'--config.dataset={config.dataset} is not allowed: must be a table with numbers '
      'to predict, e.g. diabetes; its target is a class already.'
    )
  train, held = parts(data.train, config)
  if train.size is not None and train.size < config.bins:
    raise ConfigError(
      f'--config.bins={config.bins} is not allowed: must be at most the {train.size} '
      'training rows.'
    )
  train, recall = remembered(train)
  passes = {
    split: in_order(x, config.eval_batch_size, config.stream_workers)
    for split, x in {'validation': held, 'test': data.test}.items()
    if x is not None
  }
  bins, names = config.bins, tuple(f'{k + 1}' for k in range(config.bins))

  def start() -> dict[str, Any]:
    """Bins of a normal distribution, and least squares that finds the mean."""
    return fitted_of(quantiles.of_normal(bins), np.zeros(tables.num_inputs(data)), 0.0)

  def fit(state):
    """The state with bins and least squares of the training rows."""
    found = {k: np.asarray(x) for k, x in recall().items()}
    target = found.pop('target')
    kernel, bias = least_squares(tables.inputs(data, found), target)
    made = quantiles.fit(target, bins)
    as_declared = lambda old, new: jnp.asarray(new, old.dtype)
    new = jax.tree.map(
      as_declared, state.model_state[FITTED], fitted_of(made, kernel, bias)
    )
    state = state._replace(model_state={**state.model_state, FITTED: new})
    edges = made.edges * data.target_std + data.target_mean
    return state, {
      'bins': bins,
      'filled': int((made.counts > 0).sum()),
      'edges': [float(f'{x:.7g}') for x in edges],
      'examples': len(target),
    }

  net = tables.net(config, data, 1 if config.ordered else bins)
  model = Binned(net, bins, config.ordered, start)
  prepare = lambda batch: {**batch, 'row': batch}
  outputs = make_predict(config, model, inputs='row', prepare=prepare)
  in_units = lambda scaled: scaled * data.target_std + data.target_mean

  def label(found, batch: Batch) -> Array:
    return quantiles.bin_of(found['edges'], batch['target'])

  def cross_entropy(found, batch):
    return losses.softmax_cross_entropy(found['logits'], label(found, batch))

  def value_of(found) -> Array:
    """[B], in the unit of the target."""
    share_BK = jax.nn.softmax(found['logits'])
    return in_units(jnp.dot(share_BK, found['middle'], precision=EXACT))

  def train_sums(found, batch, weight):
    true_B, logits_BK = label(found, batch), found['logits']
    return {
      'accuracy': metrics.accuracy(logits_BK, true_B, weight),
      'distance': distance(logits_BK.argmax(1), true_B, weight),
    }

  def sums(found, batch, weight):
    true_B, logits_BK = label(found, batch), found['logits']
    linear_B = found['bias'] + jnp.dot(
      tables.inputs(data, batch), found['kernel'], precision=EXACT
    )
    guess_B, target_B = quantiles.bin_of(found['edges'], linear_B), batch['target']
    error_B = jnp.square((linear_B - target_B) * data.target_std)
    filled = jnp.full_like(weight, (found['counts'] > 0).sum())
    hit_B = (guess_B == true_B).astype(jnp.float32)
    return {
      **metrics.classification_sums(logits_BK, true_B, weight),
      'top_k': metrics.top_k(logits_BK, true_B, weight, k=config.top),
      'distance': distance(logits_BK.argmax(1), true_B, weight),
      'value': metrics.regression_sums(
        value_of(found), in_units(target_B), weight, shift=data.target_mean
      ),
      'linear_accuracy': metrics.mean(hit_B, weight),
      'linear_distance': distance(guess_B, true_B, weight),
      'linear_mse': metrics.mean(error_B, weight),
      'filled': metrics.mean(filled, weight),
    }

  def summarize(found):
    of_values = metrics.regression_summary(found['value'])
    of_classes = {k: x for k, x in found.items() if k not in ('value', 'linear_mse')}
    linear = jnp.sqrt(ratios({'mse': found['linear_mse']})['mse'])
    of_classes = metrics.classification_summary(of_classes)
    return {**of_classes, **of_values, 'linear_rmse': linear}

  def predict(state, inputs):
    """Of a row as measured."""
    found = outputs(state, data.fields(inputs))
    logits_BK = found['logits']
    # A wrong code makes all logits nan, and the ends with them.
    known_B = ~jnp.isnan(logits_BK).any(1)
    best_B = jnp.where(known_B, logits_BK.argmax(1), -1)
    low_B, high_B = (
      in_units(labels.rows(found[end], best_B)) for end in ('low', 'high')
    )
    probabilities = jax.nn.softmax(logits_BK)
    return {
      'probabilities': probabilities,
      'target': value_of(found),
      'low': low_B,
      'high': high_B,
    }

  number = experiment.Field('number', (), 'float32')
  built = supervised(
    config,
    model=model,
    inputs='row',
    prepare=prepare,
    loss=cross_entropy,
    tx=optim.adamw(
      optim.one_cycle(config.lr, config.num_steps),
      weight_decay=config.weight_decay,
      mask=tables.decayed,
    ),
    train_data=training(train, config),
    eval_data=passes,
    metrics=sums,
    train_metrics=train_sums,
    summarize=summarize,
    declared=declared(config, data),
    headline=('test/accuracy', 'test/linear_accuracy', 'test/distance'),
    functions={
      'predict': experiment.Function(
        predict,
        tables.fields(data),
        {
          'probabilities': experiment.Field(
            'probabilities', (bins,), 'float32', names=names
          ),
          **dict.fromkeys(('target', 'low', 'high'), number),
        },
      )
    },
    figures={'confusion': classification.confusion(names)},
    overfit=experiment.Overfit(above=0.5, steps=1000),  # Dropout: 0.357; guessing 2.3.
    placement=tables.PLACEMENT,
  )
  return built._replace(warm_start=fit)


def declared(config: Config, data: columns.ColumnData) -> dict[str, Metric]:
  """What is reported."""
  of_values = metrics.regression_metrics(deviation=data.target_std)
  classes = classification.of_classes(config.bins)
  top_k = classes['accuracy']._replace(
    title=f'Top-{config.top} accuracy',
    meaning=f'Share of the rows whose bin is among the {config.top} likeliest.',
    chance=config.top / config.bins,
  )
  beside = ' That of least squares, whose prediction lies in a bin: the baseline.'
  linear = {
    f'linear_{name}': metric._replace(
      title=f'{metric.title} of least squares',
      better=None,
      meaning=metric.meaning.split(',')[0].rstrip('.') + '.' + beside,
      chance=None,
    )
    for name, metric in (
      ('accuracy', classes['accuracy']),
      ('distance', DISTANCE),
      ('rmse', of_values['rmse']),
    )
  }
  return {
    **classes,
    **of_values,
    'top_k': top_k,
    'distance': DISTANCE,
    'filled': FILLED,
    **linear,
  }


def distance(guess_B: Array, true_B: Array, weight_B: Array) -> Any:
  """Mean size of the difference of two bins; nan where the true one is not known."""
  apart_B = jnp.abs(guess_B - true_B).astype(jnp.float32)
  return metrics.mean(jnp.where(true_B < 0, jnp.nan, apart_B), weight_B)


def least_squares(x_NF: Any, target_N: np.ndarray) -> tuple[np.ndarray, float]:
  """Kernel [F] and bias of the least solution, in float64 on the host."""
  x_NF = np.asarray(x_NF, np.float64)
  mean_F, mean = x_NF.mean(0), target_N.mean(dtype=np.float64)
  kernel = np.linalg.lstsq(x_NF - mean_F[None], target_N - mean, rcond=None)[0]
  return kernel, float(mean - mean_F @ kernel)


def fitted_of(bins: quantiles.Bins, kernel: Any, bias: float) -> dict[str, Any]:
  """What lies in the state, float32."""
  found = {**bins._asdict(), 'kernel': kernel, 'bias': bias}
  return {name: np.asarray(x, np.float32) for name, x in found.items()}
