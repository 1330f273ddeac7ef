"""The least run of an experiment with every part, for the tests of all of them."""

import dataclasses
import importlib
import types
from typing import Any

from dlx.run import experiments_by_name
from tests.every_experiment.fields import with_known

# Less work for evaluations and figures, in so far as a config has these fields.
LESS = {
  'batch_size': 16,
  'judge.num_samples': 32,
  'sampler.num_steps': 3,
  'probe.labels': 200,
  'probe.test': 64,
}


def load(name: str) -> types.ModuleType:
  """The module of an experiment."""
  return importlib.import_module(experiments_by_name.module_name(name))


def own(name: str, **fields: Any) -> Any:
  """The default net, with less work for evaluations and figures, and `fields`."""
  config = load(name).Config(**{'batch_size': LESS['batch_size'], **fields})
  less = {
    key: value for key, value in LESS.items() if key not in ('batch_size', *fields)
  }
  return with_known(config, less)


def small(name: str, **fields: Any) -> Any:
  """The experiment's SMALL, with `fields` on top."""
  return dataclasses.replace(load(name).SMALL, **fields)
