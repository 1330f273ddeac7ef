"""What is augmentation worth with few labels? Shift, rotation, zoom, mixup or none.

  python -m launch.train --exp=augmentation

`cnn` on a fifteenth of the digits, about 100, each training image changed anew at every
step: shifted by a fifth, turned by 20 degrees, zoomed by a fifth, all three at once
(Simard, Steinkraus and Platt 2003), or mixed with another (arXiv:1710.09412). Expected:
all of the geometry help, all at once most, and mixup less.

Measured: 92.06 % without, 94.50 % with shift, 93.22 % all at once (5 seeds).
Of the claims that of shift alone holds: all else lies within two standard errors of
none, on 360 test images of 8 by 8 pixels.
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS = 'test/accuracy', 'test/loss'
NONE, ALL = 'none', 'affine'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 5  # Runs of each setting, which differ in their seed alone.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 600  # Optimiser steps of each run.
  # Augmentations, see dlx/data/images/policies.py; the first is none.
  policies: tuple[str, ...] = (NONE, 'shift', 'rotation', 'zoom', ALL, 'mixup')
  held_out: float = 0.93  # Share of the training examples that are not trained on.
  features: tuple[int, ...] = (16, 32)  # Channels of each block.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', least=1)
    self.require(
      'policies',
      self.policies[:1] == (NONE,)
      and ALL in self.policies
      and len(set(self.policies)) == len(self.policies),
      f'{NONE}, then augmentations by name, {ALL} among them',
    )
    self.bounds('held_out', least=0, below=1)
    self.bounds('features', least=1, some=True)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, policies=(NONE, ALL), features=(4,))


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'validation': config.held_out,
    'features': config.features,
    'log_every_steps': max(1, config.num_steps // 4),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  settings = {name: Run('cnn', {**fields, 'augment': name}) for name in config.policies}
  gain = lambda results, name: (
    100 * (results.mean(ACCURACY, name) - results.mean(ACCURACY, NONE))
  )

  def helps(name):
    return lambda results: results.higher(ACCURACY, name, than=NONE)

  def most(results):
    gains = {name: gain(results, name) for name in config.policies[1:]}
    told = ', '.join(f'{name} {points:+.2f}' for name, points in gains.items())
    return Verdict(
      max(gains, key=lambda name: gains[name]) == ALL,
      f'Points of mean {ACCURACY} over none, {results.mean(ACCURACY, NONE):.4f}: '
      f'{told}.',
    )

  def rows(results):
    return [
      {
        'augmentation': name,
        **results.row(name, (ACCURACY, LOSS)),
        'gain, points': f'{gain(results, name):+.2f}',
      }
      for name in config.policies
    ]

  def figure(results):
    return studies.over_groups(
      {name: 100 * (1 - results.values(ACCURACY, name)) for name in config.policies},
      xlabel='Test error (%)',
      title=f'{100 * (1 - config.held_out):.3g} % of the labels, {config.seeds} seeds',
    )

  claims = {
    f'{name.title()} raises the test accuracy.': helps(name)
    for name in config.policies[1:]
  }
  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS),
    rows=rows,
    claims={**claims, 'Rotation, zoom and shift at once gain most.': most},
    figures={'error_by_augmentation': figure},
  )
