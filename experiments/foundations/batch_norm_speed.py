"""How many steps does batch norm save? Two perceptrons with and without it.

  python -m launch.train --exp=batch_norm_speed
  python -m launch.train --exp=batch_norm_speed --config.dataset=mnist --data_dir=DATA

The net of three layers of 100 sigmoids of arXiv:1502.03167, figure 1a, and a deeper one
of ReLUs, by plain SGD at a constant rate. The level is the accuracy that every net
without batch norm has reached by the end at its best rate; steps to it are counted of
each net at its own best rate, both chosen on held-out examples. Expected: with batch
norm it takes less than half of the steps.

Measured: sigmoids 86.7 steps in place of 530.0, ReLUs 90.0 of 243.3 (3 seeds).
"""

import dataclasses
import math

from dlx.figures import comparison as figures
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds
from dlx.study.statistics import band

ACCURACY, CHOSEN_BY = 'test/accuracy', 'validation/accuracy'
WITH, WITHOUT = 'with', 'without'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 1000  # Optimiser steps of each run.
  every: int = 10  # Steps between evaluations: how exactly steps are counted.
  held_out: float = 0.2  # Share of the training examples by which rates are chosen.
  rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)  # Of SGD, rising.
  sigmoid_depth: int = 3  # Hidden layers of the net of sigmoids.
  sigmoid_width: int = 100  # Units of each of them.
  relu_depth: int = 10  # Hidden layers of the net of ReLUs.
  relu_width: int = 64  # Units of each of them.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'every', least=1)
    self.require('every', self.num_steps % self.every == 0, 'a divisor of num_steps')
    self.bounds('held_out', above=0, below=1)
    self.bounds('rates', above=0, some=True)
    self.require('rates', self.rates == tuple(sorted(set(self.rates))), 'rising')
    for name in ('sigmoid', 'relu'):
      self.bounds(f'{name}_depth', f'{name}_width', least=1)


# The least study that still has every part.
SMALL = Config(
  seeds=2,
  num_steps=6,
  every=3,
  rates=(0.1, 1.0),
  sigmoid_depth=1,
  sigmoid_width=8,
  relu_depth=1,
  relu_width=8,
)


def study(config: Config) -> Study:
  shared = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'validation': config.held_out,
    'optimizer': 'sgd',
    'schedule': 'constant',
    'log_every_steps': config.every,
    'eval_every_steps': config.every,
    'save_every_steps': None,
  }
  nets = {
    'sigmoid': {
      'activation': 'sigmoid',
      'initialiser': 'xavier_normal',
      'depth': config.sigmoid_depth,
      'width': config.sigmoid_width,
    },
    'ReLU': {
      'activation': 'relu',
      'initialiser': 'he_normal',
      'depth': config.relu_depth,
      'width': config.relu_width,
    },
  }
  blocks = {
    WITHOUT: ('dense', 'activation'),
    WITH: ('dense', 'batch_norm', 'activation'),
  }
  name_of = lambda net, norm, rate: f'{net}-{norm}@{rate:g}'
  settings = {
    name_of(net, norm, rate): Run(
      'hidden_blocks', {**shared, **fields, 'block': block, 'lr': rate}
    )
    for net, fields in nets.items()
    for norm, block in blocks.items()
    for rate in config.rates
  }

  def of_rates(results, net, norm):
    """Names by rate, without those of which a run diverged, if that leaves any."""
    names = [name_of(net, norm, rate) for rate in config.rates]
    return [name for name in names if not results.num_diverged(name)] or names

  def level(results, net, metric):
    """What every net without batch norm reaches at the rate that ends best."""
    names = of_rates(results, net, WITHOUT)
    best = results.best(CHOSEN_BY, names, better='higher')
    curves = results.curves(metric, best)
    return min((max(value for _, value in c) for c in curves), default=math.nan)

  def steps(results, net, name, metric):
    return results.steps_to(metric, name, level(results, net, metric))

  def mean(steps_K):
    """inf where one never comes there, or there is none."""
    return float(steps_K.mean()) if len(steps_K) else math.inf

  def fastest(results, net, norm):
    """The rate of the fewest steps, by the examples that were held out."""
    names = of_rates(results, net, norm)
    return min(names, key=lambda name: mean(steps(results, net, name, CHOSEN_BY)))

  def halves(net):
    def check(results):
      found = {norm: fastest(results, net, norm) for norm in blocks}
      taken = {k: steps(results, net, name, ACCURACY) for k, name in found.items()}
      told = '; '.join(
        f'{found[norm]}: {mean(taken[norm]):.4g} steps '
        f'({", ".join(f"{x:g}" for x in taken[norm])})'
        for norm in blocks
      )
      ratio = mean(taken[WITHOUT]) / mean(taken[WITH])  # nan of two infinities.
      return Verdict(
        bool(ratio >= 2),
        f'{ACCURACY} of {level(results, net, ACCURACY):.4g}: {told}; {ratio:.3g} times '
        'fewer.',
      )

    return check

  def rows(results):
    found = []
    for net in nets:
      for norm in blocks:
        for rate in config.rates:
          name = name_of(net, norm, rate)
          taken = steps(results, net, name, ACCURACY)
          found.append(
            {
              'net': net,
              'batch norm': norm,
              'rate': f'{rate:g}',
              'steps to the level': f'{mean(taken):.4g}' if len(taken) else '–',
              **results.row(name, (ACCURACY, CHOSEN_BY)),
            }
          )
    return found

  def figure(results):
    lines = []
    for net in nets:
      for norm in blocks:
        name = fastest(results, net, norm)
        found = band(results.curves(ACCURACY, name))
        mean, low, high = (100 * x for x in (found.mean, found.low, found.high))
        lines.append(figures.Line(name, found.step, mean, low, high, len(lines)))
    return figures.curves(
      lines,
      title=f'Each at its fastest rate, {config.seeds} seeds',
      ylabel='Test accuracy (%)',
      spread='one standard deviation',
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, CHOSEN_BY, 'test/loss'),
    rows=rows,
    claims={
      f'With batch norm the net of {net}s reaches the accuracy of the net without in '
      'half of the steps or fewer.': halves(net)
      for net in nets
    },
    figures={'accuracy': figure},
  )
