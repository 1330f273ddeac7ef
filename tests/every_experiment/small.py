"""The least run of an experiment with every part, for the tests of all of them."""

import dataclasses
import importlib
import types
from typing import Any

from launch.flags import experiments_by_name

# Where a module has no SMALL, its defaults but for these fields, in so far as it has
# them with a default of that type, or None. First: less work for evaluations, figures.
LESS = {
  'batch_size': 16,
  'num_samples': 32,
  'sample_steps': 3,
  'probe_labels': 200,
  'probe_test': 64,
}
# Besides: nets that compile in a second.
NETS = {
  'num_layers': 2,
  'width': 16,
  'context': 16,
  'channels': (16,),
  'features': (8, 8),
  'strides': (2, 2),
  'dense': 16,
  'groups': 4,
  'hidden': 16,
  'projection': 8,
  'queue': 32,
  'embedding': 8,
  'latents': 4,
  'length': 10,
  'examples': 64,
  'window': 4,
  'teacher_features': (8,),
  'teacher_dense': 16,
  'generator_width': 8,
  'discriminator_width': 8,
  'members': 2,
  'noise': 8,
  # Several phases: each is seen.
  'judge_steps': 2,
  'teacher_steps': 2,
  'pretrain_steps': 2,
  'warmup_steps': 2,
}
# What the fields above leave unseen, or cannot be with others.
FIELDS: dict[str, dict[str, Any]] = {
  'adding': {'features': (8,)},
  'sst2': {'features': (8,)},
  'cnn': {'features': (4, 8)},
  'ensemble': {'features': (8,), 'labels': 200},
}


def load(name: str) -> types.ModuleType:
  """The module of an experiment."""
  return importlib.import_module(experiments_by_name.module_name(name))


def _known(name: str, fields: dict[str, Any]) -> dict[str, Any]:
  defaults = {f.name: f.default for f in dataclasses.fields(load(name).Config)}
  return {
    key: value
    for key, value in fields.items()
    if key in defaults and isinstance(defaults[key], type(value) | None)
  }


def own(name: str, **fields: Any) -> Any:
  """The default net, with less work for evaluations and figures, and `fields`."""
  return load(name).Config(**{**_known(name, LESS), **fields})


def small(name: str, **fields: Any) -> Any:
  """The experiment's SMALL, or what stands above for it, with `fields` on top."""
  found = getattr(load(name), 'SMALL', None)
  if found is None:
    found = own(name, **_known(name, NETS) | FIELDS.get(name, {}))
  return dataclasses.replace(found, **fields)
