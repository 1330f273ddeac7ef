"""Flags that would have no effect: fields of every run that nothing reads.

The loop reads its own fields; these are the experiment's to read, where it is built or
where its functions are traced. Nothing is asked where all have their defaults.
"""

import dataclasses
import sys
from typing import Any, Callable

import jax

from dlx.errors import ConfigError

FIELDS = (
  *('batch_size', 'eval_batch_size', 'micro_batches', 'clip_norm', 'clip_value'),
  *('ema_decay', 'compute_dtype', 'param_dtype', 'stream', 'stream_workers'),
  *('validation', 'curves'),
)


def watched(config: Any) -> tuple[Any, set[str]]:
  """A copy of a config, and the names of the fields that are read of it from now on.

  Copies that `dataclasses.replace` makes of it are watched, too; neither that nor a
  check in `__post_init__` counts as reading.
  """
  seen: set[str] = set()
  checking = []

  class Watched(type(config)):  # type: ignore[misc]
    def __getattribute__(self, name):
      caller = sys._getframe(1).f_globals.get('__name__')
      if not checking and caller != 'dataclasses':
        seen.add(name)
      return super().__getattribute__(name)

    def __post_init__(self):
      checking.append(1)
      super().__post_init__()  # type: ignore[misc]
      checking.pop()

  copy = object.__new__(Watched)
  copy.__dict__.update(vars(config))
  return copy, seen


def without(build: Callable[[Any], Any], config: Any) -> list[str]:
  """Fields of FIELDS that are not at their default and that nothing reads.

  Args:
    build: of the experiment; called once more where one of FIELDS is set.
    config: valid.
  """
  usual = {f.name: f.default for f in dataclasses.fields(config)}
  changed = [name for name in FIELDS if getattr(config, name) != usual[name]]
  if not changed:
    return []
  copy, seen = watched(config)
  experiment = build(copy)
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  for shapes in experiment.train_data.shapes:
    jax.eval_shape(experiment.train_step, state, shapes)
  for evaluation in experiment.evals.values():
    jax.eval_shape(evaluation.step, state, evaluation.data.shapes[0])
  return [name for name in changed if name not in seen]


def check(name: str, build: Callable[[Any], Any], config: Any):
  """Refuses flags without effect.

  Args:
    name: of the experiment, for the message.
    build: of it.
    config: valid.

  Raises:
    ConfigError: names the first field, and who does not read it.
  """
  try:
    silent = without(build, config)
  except ConfigError:
    raise
  except Exception:
    return  # A bug of the experiment's own; the run shows it in full.
  for field in silent:
    raise ConfigError(
      f'--config.{field}={getattr(config, field)} has no effect: {name} does not read '
      'it. Leave it out, or use it in `build`.'
    )
