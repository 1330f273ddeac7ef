"""Which schedule of the learning rate? Each by name, at several peaks, on one net.

  python -m launch.train --exp=schedules

The multilayer perceptron, with batch norm and dropout, is trained for equal steps by
a rate that is constant, falls in steps, along half a cosine, in one cycle
(arXiv:1708.07120), or after a warm-up (arXiv:1706.02677); the peak of each is chosen on
held-out examples. The runs of one schedule, all peaks and seeds, are one program.
Expected: a rate that falls ends lower than a constant one, most of all from high peaks.

Measured: cosine 0.0791 nats (sd 0.0046, 4 seeds), constant 0.0901; warm-up: no gain.
"""

import dataclasses

from dlx import optim
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, over_seeds

LOSS, CHOSEN_BY = 'test/loss', 'validation/loss'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 4  # Runs of each schedule and peak, which differ in their seed alone.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 400  # Optimiser steps of each run.
  held_out: float = 0.2  # Share of the training examples by which the peak is chosen.
  # Schedules by name; constant and cosine are among them.
  schedules: tuple[str, ...] = (
    'constant',
    'step',
    'cosine',
    'one_cycle',
    'warmup_cosine',
  )
  rates: tuple[float, ...] = (1e-3, 1e-2, 3e-2, 1e-1)  # Peaks, rising.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', least=1)
    self.bounds('held_out', above=0, below=1)
    self.bounds('rates', above=0, some=True)
    self.require('rates', self.rates == tuple(sorted(set(self.rates))), 'rising')
    named = set(self.schedules)
    self.require(
      'schedules',
      {'constant', 'cosine'} <= named <= set(optim.SCHEDULES),
      f'some of {", ".join(optim.SCHEDULES)}, with constant and cosine',
    )


# The least study that still has every part.
SMALL = Config(
  seeds=2, num_steps=6, schedules=('constant', 'cosine'), rates=(1e-3, 1e-2)
)


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'validation': config.held_out,
    'features': (64, 64),
    'batch_size': 64,
    'log_every_steps': max(1, config.num_steps // 8),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  name_of = lambda schedule, rate: f'{schedule}@{rate:g}'
  settings = {
    name_of(schedule, rate): Run('mlp', {**fields, 'schedule': schedule, 'lr': rate})
    for schedule in config.schedules
    for rate in config.rates
  }
  highest = config.rates[-1]

  def best(results, schedule):
    """A schedule at its best peak, by the examples that were held out."""
    return results.best(CHOSEN_BY, (name_of(schedule, rate) for rate in config.rates))

  def figure(results):
    lines = {
      schedule: [results.values(LOSS, name_of(schedule, rate)) for rate in config.rates]
      for schedule in config.schedules
    }
    return studies.over_values(
      config.rates,
      lines,
      xlabel='Peak of the learning rate',
      ylabel='Test loss after training (nats)',
      title=f'{config.num_steps} steps, {config.seeds} seeds each',
      log_x=True,
      log_y=True,
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, 'test/accuracy', CHOSEN_BY),
    claims={
      'At its best peak the cosine has a lower test loss than a constant rate.': (
        lambda r: r.lower(LOSS, best(r, 'cosine'), than=best(r, 'constant'))
      ),
      **{
        f'At the highest peak {name} has a lower test loss than a constant rate.': (
          lambda r, name=name: r.lower(
            LOSS, name_of(name, highest), than=name_of('constant', highest)
          )
        )
        for name in config.schedules
        if name != 'constant'
      },
    },
    figures={'loss_by_peak': figure},
  )
