"""What clipping is for: a recurrent net whose gradients grow as they go back in time.

  python -m launch.train --exp=exploding_gradients

The net of `temporal_order`, its recurrent kernel orthogonal times 1 or 2 before the
first step, learns by plain gradient descent at several rates, with the gradient's norm
clipped to 1 and without (arXiv:1211.5063). tanh bounds its state, so that a run does
not overflow: it diverges in that one step throws its weights to where it is worse than
guessing, and nothing brings it back. Expected: at gain 2, and the rate that is best
with clipping, that is what happens without. At rate 1 clipping is not enough either:
steps of norm 1 are too long.

Measured: test loss 0.00019 nats with clipping, 2.55 without, at gain 2 and that rate.
Of 24 runs each 18 solve the task with clipping, 7 without. Gain 1 ends alike: in
training the weights grow by themselves.
"""

import dataclasses
import math

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, LOSS = 'test/accuracy', 'test/loss'
GUESSING = math.log(4)  # Loss of the same probability for each of four classes.
SOLVED = 0.99


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  num_steps: int = 2000  # Optimiser steps of each run.
  length: int = 20  # Symbols of a sequence.
  gains: tuple[float, ...] = (1.0, 2.0)  # Of the recurrent kernel, rising.
  rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)  # Learning rates, rising.
  clip_norm: float = 1.0  # Largest norm of the gradient, where it is clipped.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', least=1)
    self.bounds('length', least=10)
    self.bounds('gains', 'rates', above=0, some=True)
    for name in ('gains', 'rates'):
      values = getattr(self, name)
      self.require(name, values == tuple(sorted(set(values))), 'rising numbers')
    self.bounds('clip_norm', above=0)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, gains=(2.0,), rates=(0.1, 1.0))


def study(config: Config) -> Study:
  clips = {'free': None, 'clipped': config.clip_norm}
  named = lambda clip, gain, rate: f'{clip},gain={gain:g},lr={rate:g}'
  settings = {
    named(clip, gain, rate): Run(
      'temporal_order',
      {
        'num_steps': config.num_steps,
        'length': config.length,
        'log_every_steps': max(1, config.num_steps // 4),
        'clip_norm': norm,
        'gain': gain,
        'lr': rate,
      },
    )
    for clip, norm in clips.items()
    for gain in config.gains
    for rate in config.rates
  }
  gain = config.gains[-1]

  def best(results):
    """The rate of the lowest loss with clipping, at the largest gain."""
    rate_of = {named('clipped', gain, rate): rate for rate in config.rates}
    return rate_of[results.best(LOSS, rate_of)]

  def lost(results):
    name = named('free', gain, best(results))
    losses = results.values(LOSS, name)
    above = int((losses >= GUESSING).sum()) + results.num_diverged(name)
    return Verdict(
      above == config.seeds,
      f'Of {config.seeds} runs {above} end at or above {GUESSING:.3f} nats, the loss '
      f'of guessing; {LOSS} of {results.told(LOSS, name)}.',
    )

  def solved(results):
    name = named('clipped', gain, best(results))
    count = int((results.values(ACCURACY, name) >= SOLVED).sum())
    return Verdict(
      count == config.seeds,
      f'Of {config.seeds} runs {count} have an accuracy of {SOLVED} at least; '
      f'{ACCURACY} of {results.told(ACCURACY, name)}.',
    )

  def wider(results):
    counts = {
      clip: sum(
        int((results.values(ACCURACY, named(clip, g, r)) >= SOLVED).sum())
        for g in config.gains
        for r in config.rates
      )
      for clip in clips
    }
    total = config.seeds * len(config.gains) * len(config.rates)
    return Verdict(
      counts['clipped'] > counts['free'],
      f'Of {total} runs each {counts["clipped"]} solve the task with clipping, '
      f'{counts["free"]} without.',
    )

  def figure(results):
    return studies.over_values(
      config.rates,
      {
        f'gain {g:g}, {label}': [
          results.values(LOSS, named(clip, g, r)) for r in config.rates
        ]
        for g in config.gains
        for clip, label in (('free', 'unclipped'), ('clipped', 'clipped'))
      },
      xlabel='Learning rate',
      ylabel='Test loss (nats; guessing: 1.39)',
      title=f'{config.length} symbols, {config.seeds} seeds',
      log_x=True,
      log_y=True,
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, LOSS),
    claims={
      f'At gain {gain:g} and the rate that is best with clipping, every run with '
      'clipping solves the task.': solved,
      'There no run without clipping beats guessing.': lost,
      'Over all gains and rates more runs solve the task with clipping.': wider,
    },
    figures={'loss_by_rate': figure},
  )
