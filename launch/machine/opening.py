"""A run that flags name, opened on the devices of this machine."""

from typing import Any, Mapping

from dlx.errors import ConfigError
from launch.flags import opened
from launch.machine import devices


def start(values: Any) -> Any:
  """The run that the flags name, as `dlx.open` gives it, and JAX as it needs it.

  Args:
    values: of `opened.define` with trust, of --data_dir, and of `devices.define`.

  Raises:
    ConfigError: no --workdir, or its code may not run.
  """
  if not values.workdir:
    raise ConfigError('--workdir is missing: must be the folder of a run.')
  import dlx

  run = dlx.open(
    values.workdir,
    step=opened.parse_step(values.step),
    exp=values.exp,
    trust=values.trust,
    data_dir=values.data_dir,
  )
  if isinstance(run.config, Mapping):
    _ = run.experiment  # Raises: its code may not run.
  devices.start_jax(run.config, values)
  return run
