"""Flags that say which run is opened: its workdir, experiment and checkpoint."""

from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.flags import paths


def define(values: flags.FlagValues, *, trust: bool):
  """--workdir, --exp and --step of a launcher.

  Args:
    values: to which they are added.
    trust: --trust, too, of a launcher that may run the code in the workdir.
  """
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  paths.define(values, 'workdir', None, 'Folder or gs:// address of the run.')
  flags.DEFINE_string(
    'exp',
    None,
    'The experiment, where it lies elsewhere than when the run began: the path of the '
    'fork. Default: as config.json says.',
    **own,
  )
  flags.DEFINE_string(
    'step', 'latest', 'Which checkpoint: latest, best or a number of steps.', **own
  )
  if trust:
    flags.DEFINE_boolean(
      'trust',
      False,
      'Run the code in the workdir, the copy of a fork that is not at hand as it was.',
      **own,
    )


def parse_step(text: str) -> str | int:
  """'latest', 'best' or a number of steps."""
  if text in ('latest', 'best'):
    return text
  if not text.isdecimal():
    raise ConfigError(
      f'--step={text} is not allowed: must be latest, best or a number of steps.'
    )
  return int(text)
