"""The convolutional nets side by side: accuracy, parameters, operations and seconds.

  python -m launch.train --exp=cnn_family
  python -m launch.train --exp=cnn_family --config.dataset=cifar10 \
      --config.num_steps=2000 --data_dir=DATA

Each experiment by its own recipe and its own net, as small as it is by default, on the
same data for as many steps. Operations are those of a training step over its batch, as
`launch.plan` counts them; seconds are of a step, without compilation, on the device
that it ran on. The front of Pareto is of the nets that none beats in both.

Measured: to be filled.
"""

import dataclasses
import math

from dlx.figures import comparison, studies
from dlx.study import statistics
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS = 'test/accuracy', 'test/loss'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  # Experiments by name: classifiers of images whose Config has dataset and num_steps.
  experiments: tuple[str, ...] = (
    'cnn',
    'resnet',
    'convnext',
    'mobilenet',
    'efficientnet',
  )
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 300  # Optimiser steps of each run.
  batch_size: int = 64  # Examples of one batch.
  good: float = 0.9  # Test accuracy that every net is claimed to reach.

  def __post_init__(self):
    super().__post_init__()
    names = self.experiments
    self.require('experiments', len(set(names)) == len(names) > 1, 'two or more')
    self.bounds('num_steps', 'batch_size', least=1)
    self.bounds('good', least=0, most=1)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, batch_size=8, experiments=('cnn', 'mlp'))


def study(config: Config) -> Study:
  shared = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'batch_size': config.batch_size,
    'log_every_steps': max(1, config.num_steps // 4),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  runs = over_seeds(config, {name: Run(name, shared) for name in config.experiments})
  # Another size of a test batch gives the same figures, and each run a program of its
  # own, whose seconds are then its own.
  alone = {
    name: run._replace(
      fields={**run.fields, 'eval_batch_size': 128 + run.fields['seed']}
    )
    for name, run in runs.items()
  }

  def all_good(results):
    values = {name: results.mean(ACCURACY, name) for name in config.experiments}
    worst = min(values, key=lambda name: values[name])
    told = ', '.join(f'{name} {100 * value:.2f} %' for name, value in values.items())
    return Verdict(
      bool(values[worst] >= config.good), f'Means of {config.seeds}: {told}.'
    )

  def pareto(cost, xlabel):
    def draw(results):
      known = [n for n in config.experiments if math.isfinite(results.cost(cost, n))]
      if not known:  # Of made-up results.
        accuracies = {n: 100 * results.values(ACCURACY, n) for n in config.experiments}
        return studies.over_groups(
          accuracies, xlabel='Test accuracy (%)', title='Costs are not known'
        )
      costs = [results.cost(cost, name) for name in known]
      qualities = [100 * results.mean(ACCURACY, name) for name in known]
      best = statistics.pareto(costs, qualities, better='higher')
      points = []
      for i, name in enumerate(known):
        sd = 100 * results.sd(ACCURACY, name)
        points.append(
          comparison.Point(
            name,
            str(i + 1),
            costs[i],
            qualities[i],
            0.0,
            0.0 if math.isnan(sd) else sd,
            bool(best[i]),
            i,
          )
        )
      return comparison.pareto(
        points,
        title=f'{config.dataset}, {config.num_steps} steps, {config.seeds} seeds',
        xlabel=xlabel,
        ylabel='Test accuracy (%)',
      )

    return draw

  def rows(results):
    return [
      {
        'net': name,
        **results.row(name, (ACCURACY, LOSS)),
        'parameters': _told(results.cost('parameters', name)),
        'operations a step': _told(results.cost('flops', name)),
        'ms a step': _told(1000 * results.cost('step_seconds', name)),
      }
      for name in config.experiments
    ]

  return Study(
    runs=alone,
    metrics=(ACCURACY, LOSS),
    rows=rows,
    claims={f'Every net has a test accuracy of {config.good:g} or more.': all_good},
    figures={
      'accuracy_by_parameters': pareto('parameters', 'Parameters'),
      'accuracy_by_operations': pareto('flops', 'Operations of a training step'),
      'accuracy_by_seconds': pareto('step_seconds', 'Seconds of a training step'),
    },
  )


def _told(value: float) -> str:
  """Three digits, thousands apart; a dash where it is not known."""
  if math.isnan(value):
    return '–'
  digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
  return f'{float(f"{value:.3g}"):,.{digits}f}'
