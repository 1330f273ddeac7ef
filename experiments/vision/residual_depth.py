"""Why residual nets? Plain and residual, shallow and deep: errors while they train.

  python -m launch.train --exp=residual_depth
  python -m launch.train --exp=residual_depth --config.dataset=cifar10 \
      --config.depths=20,56 --config.width=16 --config.num_steps=64000 \
      --config.batch_size=128 --config.schedule=steps --config.pad=4 \
      --config.flip=True --data_dir=DATA

Figures 1 and 6 of arXiv 1512.03385: a deeper plain net can do all that a shallow one
can, and yet its training error is higher; with shortcuts it is not. The second line is
the published comparison, 3 seeds of each, and has not been run. Expected: the deeper
plain net has the higher training loss, the deeper residual net has not.

Measured: training loss 0.838 and 0.112 nats with 20 layers (plain, residual).
"""

import dataclasses

from dlx.figures import comparison
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds
from dlx.study.statistics import band

LOSS, TRAINED, ACCURACY = 'train/loss', 'train/accuracy', 'test/accuracy'
KINDS = {'plain': False, 'residual': True}  # Whether blocks have shortcuts.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 120  # Optimiser steps of each run.
  batch_size: int = 32  # Examples of one batch.
  depths: tuple[int, ...] = (8, 20)  # Two depths, rising, each 6 n + 2.
  width: int = 4  # Channels of the first stage; 16 in the paper.
  lr: float = 0.1  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, cosine, or steps: as published.
  pad: int = 0  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'batch_size', 'width', least=1)
    self.require(
      'depths',
      len(self.depths) == 2 and self.depths[0] < self.depths[1],
      'two depths, rising',
    )
    self.bounds('lr', above=0)
    self.bounds('pad', least=0)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, depths=(8, 14), width=2)


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'batch_size': config.batch_size,
    'width': config.width,
    'lr': config.lr,
    'schedule': config.schedule,
    'pad': config.pad,
    'flip': config.flip,
    'log_every_steps': max(1, config.num_steps // 20),
    'eval_every_steps': max(1, config.num_steps // 2),
    'save_every_steps': None,
  }
  shallow, deep = config.depths
  name_of = lambda kind, depth: f'{kind}-{depth}'
  settings = {
    name_of(kind, depth): Run('resnet', {**fields, 'depth': depth, 'skip': skip})
    for kind, skip in KINDS.items()
    for depth in config.depths
  }

  def error(results, metric, title):
    """Mean error over the steps, a band of one deviation."""
    lines = []
    for place, name in enumerate(settings):
      curves = results.curves(metric, name)
      if not curves:  # All of them diverged.
        continue
      found = band([[(s, 100 * (1 - v)) for s, v in curve] for curve in curves])
      lines.append(
        comparison.Line(name, found.step, found.mean, found.low, found.high, place)
      )
    return comparison.curves(
      lines, title=title, ylabel='Error (%)', spread='one standard deviation'
    )

  def no_worse(results):
    """The deeper residual net is not above the shallower one by two errors."""
    names = [name_of('residual', depth) for depth in config.depths]
    higher = results.higher(LOSS, names[1], than=names[0])
    return Verdict(not higher.holds, higher.numbers)

  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, TRAINED, ACCURACY),
    claims={
      'The deeper plain net has the higher training loss.': (
        lambda r: r.higher(LOSS, name_of('plain', deep), than=name_of('plain', shallow))
      ),
      'The deeper residual net has no higher training loss than the other.': no_worse,
      'With shortcuts the deeper net has the lower training loss.': (
        lambda r: r.lower(LOSS, name_of('residual', deep), than=name_of('plain', deep))
      ),
    },
    figures={
      'training_error': lambda r: error(r, TRAINED, 'Training error'),
      'test_error': lambda r: error(r, ACCURACY, 'Test error'),
    },
  )
