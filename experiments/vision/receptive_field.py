"""What a unit can see, by theory and by gradients, and what it does see, over depth.

  python -m launch.train --exp=receptive_field

`conv_stack` at several depths, before training (one step of a rate that changes no
weight) and after. Expected: gradients find exactly the pixels that the calculator
(dlx/inspect/receptive_field.py) says, (k - 1) n + 1 each way for n layers with filters
of k x k. The effective field (arXiv:1701.04128) is smaller and grows as the root of the
number of layers before training. The paper finds that training enlarges it.

Measured: 16 layers, field 33 pixels, effective 20.11 (sd 0.35, 3 seeds).
"""

import dataclasses

import numpy as np

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

THEORY, MEASURED, EFFECTIVE = (
  f'field/{name}' for name in ('theory', 'measured', 'effective')
)
ACCURACY = 'test/accuracy'
BEFORE, AFTER = 'before', 'after'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 150  # Optimiser steps of each run that is trained.
  batch_size: int = 32  # Examples of one batch.
  depths: tuple[int, ...] = (4, 8, 16)  # Convolutions, rising.
  kernel: int = 3  # Side of the filters, odd.
  features: int = 8  # Channels of each convolution.
  side: int = 33  # Pixels each way to which images are enlarged or reduced.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'batch_size', 'features', least=1)
    rising = self.depths == tuple(sorted(set(self.depths)))
    self.bounds('depths', least=1)
    self.require('depths', rising and len(self.depths) > 1, 'two or more, rising')
    self.require('kernel', self.kernel > 1 and self.kernel % 2 == 1, 'odd, 3 or more')
    least = self.field(max(self.depths))
    self.require('side', self.side >= least, f'{least} or more, what a unit can see')

  def field(self, depth: int) -> int:
    """What a unit of so many layers can see, by the formula."""
    return (self.kernel - 1) * depth + 1


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, batch_size=4, depths=(1, 3), features=4, side=9)


def study(config: Config) -> Study:
  shared = {
    'dataset': config.dataset,
    'batch_size': config.batch_size,
    'kernel': config.kernel,
    'features': config.features,
    'side': config.side,
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  stages = {
    # The length of Adam's first step: below a weight's last bit.
    BEFORE: {'num_steps': 1, 'lr': 1e-12},
    AFTER: {'num_steps': config.num_steps},
  }
  named = lambda when, depth: f'{when}-{depth}'
  settings = {
    named(when, depth): Run('conv_stack', {**shared, **own, 'num_layers': depth})
    for depth in config.depths
    for when, own in stages.items()
  }
  deepest = config.depths[-1]

  def as_theory(results):
    wrong, told = 0, []
    for when in stages:
      for depth in config.depths:
        values = [results.values(x, named(when, depth)) for x in (THEORY, MEASURED)]
        wrong += int((np.stack(values) != config.field(depth)).any(0).sum())
        told.append(f'{named(when, depth)} {values[1].min():g} to {values[1].max():g}')
    return Verdict(wrong == 0, f'{wrong} runs differ; measured: {", ".join(told)}.')

  def exponent(results, metric, when):
    """Slope of log(side) over log(depth), by least squares over the means."""
    sides = [results.mean(metric, named(when, depth)) for depth in config.depths]
    x, y = np.log(config.depths), np.log(np.maximum(sides, 1e-9))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())

  def as_root(results):
    slope = exponent(results, EFFECTIVE, BEFORE)
    theory = exponent(results, THEORY, BEFORE)
    return Verdict(
      abs(slope - 0.5) < abs(slope - theory),
      f'Exponent of the depth {slope:.2f}, of the field by theory {theory:.2f}.',
    )

  def figure(results):
    lines = {
      'theory': [results.values(THEORY, named(BEFORE, d)) for d in config.depths],
      'gradients': [results.values(MEASURED, named(BEFORE, d)) for d in config.depths],
      **{
        f'effective, {when} training': [
          results.values(EFFECTIVE, named(when, depth)) for depth in config.depths
        ]
        for when in stages
      },
    }
    return studies.over_values(
      config.depths,
      lines,
      xlabel=f'Convolutions of {config.kernel} x {config.kernel}',
      ylabel='Side of the field (pixels)',
      title=f'What the middle unit sees, {config.seeds} seeds',
      log_x=True,
      log_y=True,
    )

  def rows(results):
    return [
      {
        'convolutions': depth,
        'training': when,
        **results.row(named(when, depth), (THEORY, MEASURED, EFFECTIVE, ACCURACY)),
      }
      for depth in config.depths
      for when in stages
    ]

  claims = {
    'Theory, gradients and (k - 1) n + 1 agree in every run.': as_theory,
    'Before training the effective field grows as a power of the depth that is nearer '
    '1/2 than that of the field by theory.': as_root,
    'Before training the effective field of the deepest is smaller than by theory.': (
      lambda r: Verdict(
        bool(
          (r.values(EFFECTIVE, named(BEFORE, deepest)) < config.field(deepest)).all()
        ),
        r.told(EFFECTIVE, named(BEFORE, deepest)) + f', of {config.field(deepest)}.',
      )
    ),
    'Training enlarges the effective field of the deepest.': (
      lambda r: r.higher(EFFECTIVE, named(AFTER, deepest), than=named(BEFORE, deepest))
    ),
  }
  return Study(
    runs=over_seeds(config, settings),
    metrics=(THEORY, MEASURED, EFFECTIVE, ACCURACY),
    rows=rows,
    claims=claims,
    figures={'field_by_depth': figure},
  )
