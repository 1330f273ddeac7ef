"""How far back need a gradient go? Truncated BPTT by its window: loss, memory, time.

  python -m launch.train --exp=tbptt_window

`char_rnn` with one layer of GRUs, whose gradient ends after `windows` characters while
the state is carried on (Williams and Peng 1990). A step reads as many characters
whatever the window is, in fewer and longer rows: every run has as many steps and reads
as much text. Memory is what a row of the batch keeps for the way back. Expected: memory
grows as the window does, the loss falls until the window is as long as what the net has
learnt to remember, and a step takes longer, as fewer rows go through it side by side.

Measured: windows of 2, 8, 32, 128 characters 1.297, 1.297, 1.304, 1.333 nats (2 seeds).
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

LOSS, KEPT = 'validation/loss', 'train/kept'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'pydoc'  # pydoc (embedded), tiny_shakespeare, or a text of your own.
  num_steps: int = 300  # Optimiser steps of each run.
  characters: int = 1024  # Characters of a step, rows times window.
  # Characters of a window, rising divisors of characters.
  windows: tuple[int, ...] = (2, 8, 32, 128)
  units: int = 64  # Units of the layer.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'characters', 'units', least=1)
    self.bounds('windows', least=1, some=True)
    fits = all(self.characters % window == 0 for window in self.windows)
    rising = self.windows == tuple(sorted(set(self.windows)))
    allowed = f'rising divisors of characters={self.characters}, two or more'
    self.require('windows', fits and rising and len(self.windows) > 1, allowed)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, characters=64, windows=(4, 16), units=8)


def study(config: Config) -> Study:
  named = lambda window: f'k={window}'
  settings = {
    named(window): Run(
      'char_rnn',
      {
        'dataset': config.dataset,
        'num_steps': config.num_steps,
        'window': window,
        'batch_size': config.characters // window,
        'cell': 'gru',
        'features': (config.units,),
        'embedding': 32,
        'eval_rows': 40,
        'eval_every_steps': None,
        'memory': True,
      },
    )
    for window in config.windows
  }
  shortest, longest = config.windows[0], config.windows[-1]

  def memory(results):
    """A straight line through the two ends goes through all between, to 1 %."""
    kept = {k: results.mean(KEPT, named(k)) for k in config.windows}
    slope = (kept[longest] - kept[shortest]) / (longest - shortest)
    share = lambda k: (kept[shortest] + slope * (k - shortest)) / kept[k] - 1
    off = max(abs(share(k)) for k in config.windows)
    told = ', '.join(f'{k}: {kept[k]:.0f}' for k in config.windows)
    return Verdict(
      slope > 0 and off < 0.01,
      f'Bytes by window {told}; {slope:.0f} a character; off a line by {off:.1%}.',
    )

  def figure(values, ylabel, log_y):
    def draw(results):
      return studies.over_values(
        config.windows,
        {'GRU': [values(results, named(k)) for k in config.windows]},
        xlabel='Window (characters)',
        ylabel=ylabel,
        title=f'{config.num_steps} steps of {config.characters} characters',
        log_x=True,
        log_y=log_y,
      )

    return draw

  def rows(results):
    return [
      {
        'window': k,
        **results.row(named(k), (LOSS,)),
        'kept bytes a row': round(results.mean(KEPT, named(k))),
        'ms a step': f'{1e3 * results.cost("step_seconds", named(k)):.1f}',
      }
      for k in config.windows
    ]

  of = lambda metric: lambda results, group: results.values(metric, group)
  time = lambda results, group: [1e3 * results.cost('step_seconds', group)]
  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, KEPT),
    claims={
      f'A window of {longest} has a lower loss than one of {shortest}.': (
        lambda r: r.lower(LOSS, named(longest), than=named(shortest))
      ),
      'What a row keeps for the way back grows by the same with every character.': (
        memory
      ),
    },
    figures={
      'loss': figure(of(LOSS), 'Validation loss (nats a character)', False),
      'memory': figure(of(KEPT), 'Kept for the way back (bytes a row)', True),
      'time': figure(time, 'A step (ms)', True),
    },
    rows=rows,
  )
