"""Writes WORKDIR/report.html out of what a run has written.

python -m launch.report --workdir=runs/cnn
"""

import sys
from typing import NoReturn

from absl import app, flags
from etils import epath

from dlx import report
from dlx.errors import ConfigError

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run, as in launch.train.'
)


def _refuse(message: object) -> NoReturn:
  line = ' '.join(str(message).split())
  print(f'launch.report: {line}', file=sys.stderr)
  sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as e:
    _refuse(e)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    _refuse(f'what is {argv[1]!r}? Everything is a flag: --workdir=DIR.')
  workdir = _WORKDIR.value
  if not workdir:
    _refuse('--workdir is missing: name the folder of a run, --workdir=DIR.')
  try:
    if '://' not in workdir and not epath.Path(workdir).is_dir():
      _refuse(f'--workdir={workdir} is no folder: name that of a run.')
    print(f'wrote {report.render(workdir)}')
  except (ConfigError, OSError) as e:
    _refuse(e)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
