"""Depth or width? Perceptrons of one number of parameters, from shallow to deep.

  python -m launch.train --exp=depth_or_width

The width of each depth is the largest whose parameters are within the budget, so that
depth alone is compared (arXiv:1603.05691 asks the same of other nets). Without batch
norm and without dropout. Expected on small images: a wide net does as well as a deep
one, and the deepest trains worst.

Measured: 97.78 % (sd 0.28, 3 seeds) of one hidden layer, 95.00 % of 16.
"""

import dataclasses

import numpy as np

from dlx.data.sets import images
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS = 'test/accuracy', 'test/loss'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 500  # Optimiser steps of each run.
  budget: int = 50_000  # Parameters that no net exceeds.
  depths: tuple[int, ...] = (1, 2, 4, 8, 16)  # Hidden layers.
  lr: float = 2e-3  # Peak of the one-cycle learning rate.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'budget', least=1)
    self.bounds('depths', least=1)
    self.require(
      'depths',
      self.depths == tuple(sorted(set(self.depths))) and len(self.depths) > 1,
      'two or more whole numbers, rising',
    )
    self.bounds('lr', above=0)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, budget=2000, depths=(1, 3))


def parameters(num_inputs: int, width: int, depth: int, num_outputs: int) -> int:
  """Weights and biases of a perceptron of `depth` hidden layers of one width."""
  first, last = (num_inputs + 1) * width, (width + 1) * num_outputs
  return first + (depth - 1) * (width + 1) * width + last


def widest(num_inputs: int, depth: int, num_outputs: int, budget: int) -> int:
  """The largest width whose net has at most `budget` parameters; 0: there is none."""
  width = 0
  while parameters(num_inputs, width + 1, depth, num_outputs) <= budget:
    width += 1
  return width


def study(config: Config) -> Study:
  data = images.images(config.dataset)
  num_inputs = int(np.prod(data.train.shapes['image'].shape))
  widths = [
    widest(num_inputs, depth, data.num_classes, config.budget)
    for depth in config.depths
  ]
  config.require('budget', min(widths) > 0, 'enough for a net of each depth')
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'dropout': 0.0,
    'input_dropout': 0.0,
    'batch_norm': False,
    'lr': config.lr,
    'log_every_steps': max(1, config.num_steps // 6),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  names = [f'{d}x{w}' for d, w in zip(config.depths, widths, strict=True)]
  settings = {
    name: Run('mlp', {**fields, 'features': (width,) * depth})
    for name, depth, width in zip(names, config.depths, widths, strict=True)
  }
  sizes = [
    parameters(num_inputs, w, d, data.num_classes)
    for d, w in zip(config.depths, widths, strict=True)
  ]

  def equal(results):
    del results  # Known before.
    share = min(sizes) / max(sizes)
    told = ', '.join(f'{n} {s:,}' for n, s in zip(names, sizes, strict=True))
    return Verdict(share >= 0.9, f'Parameters: {told}; least over most {share:.3f}.')

  def figure(results):
    return studies.over_values(
      config.depths,
      {'test': [100 * (1 - results.values(ACCURACY, name)) for name in names]},
      xlabel='Hidden layers',
      ylabel='Test error (%)',
      title=f'About {config.budget:,} parameters each, {config.seeds} seeds',
      log_x=True,
    )

  def rows(results):
    return [
      {
        'hidden layers': depth,
        'width': width,
        'parameters': size,
        **results.row(name, (ACCURACY, LOSS, 'train/loss')),
      }
      for name, depth, width, size in zip(
        names, config.depths, widths, sizes, strict=True
      )
    ]

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS, 'train/loss'),
    rows=rows,
    claims={
      'All nets have the same number of parameters, to a tenth.': equal,
      'The deepest net has a lower test accuracy than the shallowest.': (
        lambda r: r.lower(ACCURACY, names[-1], than=names[0])
      ),
    },
    figures={'error_by_depth': figure},
  )
