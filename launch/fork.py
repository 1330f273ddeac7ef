"""Copies an experiment or a study as a file of your own, and tells what changed since.

  python -m launch.fork cnn my_cnn.py            the file to edit: --exp=my_cnn.py
  python -m launch.fork my_cnn.py my_other.py    a fork of a fork
  python -m launch.fork --diff my_cnn.py         against its parent, then and today

The copy stands alone: its docstring names the parent and the commit it was copied at,
and nothing is overwritten. --diff prints unified diffs: what you changed, what the
parent changed since, and the fork against the parent of today. Exit status 2: bad
input, one line on stderr.
"""

import pathlib
import sys

from absl import flags

from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from launch.flags import command_line, paths


def define(values: flags.FlagValues):
  """The launcher's flags."""
  paths.define(values, 'diff', None, 'A fork: print what differs from its parent.')


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  from dlx.run import forks

  if values.diff is not None:
    command_line.refuse_words(words)
    print(told(forks.difference(pathlib.Path(values.diff))), end='')
    return 0
  if len(words) != 2:
    known = ', '.join(experiments_by_name.names())
    raise ConfigError(
      f'{" ".join(words)!r} is not allowed: must be NAME PATH, the experiment and the '
      f'new file, or --diff=PATH. NAME is the path of a .py file or one of {known}.'
    )
  name, path = words[0], pathlib.Path(words[1]).expanduser()
  if path.is_dir():
    path = path / f'{pathlib.PurePath(name).stem}.py'
  parent = forks.fork(name, path)
  print(f'{path}: forked from {parent.path}, {parent.kind} {parent.version[:12]}')
  print(f'python -m launch.check --exp={path}')
  print(f'python -m launch.train --exp={path}')
  return 0


def told(found) -> str:
  """The diffs of a `forks.Difference`, each under a line that says what it is."""
  parent = found.parent
  parts = [f'# forked {found.age} from {parent.path}, {parent.kind} {parent.version}\n']
  if found.own is None:
    parts.append(
      '# The parent as it was copied is not at hand: git has no such text.\n'
    )
  else:
    parts.append(f'# your changes:{_or_none(found.own)}')
    parts.append(f'# changes of the parent since:{_or_none(found.upstream)}')
  if found.today is None:
    parts.append(f'# The parent of today is gone: {parent.file} is no file.\n')
  elif found.own is None or found.upstream:
    parts.append(f'# against the parent of today:{_or_none(found.today)}')
  return ''.join(parts)


def _or_none(diff: str | None) -> str:
  """A diff on lines of its own; ' none' where nothing differs or nothing is known."""
  if diff is None:
    return ' unknown\n'
  return f'\n{diff}' if diff else ' none\n'


if __name__ == '__main__':
  sys.exit(main(sys.argv))
