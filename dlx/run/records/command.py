"""The command of a run, from the words that it was started with."""

import re
from typing import Any, Sequence

# What is asked of one start alone: flags with a value, and switches.
_ONCE = ('stop_at', 'trace_steps'), ('fresh',)
# What is of one workdir besides.
_OF_WORKDIR = ('workdir', 'init_from', 'init_skip'), ('extend', 'data_changed')


def reproduce(argv: Sequence[str]) -> list[str]:
  """The words that train again, or go on: without what was asked of one start alone.

  Args:
    argv: of the run, its program first: the path of launch/train.py.
  """
  return ['python', '-m', 'launch.train', *_without(argv[1:], *_ONCE)]


def from_parameters(argv: Sequence[str], workdir: Any) -> list[str]:
  """The words that start a new run from the parameters of a run.

  Args:
    argv: of a start that was refused.
    workdir: of that run.
  """
  flags, switches = (a + b for a, b in zip(_ONCE, _OF_WORKDIR, strict=True))
  kept = _without(argv[1:], flags, switches)
  new = f'--workdir={workdir}_longer', f'--init_from={workdir}'
  return ['python', '-m', 'launch.train', *kept, *new]


def _without(words: Sequence[str], flags: Sequence[str], switches: Sequence[str]):
  """Words without some flags: their values, too, where those stand apart."""
  names = '|'.join(flags), '|'.join(switches)
  kept, skipped = [], False
  for word in words:
    dropped = re.match(r'--?(?:({})|(?:no)?(?:{}))(=|$)'.format(*names), word)
    if not dropped and not skipped:
      kept.append(word)
    skipped = bool(dropped and dropped[1] and not dropped[2])
  return kept
