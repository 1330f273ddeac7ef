"""Where a Config came from: the name and `build` of its experiment, by its module."""

import dataclasses
import pathlib
import re
import shlex
import sys
from typing import Any, Sequence

import jax
import numpy as np

from dlx import beside
from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run.records import command


def name_of(module: str) -> str:
  """What --exp would be given: a name in experiments/, or the path of the file.

  A package of the user's may have the name experiments, too.
  """
  file = getattr(sys.modules.get(module), '__file__', None)
  if file and pathlib.Path(file).is_relative_to(beside.ROOT + '/experiments'):
    return module.rpartition('.')[2]
  return file or 'experiment'


def defaults(config: Config) -> dict[str, Any]:
  """The default Config of this class as JSON; of one without defaults nothing."""
  try:
    return config_to_json(type(config)())
  except TypeError:  # A field without a default.
    return {}


def check_longer(
  experiment: Experiment,
  config: Config,
  module: str,
  former: int,
  path: Any,
  argv: Sequence[str] = (),
):
  """Refuses a larger `num_steps` where a step, or what follows one, depends on it.

  The run with the former number is built once more, and its traced step compared.

  Args:
    former: `num_steps` of the run in `path`.
    argv: of this start, for the command that begins a new run.

  Raises:
    ConfigError: they differ, or the former one cannot be built.
  """
  build = getattr(sys.modules.get(module), 'build', None)
  same = False
  if build is not None and experiment.after_eval is None:
    before = build(dataclasses.replace(config, num_steps=former))
    same = _program(before) == _program(experiment)
  if not same:
    new = f"init_from='{path}' of fit in another workdir."
    if argv:
      new = shlex.join(command.from_parameters(argv, path))
    raise ConfigError(
      f'--config.num_steps={config.num_steps} is more than the {former} of the run in '
      f'{path}, and its steps depend on that number (a schedule, or evaluations that '
      'change the state): --extend goes on by those of the longer run from here on; a '
      f'new run from its parameters begins by {new}'
    )


def _program(experiment: Experiment) -> tuple[str, list[bytes]]:
  """The traced train steps, to compare."""
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  texts, constants = [], []
  for shapes in experiment.train_data.shapes:
    traced = jax.make_jaxpr(experiment.train_step)(state, shapes)
    # Addresses of functions differ from build to build.
    texts.append(re.sub(r'0x[0-9a-f]+', '', str(traced)))
    constants += [np.asarray(c).tobytes() for c in traced.consts]
  return '\n'.join(texts), constants
