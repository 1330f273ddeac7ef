"""Writes WORKDIR/report.html out of what a run has written.

  python -m launch.report --workdir=runs/cnn

Exit status 2: bad input, one line on stderr.
"""

import sys

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, paths


def define(values: flags.FlagValues):
  """The launcher's flags."""
  paths.define(values, 'workdir', None, 'Folder of the run, as in launch.train.')


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  workdir = command_line.parse_alone(argv, define, __doc__ or '').workdir
  if not workdir:
    raise ConfigError('--workdir is missing: name the folder of a run, --workdir=DIR.')
  from etils import epath

  from dlx import report  # Imports NumPy: --help does without.

  if '://' not in workdir and not epath.Path(workdir).is_dir():
    raise ConfigError(f'--workdir={workdir} is no folder: name that of a run.')
  try:
    print(f'wrote {report.render(workdir)}')
  except OSError as error:
    raise ConfigError(f'--workdir={workdir}: {error}.') from None
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
