"""SplitLinear or Linear? Accuracy against parameters, by the number of parts.

  python -m launch.train --exp=split_linear

SplitLinear maps k parts of its input by one small matrix, D F / k^2 weights in place of
D F. Perceptrons of one width are trained with dense layers, with split ones, and with
split ones between which units are dealt out anew (arXiv:1707.01083), so that parts mix;
and for each k a narrower dense net of no more parameters. Each runs at its best of
several rates by held-out examples. Expected: parts that never mix cost accuracy; mixed
ones cost little, and less than narrow layers of as many parameters.

Measured: 4 parts 96.94 % (sd 0.39, 5 seeds), a dense net of as many parameters 96.50 %,
one of as many units 97.72 %; mixing the parts made no difference.
"""

import dataclasses

import numpy as np

from dlx.data.sets import images
from dlx.figures import comparison as figures
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS, CHOSEN_BY = 'test/accuracy', 'test/loss', 'validation/loss'
KINDS = {
  'split': ('split', 'activation'),
  'shuffled': ('split', 'activation', 'shuffle'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 5  # Runs of each setting, which differ in their seed alone.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 300  # Optimiser steps of each run.
  held_out: float = 0.2  # Share of the training examples by which rates are chosen.
  depth: int = 3  # Hidden layers.
  width: int = 256  # Units of each of them.
  parts: tuple[int, ...] = (2, 4, 8)  # Parts of a layer, divisors, rising.
  rates: tuple[float, ...] = (1e-3, 3e-3)  # Peaks of the learning rate, rising.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'depth', 'width', least=1)
    self.bounds('held_out', above=0, below=1)
    self.bounds('parts', least=2, some=True)
    self.bounds('rates', above=0, some=True)
    for name in ('parts', 'rates'):
      values = getattr(self, name)
      self.require(name, values == tuple(sorted(set(values))), 'rising')
    whole = all(self.width % k == 0 for k in self.parts)
    self.require('parts', whole, f'divisors of width={self.width}')


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, depth=2, width=16, parts=(2,), rates=(1e-3,))


def parameters(inputs: int, width: int, depth: int, outputs: int, parts: int = 1):
  """Weights and biases of `depth` hidden layers of k parts, and of a dense head."""
  first, other = inputs // parts + 1, width // parts + 1
  hidden = (first + (depth - 1) * other) * (width // parts)
  return hidden + (width + 1) * outputs


def widest(budget: int, inputs: int, depth: int, outputs: int) -> int:
  """The largest width whose dense net has at most so many parameters, 1 at least."""
  width = 1
  while parameters(inputs, width + 1, depth, outputs) <= budget:
    width += 1
  return width


def study(config: Config) -> Study:
  data = images.images(config.dataset)
  ends = int(np.prod(data.shape)), data.num_classes
  size = lambda width, k=1: parameters(ends[0], width, config.depth, ends[1], k)
  shared = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'validation': config.held_out,
    'depth': config.depth,
    'dropout': 0.0,
    'log_every_steps': max(1, config.num_steps // 4),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  nets, sizes, matched = {}, {}, {}

  def dense(width):
    nets[name := f'dense-{width}'] = {'block': ('dense', 'activation'), 'width': width}
    sizes[name] = size(width)
    return name

  whole = dense(config.width)
  for k in config.parts:
    for kind, block in KINDS.items():
      nets[f'{kind}-{k}'] = {'block': block, 'width': config.width, 'split': k}
      sizes[f'{kind}-{k}'] = size(config.width, k)
    matched[k] = dense(widest(size(config.width, k), ends[0], config.depth, ends[1]))
  group_of = lambda net, rate: f'{net}@{rate:g}'
  settings = {
    group_of(net, rate): Run('hidden_blocks', {**shared, **fields, 'lr': rate})
    for net, fields in nets.items()
    for rate in config.rates
  }

  def best(results, net):
    """The group of a net that has the lowest loss on held-out examples."""
    return results.best(CHOSEN_BY, (group_of(net, rate) for rate in config.rates))

  def more(results, group, than):
    """Points of accuracy over those of another group, with a 95 % interval."""
    found = results.interval(ACCURACY, group, than)
    if found is None:
      return '–'
    difference, low, high = (100 * x for x in (found.difference, found.low, found.high))
    return f'{difference:+.2f} [{low:+.2f}, {high:+.2f}]'

  def higher(net, than):
    def check(results):
      a, b = best(results, net), best(results, than)
      verdict = results.higher(ACCURACY, a, than=b)
      return Verdict(
        verdict.holds,
        f'{verdict.numbers[:-1]}; {sizes[net]:,} and {sizes[than]:,} parameters; '
        f'points, 95 %: {more(results, a, b)}.',
      )

    return check

  def rows(results):
    reference = best(results, whole)
    return [
      {
        'net': net,
        'parameters': f'{sizes[net]:,}',
        'rate': f'{rate:g}',
        'chosen': 'yes' if group_of(net, rate) == best(results, net) else '',
        **results.row(group_of(net, rate), (ACCURACY, LOSS, CHOSEN_BY)),
        f'points over {whole}, 95 %': more(results, group_of(net, rate), reference),
      }
      for net in nets
      for rate in config.rates
    ]

  def figure(results):
    points = []
    for i, net in enumerate(nets):
      values = 100 * results.values(ACCURACY, best(results, net))
      mean = float(values.mean()) if len(values) else 0.0
      sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
      best_yet = all(
        100 * results.mean(ACCURACY, best(results, other)) < mean
        for other in nets
        if other != net and sizes[other] <= sizes[net]
      )
      points.append(
        figures.Point(net, str(i + 1), sizes[net], mean, 0.0, sd, best_yet, i)
      )
    return figures.pareto(
      points,
      title=f'{config.depth} hidden layers, {config.seeds} seeds',
      xlabel='Parameters',
      ylabel='Test accuracy (%)',
    )

  most = config.parts[-1]
  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS, CHOSEN_BY),
    rows=rows,
    claims={
      f'Without mixing, {most} parts have a lower accuracy than one.': (
        higher(whole, f'split-{most}')
      ),
      f'Mixing raises the accuracy of {most} parts.': (
        higher(f'shuffled-{most}', f'split-{most}')
      ),
      **{
        f'With mixing, {k} parts have a higher accuracy than a dense net of no more '
        'parameters.': higher(f'shuffled-{k}', matched[k])
        for k in config.parts
      },
    },
    figures={'accuracy_by_parameters': figure},
  )
