"""How far back does a recurrent net learn? The gradient against the lag, by cell.

  python -m launch.train --exp=vanishing_in_time

`long_range` asks for a language that a country named some words before decides: "I grew
up in France ... I speak fluent". RNN, LSTM and GRU learn it at several lags. Before
training and after it the gradient is measured: how much the answer depends on the
country, over how much it depends on the last word (Bengio, Simard and Frasconi 1994,
doi:10.1109/72.279181; arXiv:1211.5063). Expected: the gradient of every cell falls as
a power of the lag before training; gated cells learn to keep the country, and their
gradient, where the plain one does not.
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY, SHARE = 'test/accuracy', 'gradients/country'
CELLS = ('rnn', 'lstm', 'gru')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 2  # Runs of each setting, which differ in their seed alone.
  num_steps: int = 600  # Optimiser steps of each run.
  lags: tuple[int, ...] = (5, 15, 30)  # Words from the country to the end, rising.
  units: int = 32  # Units of each cell.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'units', least=1)
    self.bounds('lags', least=4, some=True)
    rising = self.lags == tuple(sorted(set(self.lags)))
    self.require('lags', rising, 'rising whole numbers')


# The least study that still has every part.
SMALL = Config(num_steps=6, lags=(5,), units=8)


def study(config: Config) -> Study:
  named = lambda cell, lag: f'{cell},lag={lag}'
  settings = {
    named(cell, lag): Run(
      'long_range',
      {
        'cell': cell,
        'lag': lag,
        'num_steps': config.num_steps,
        'features': config.units,
        'distances': (1,),
        'eval_at_start': True,
        'eval_every_steps': None,
      },
    )
    for cell in CELLS
    for lag in config.lags
  }
  longest = config.lags[-1]

  def at_first(results, group):
    """The gradient of the country before training, a number a run."""
    return [curve[0][1] for curve in results.curves(SHARE, group)]

  def known(cells):
    def judge(results):
      groups = [named(cell, lag) for cell in cells for lag in config.lags]
      least = min(results.values(ACCURACY, group).min(initial=1) for group in groups)
      told = '; '.join(results.told(ACCURACY, group) for group in groups)
      return Verdict(bool(least >= 0.99), f'{told}; least {least:.3g}, asked 0.99.')

    return judge

  def vanishes(results):
    first, last = config.lags[0], config.lags[-1]
    found = {
      cell: [
        max(at_first(results, named(cell, lag)), default=1) for lag in (first, last)
      ]
      for cell in CELLS
    }
    told = ', '.join(f'{cell} {a:.2g} and {b:.2g}' for cell, (a, b) in found.items())
    holds = first == last or all(b < a for a, b in found.values())
    return Verdict(holds, f'At lags {first} and {last}, at most: {told}.')

  def figure(metric, ylabel, log, first=False):
    values = at_first if first else lambda results, group: results.values(metric, group)

    def draw(results):
      return studies.over_values(
        config.lags,
        {
          cell: [values(results, named(cell, lag)) for lag in config.lags]
          for cell in CELLS
        },
        xlabel='Words from the country to the end',
        ylabel=ylabel,
        title=f'{config.units} units, {config.seeds} seeds',
        log_y=log,
      )

    return draw

  def rows(results):
    mean = lambda values: sum(values) / len(values) if values else float('nan')
    return [
      {
        'cell': cell,
        'lag': lag,
        **results.row(named(cell, lag), (ACCURACY,)),
        'gradient before': f'{mean(at_first(results, named(cell, lag))):.2g}',
        'gradient after': f'{results.mean(SHARE, named(cell, lag)):.2g}',
      }
      for cell in CELLS
      for lag in config.lags
    ]

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, SHARE),
    claims={
      'Before training the gradient of the country falls from the least lag to the '
      'largest, in every cell.': vanishes,
      'LSTM and GRU know the language at every lag.': known(('lstm', 'gru')),
      f'At lag {longest} GRU knows it more often than the RNN.': (
        lambda r: r.higher(ACCURACY, named('gru', longest), than=named('rnn', longest))
      ),
      f'At lag {longest} LSTM knows it more often than the RNN.': (
        lambda r: r.higher(ACCURACY, named('lstm', longest), than=named('rnn', longest))
      ),
    },
    figures={
      'accuracy': figure(ACCURACY, 'Right languages (share)', False),
      'gradient_before': figure(SHARE, 'Gradient of the country, before', True, True),
      'gradient_after': figure(SHARE, 'Gradient of the country, after', True),
    },
    rows=rows,
  )
