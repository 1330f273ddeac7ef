"""Forecasts of a series with their bands, against what they should beat.

  python -m launch.train --exp=forecast
  python -m launch.train --exp=forecast --config.model=mlp
  python -m launch.train --exp=forecast --config.dataset=sunspots --config.past=33 \
      --config.horizon=11

A series of your own, a row a step, with dates or without:

  python -m launch.data series own.csv --target=COLUMN --data_dir=DATA
  python -m launch.train --exp=forecast --config.dataset=own --data_dir=DATA

A net sees the last numbers of a series and gives quantiles of each that follows, by the
pinball loss. Two series are embedded, and real: the monthly temperature of the Pacific
off Peru, where El Nino comes every few years, and the yearly sunspots. The first 60 %
are for training, the next 20 % for validation, the last for the test; mean and
deviation are those of the training part. Beside the error stand those of persistence,
of the period before, and of least squares on the same numbers; `coverage` is the share
of the test that lies within the outer quantiles.

Measured: sea temperature, RMSE 0.883 degrees (sd 0.018, 3 seeds), least squares 0.923,
the period before 1.234, persistence 2.961.
"""

import dataclasses
import math

import jax.numpy as jnp

from dlx import experiment, losses, optim
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.sets.series import series, windows
from dlx.models.forecaster import MODELS, Forecaster
from dlx.tasks.forecasting import Forecasts
from dlx.train.supervised import make_predict, supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 150  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 50  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  # sea_temperature, sunspots (both embedded), or the name of a series of your own.
  dataset: str = 'sea_temperature'
  past: int = 24  # Numbers that a forecast sees, one period of the series at least.
  horizon: int = 12  # Numbers that a forecast gives.
  model: str = 'gru'  # linear, mlp, rnn, lstm, gru, reset, relu, peephole or mgu.
  features: tuple[int, ...] = (32,)  # Units of each hidden layer.
  # Levels of the quantiles, rising, an odd number with 0.5 in the middle.
  levels: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
  dropout: float = 0.1  # Share of hidden units dropped in training.
  lr: float = 1e-2  # Peak of the one-cycle learning rate.
  weight_decay: float = 0.01  # Decoupled decay of the kernels.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('past', 'horizon', least=1)
    self.choice('model', of=MODELS)
    self.bounds('features', least=1, some=True)
    self.bounds('levels', above=0, below=1, some=True)
    levels = self.levels
    middle = len(levels) % 2 == 1 and math.isclose(levels[len(levels) // 2], 0.5)
    rising = middle and levels == tuple(sorted(set(levels)))
    self.require('levels', rising, 'rising, an odd number with 0.5 in the middle')
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)
    self.unused('validation', why='the middle of the series is for validation')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(features=(8,), past=12, horizon=3, levels=(0.1, 0.5, 0.9))


def build(config: Config) -> experiment.Experiment:
  chosen = series(config.dataset)
  config.require(
    'past',
    config.past >= chosen.period,
    f'at least {chosen.period}, the period of {chosen.name}',
  )
  cut = windows(chosen, config.past, config.horizon)
  task = Forecasts(chosen, cut, config.levels)
  model = Forecaster(
    config.model,
    config.features,
    config.horizon,
    len(config.levels),
    config.dropout,
    **config.dtypes,
  )
  outputs = make_predict(config, model, inputs='past')
  levels = jnp.asarray(config.levels, jnp.float32)

  def forecast(state, inputs):
    """Of numbers as they were measured, in the unit of the series."""
    past_BW = (inputs['past'] - cut.mean) / cut.std
    found = task.in_units(outputs(state, {'past': past_BW}))
    middle = len(config.levels) // 2
    return {
      'forecast': found[..., middle],
      'low': found[..., 0],
      'high': found[..., -1],
    }

  row = lambda n: experiment.Field('row', (n,), 'float32')
  test = cut.sources['test']
  built = supervised(
    config,
    model=model,
    inputs='past',
    loss=lambda found, batch: losses.pinball(found, batch['future'], levels),
    tx=optim.adamw(
      optim.one_cycle(config.lr, config.num_steps), weight_decay=config.weight_decay
    ),
    train_data=Shuffled(cut.sources['train'], config.batch_size, config.seed),
    eval_data={
      part: InOrder(cut.sources[part], config.eval_batch_size)
      for part in ('validation', 'test')
    },
    metrics=task.sums,
    train_metrics=task.train_sums,
    declared=task.declared,
    headline=('test/rmse', 'test/coverage', 'test/seasonal_rmse', 'test/linear_rmse'),
    functions={
      'forecast': experiment.Function(
        forecast,
        {'past': row(config.past)},
        dict.fromkeys(('forecast', 'low', 'high'), row(config.horizon)),
      )
    },
    figures={
      'forecast': task.band_figure(outputs, InOrder(test, test.size or 1)),
      'error_by_step': task.horizon_figure('test'),
    },
  )
  evals = {
    part: of._replace(summarize=task.summary(part)) for part, of in built.evals.items()
  }
  return built._replace(evals=evals)
