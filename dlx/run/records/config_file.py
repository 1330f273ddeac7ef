"""config.json of a run, read: what another run, or an evaluation, knows of it."""

import json
from typing import Any

from etils import epath

from dlx.errors import ConfigError


def read_run(workdir: Any, flag: str = '') -> dict[str, Any]:
  """config.json of a run: at least `experiment` and `config`; nothing is written.

  Args:
    workdir: of the run.
    flag: by which a user gave it, as in `--workdir=`; stands before it in messages.

  Raises:
    ConfigError: no run is there, or its config.json is none; one line.
  """
  path = epath.Path(workdir) / 'config.json'
  try:
    found = json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    raise ConfigError(
      f'{flag}{workdir} holds no run ({path.name} is missing): give the workdir of a '
      'run that was trained.'
    ) from None
  except json.JSONDecodeError as error:
    raise ConfigError(
      f'{path} is no JSON ({error}): restore it, or take another run.'
    ) from None
  if not isinstance(found, dict) or not {'experiment', 'config'} <= set(found):
    raise ConfigError(f'{path} is not of a run: it must have experiment and config.')
  return found
