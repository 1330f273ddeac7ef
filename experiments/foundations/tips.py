"""Which tips pay? Each common advice with and without, on equal seeds.

  python -m launch.train --exp=tips
  python -m launch.train --exp=tips --config.only=skip,warmup

A tip is one pair of settings of `softmax_regression`, `gradient_descent`, `mlp`, `cnn`
or `resnet` that differ in what the tip says alone. Its number is how many points of
test accuracy it is worth: with less without, paired by seed, and Student's 95 %
interval. A tip pays where the interval lies above 0, hurts where it lies below; else
these runs do not tell. What is for few examples has a tenth of them.

  simple        a hidden layer less none: what is to be had over the simplest model
  inputs        pixels of mean 0 and deviation 1 less pixels as stored; linear
  shuffling     another order of the examples in each epoch less by class in all
  he            He's initial weights less those of deviation 0.01; ten layers of ReLU
  batch_norm    batch norm less none; ten layers of sigmoids
  conv_norm     batch norm after convolutions less none; few examples
  skip          shortcuts less none; a residual net (arXiv:1512.03385)
  schedule      a rate that falls along a cosine less a constant rate
  averaging     averaged parameters less the last ones; a constant rate
  warmup        warm-up less none; a high rate
  clipping      a gradient norm of 1 at most less any; a high rate
  augmentation  random shifts less none; few examples
  smoothing     smoothed labels less hard ones; few examples
  dropout       half of the hidden units dropped less none; few examples
  decay         decoupled decay less none; few examples
  stopping      stopping early by held-out examples less all steps; few examples

Expected: what makes deep nets trainable (he, batch_norm, skip) pays most; augmentation
pays with few examples; the rest lies within the spread of the seeds.

Measured: points on digits: he 86.11, batch_norm 77.83, simple 5.94, skip 3.33,
shuffling 1.00.
"""

import dataclasses
import math
from typing import Any, Mapping, NamedTuple

from dlx.config_json import config_of_fields
from dlx.figures import comparison
from dlx.run import experiments_by_name
from dlx.study.declaration import Run, Study, StudyConfig, over_seeds
from dlx.study.results import mean_and_sd
from dlx.study.statistics import paired_interval

ACCURACY, LOSS = 'test/accuracy', 'test/loss'
TIPS = (
  *('simple', 'inputs', 'shuffling', 'he', 'batch_norm', 'conv_norm', 'skip'),
  *('schedule', 'averaging', 'warmup', 'clipping', 'augmentation', 'smoothing'),
  *('dropout', 'decay', 'stopping'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 5  # Runs of each setting, which differ in their seed alone.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 300  # Optimiser steps of each run, at most.
  only: tuple[str, ...] = TIPS  # Tips that are tried.
  few: float = 0.9  # Share of the examples held out where a tip is for few of them.
  width: int = 64  # Units of each hidden layer.
  deep: int = 10  # Hidden layers where a tip is for deep nets.
  channels: tuple[int, ...] = (4, 8)  # Channels of the blocks of the CNN.
  resnet_depth: int = 14  # Layers of the residual net, 6 n + 2.
  resnet_width: int = 4  # Channels of its first stage.
  rate: float = 3e-3  # Learning rate, or the peak of its schedule.
  high_rate: float = 0.03  # The same where a tip is for high rates.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'width', 'deep', 'resnet_width', least=1)
    self.bounds('channels', least=1, some=True)
    self.bounds('few', 'rate', 'high_rate', above=0)
    self.bounds('few', below=1)
    known = bool(self.only) and set(self.only) <= set(TIPS)
    once = len(set(self.only)) == len(self.only)
    self.require('only', known and once, f'each once, of {", ".join(TIPS)}')


# The least study that still has every part.
SMALL = Config(
  seeds=2, num_steps=4, only=('simple', 'dropout', 'decay'), width=4, channels=(2,)
)


class Tip(NamedTuple):
  """Two settings of one experiment that differ in what a tip says."""

  without: Run
  tried: Run


def tips(config: Config) -> dict[str, Tip]:
  """All of them by name."""
  every = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'batch_size': 128,
    'log_every_steps': max(1, config.num_steps // 3),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  few = {**every, 'validation': config.few}
  perceptron = {
    'features': (config.width,),
    'batch_norm': False,
    'dropout': 0.0,
    'input_dropout': 0.0,
    'initialiser': 'he_normal',
    'lr': config.rate,
  }
  high = {'schedule': 'constant', 'lr': config.high_rate}
  deep = {**perceptron, 'features': (config.width,) * config.deep}
  sigmoid = {**deep, 'activation': 'sigmoid', 'initialiser': 'xavier_normal'}
  convolutional = {'features': config.channels, 'dense': config.width, 'dropout': 0.0}
  residual = {'depth': config.resnet_depth, 'width': config.resnet_width}

  def pair(exp: str, fields: Mapping[str, Any], **own: tuple[Any, Any]) -> Tip:
    """`own`: values of fields without and with the tip."""
    return Tip(*(
      Run(exp, {**fields, **{name: both[i] for name, both in own.items()}})
      for i in (0, 1)
    ))  # fmt: skip

  steps = max(1, config.num_steps // 30)
  stopping = {'early_stop_metric': 'validation/loss', 'eval_every_steps': steps}
  descent = {**every, 'features': (config.width,)}
  linear = Run('softmax_regression', {**every, 'lr': config.rate})
  mlp, few_mlp = {**every, **perceptron}, {**few, **perceptron}
  few_cnn = {**few, **convolutional}
  return {
    'simple': Tip(linear, Run('mlp', mlp)),
    'inputs': pair('softmax_regression', linear.fields, normalise=(False, True)),
    'shuffling': pair('gradient_descent', descent, shuffle=(False, True)),
    'he': pair('mlp', {**every, **deep}, initialiser=('normal', 'he_normal')),
    'batch_norm': pair('mlp', {**every, **sigmoid}, batch_norm=(False, True)),
    'conv_norm': pair('cnn', few_cnn, batch_norm=(False, True)),
    'skip': pair('resnet', {**every, **residual}, skip=(False, True)),
    'schedule': pair('mlp', mlp, schedule=('constant', 'cosine')),
    'averaging': pair('mlp', {**mlp, 'schedule': 'constant'}, ema_decay=(None, 0.98)),
    'warmup': pair('mlp', {**mlp, **high}, schedule=('constant', 'warmup')),
    'clipping': pair('mlp', {**mlp, **high}, clip_norm=(None, 1.0)),
    'augmentation': pair('cnn', few_cnn, augment=('none', 'shift')),
    'smoothing': pair('cnn', few_cnn, label_smoothing=(0.0, 0.1)),
    'dropout': pair('mlp', few_mlp, dropout=(0.0, 0.5)),
    'decay': pair('mlp', few_mlp, weight_decay=(0.0, 1.0)),
    'stopping': Tip(Run('mlp', few_mlp), Run('mlp', {**few_mlp, **stopping})),
  }


def study(config: Config) -> Study:
  tried = {name: tip for name, tip in tips(config).items() if name in config.only}
  settings: dict[str, Run] = {}
  groups: dict[str, tuple[str, str]] = {}
  names: dict[Any, str] = {}  # Tips with equal settings without them share those runs.
  for place in ('tried', 'without'):
    for name, tip in tried.items():
      run = getattr(tip, place)
      found = experiments_by_name.load(run.exp)
      key = run.exp, config_of_fields(found.config_class, run.fields)
      of = names.setdefault(key, name if place == 'tried' else f'{name}-without')
      settings.setdefault(of, run)
      if place == 'without':
        groups[name] = of, name

  def worth(results, name) -> tuple[float, float, float]:
    """(points, low, high) of a tip; nan where fewer than two pairs are left."""
    without, using = groups[name]
    a, b = results.pairs(ACCURACY, using, without)
    if len(a) < 2:
      return math.nan, math.nan, math.nan
    found = paired_interval(100 * a, 100 * b)
    return found.difference, found.low, found.high

  def told(points, low, high):
    if math.isnan(points):
      return 'diverged'
    return 'pays' if low > 0 else 'hurts' if high < 0 else 'not told'

  def rows(results):
    found = []
    for of in settings:
      values = 100 * results.values(ACCURACY, of)
      spread = values.std(ddof=1) if len(values) > 1 else math.nan
      row = {
        'setting': of,
        **results.row(of, (LOSS,)),
        'accuracy, %': mean_and_sd(values.mean() if len(values) else math.nan, spread),
      }
      if of in groups:
        points, low, high = worth(results, of)
        row |= {
          'without': groups[of][0],
          'worth, points': f'{points:+.2f}',
          '95 % interval': f'{low:+.2f} to {high:+.2f}',
          'the tip': told(points, low, high),
        }
      found.append(row)
    return found

  def figure(results):
    found = {name: worth(results, name) for name in tried}
    sure = {name: x for name, x in found.items() if not math.isnan(x[0])}
    ordered = sorted(sure.items(), key=lambda item: -item[1][0])
    colour = {'pays': 2, 'hurts': 1, 'not told': 6}
    return comparison.intervals(
      dict(ordered),
      title=f'What each tip is worth on {config.dataset}, {config.seeds} seeds',
      xlabel='Points of test accuracy, with less without; 95 % interval',
      places=[colour[told(*x)] for _, x in ordered],
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS),
    rows=rows,
    claims={
      f'The tip {name} raises the test accuracy.': (
        lambda r, of=of: r.higher(ACCURACY, of[1], than=of[0], paired=True)
      )
      for name, of in groups.items()
    },
    figures={'worth_of_tips': figure},
  )
