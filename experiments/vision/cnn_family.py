"""The convolutional nets side by side: accuracy, parameters, operations and seconds.

  python -m launch.train --exp=cnn_family
  python -m launch.train --exp=cnn_family --config.dataset=cifar10 \
      --config.small=False --config.num_steps=2000 --config.batch_size=128 \
      --data_dir=DATA

From LeNet to EfficientNet, each experiment by its own recipe on the same data for as
many steps. By default the nets are smaller than those of their experiments, since most
of the time is theirs to compile; `small`=False takes those. Operations are of a
training step over its batch, as `launch.plan` counts them; seconds are of a step,
without compilation, on the device that it ran on, and where runs share a program a
run's share of it. Filled in the figures: no other net is as good for less. Expected:
each learns the set; neither parameters tell accuracy nor operations seconds.

Found: the net of the fewest operations is the fastest; beyond that they tell little.

Measured: digits, vgg 98.98 % (sd 0.42, 3 seeds), inception and resnet 98.52.
"""

import dataclasses
import math

from dlx.figures import comparison, studies
from dlx.study import statistics
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS = 'test/accuracy', 'test/loss'
# Fields of small nets, by experiment.
NETS = {
  'lenet': {},
  'alexnet': {'width': 0.1},
  'vgg': {'width': 4},
  'inception': {'width': 0.125, 'blocks': (1, 1, 1)},
  'resnet': {},
  'densenet': {'depth': 16, 'growth': 8},
  'mobilenet': {'width': 0.25, 'depth': 0.1},
  'efficientnet': {'width': 0.25, 'depth': 0.1},
  'convnext': {'blocks': (1, 1), 'features': (16, 32)},
  'modern_cnn': {'channels': (16, 32, 64)},
  'cnn': {'features': (16, 32), 'dense': 64},
  'cifar_speedrun': {'channels': (32, 64, 64)},
}
# Costs of a step by name, as the axes of figures call them.
COSTS = {
  'parameters': 'Parameters',
  'step_flops': 'Operations of a training step',
  'step_seconds': 'Seconds of a training step',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  # Experiments by name: classifiers of images whose Config has dataset.
  experiments: tuple[str, ...] = tuple(NETS)
  small: bool = True  # Whether nets are small; False: as large as by default.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 200  # Optimiser steps of each run.
  batch_size: int = 64  # Examples of one batch.
  good: float = 0.9  # Test accuracy that every net is claimed to reach.

  def __post_init__(self):
    super().__post_init__()
    names = self.experiments
    self.require('experiments', len(set(names)) == len(names) > 1, 'two or more')
    self.bounds('num_steps', 'batch_size', least=1)
    self.bounds('good', least=0, most=1)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, batch_size=8, experiments=('lenet', 'cnn'))


def study(config: Config) -> Study:
  shared = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'batch_size': config.batch_size,
    'log_every_steps': max(1, config.num_steps // 4),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  sizes = NETS if config.small else {}
  settings = {
    name: Run(name, {**shared, **sizes.get(name, {})}) for name in config.experiments
  }

  def known(results, *costs):
    """Nets of which these costs are known, and the accuracy of a run at least."""
    numbers = lambda name: (
      results.mean(ACCURACY, name),
      *(results.cost(cost, name) for cost in costs),
    )
    return [n for n in config.experiments if all(map(math.isfinite, numbers(n)))]

  def all_good(results):
    values = {name: results.mean(ACCURACY, name) for name in config.experiments}
    told = ', '.join(f'{name} {100 * value:.2f} %' for name, value in values.items())
    reached = [value >= config.good for value in values.values()]
    return Verdict(all(reached), f'Means of {config.seeds} runs: {told}.')

  def not_by_parameters(results):
    """Whether another net than that of the most parameters is the most accurate."""
    names = known(results, 'parameters')
    if not names:
      return Verdict(False, 'Costs are known of 0 nets.')
    largest = max(names, key=lambda name: results.cost('parameters', name))
    best = results.best(ACCURACY, names, better='higher')
    told = ', '.join(
      f'{name} with {_told(results.cost("parameters", name))} parameters has '
      f'{100 * results.mean(ACCURACY, name):.2f} %'
      for name in dict.fromkeys((best, largest))
    )
    return Verdict(best != largest, f'{told}.')

  def not_by_operations(results):
    """Whether the fewest operations and the fewest seconds are of two nets."""
    names = known(results, 'step_flops', 'step_seconds')
    if not names:
      return Verdict(False, 'Costs are known of 0 nets.')
    least = [
      min(names, key=lambda name, cost=cost: results.cost(cost, name))
      for cost in ('step_flops', 'step_seconds')
    ]
    told = ', '.join(
      f'{name} takes {_told(results.cost("step_flops", name))} operations and '
      f'{_told(1000 * results.cost("step_seconds", name))} ms a step'
      for name in dict.fromkeys(least)
    )
    return Verdict(least[0] != least[1], f'{told}.')

  def pareto(results, cost):
    names = known(results, cost)
    if not names:
      return studies.over_groups(
        {name: 100 * results.values(ACCURACY, name) for name in config.experiments},
        xlabel='Test accuracy (%)',
        title=f'{COSTS[cost]}: not known',
      )
    costs = [results.cost(cost, name) for name in names]
    means = [100 * results.mean(ACCURACY, name) for name in names]
    front = statistics.pareto(costs, means, better='higher')
    points = []
    for name, x, y, best in zip(names, costs, means, front, strict=True):
      sd = 100 * results.sd(ACCURACY, name)
      place = config.experiments.index(name)
      spread = 0.0 if math.isnan(sd) else sd
      points.append(
        comparison.Point(name, str(place + 1), x, y, 0.0, spread, bool(best), place)
      )
    return comparison.pareto(
      points,
      title=f'{config.dataset}, {config.num_steps} steps, {config.seeds} seeds',
      xlabel=COSTS[cost],
      ylabel='Test accuracy (%)',
    )

  def rows(results):
    return [
      {
        'net': name,
        **results.row(name, (ACCURACY, LOSS)),
        'parameters': _told(results.cost('parameters', name)),
        'operations a step': _told(results.cost('step_flops', name)),
        'ms a step': _told(1000 * results.cost('step_seconds', name)),
      }
      for name in config.experiments
    ]

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS),
    rows=rows,
    claims={
      f'Every net has a test accuracy of {config.good:g} or more.': all_good,
      'The net of the most parameters is not the most accurate.': not_by_parameters,
      'The net of the fewest operations is not that of the fewest seconds.': (
        not_by_operations
      ),
    },
    figures={
      f'accuracy_by_{cost}': lambda results, cost=cost: pareto(results, cost)
      for cost in COSTS
    },
  )


def _told(value: float) -> str:
  """Three digits, thousands apart; a dash where it is not known."""
  if math.isnan(value):
    return '–'
  digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
  return f'{float(f"{value:.3g}"):,.{digits}f}'
