"""Writes WORKDIR/report.html out of what a run has written.

  python -m launch.report --workdir=runs/cnn
"""

import sys

from absl import app
from absl import flags
from etils import epath

from dlx import report
from dlx.errors import ConfigError

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, as in launch.train.')


def _refuse(message: object) -> None:
  line = ' '.join(str(message).split())
  print(f'launch.report: {line}', file=sys.stderr)
  sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as e:
    return _refuse(e) or []


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    _refuse(f'what is {argv[1]!r}? Everything is a flag: --workdir=DIR.')
  if not _WORKDIR.value:
    _refuse('--workdir is missing: name the folder of a run, --workdir=DIR.')
  workdir = epath.Path(_WORKDIR.value)
  try:
    if '://' not in _WORKDIR.value and not workdir.is_dir():
      _refuse(f'--workdir={_WORKDIR.value} is no folder: name that of a run.')
    print(f'wrote {report.render(workdir)}')
  except (ConfigError, OSError) as e:
    _refuse(e)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
