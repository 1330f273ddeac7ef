"""The runs of a study as configs, and which of them one program trains together."""

import json
import os
import pathlib
import re
from typing import Any, NamedTuple, Sequence

import jax
import numpy as np

from dlx.config import Config
from dlx.config_json import config_of_fields, config_to_json
from dlx.data.dataset import Resident
from dlx.errors import ConfigError
from dlx.experiment import Experiment
from dlx.run import experiments_by_name
from dlx.run.experiments_by_name import Found
from dlx.state import is_key
from dlx.study.declaration import Run, Study

_NAME = re.compile(r'[A-Za-z0-9_=+,@-][A-Za-z0-9_=+,.@-]*')
MEMORY = 0.5  # Of a device: what runs that are trained together may take.


class Trial(NamedTuple):
  """One run of a study, ready to be trained."""

  name: str
  run: Run
  found: Found
  config: Config


def expand(study: Study, module_file: str | None = None) -> list[Trial]:
  """All runs; every config is checked, nothing is read or compiled.

  Args:
    study: as declared.
    module_file: of the study: forks are named relative to its folder.

  Raises:
    ConfigError: no run, a name that cannot be a folder, an unknown experiment, a field
      that is unknown or impossible; the run is named.
  """
  if not study.runs:
    raise ConfigError('The study has no runs: its values leave none; give some.')
  found: dict[str, Found] = {}
  trials, lower = [], {}
  for name, run in study.runs.items():
    if not _NAME.fullmatch(name):
      raise ConfigError(
        f'Run {name!r} is not allowed: must be the name of a folder, of letters, '
        'digits and _ = + , . @ -.'
      )
    if (other := lower.setdefault(name.lower(), name)) != name:
      raise ConfigError(
        f'Runs {other!r} and {name!r} differ in case alone, which some disks do not '
        'tell apart: rename one.'
      )
    exp = run.exp
    if experiments_by_name.is_path(exp) and module_file and not os.path.isabs(exp):
      exp = str(pathlib.Path(module_file).parent / exp)
    try:
      if exp not in found:
        found[exp] = experiments_by_name.load(exp)
      config = config_of_fields(found[exp].config_class, run.fields).resolved()
    except ConfigError as error:
      raise ConfigError(f'Run {name}: {error}') from None
    trials.append(Trial(name, run, found[exp], config))
  return trials


def programs(trials: Sequence[Trial]) -> list[list[Trial]]:
  """Which runs are trained by one program: those that differ in numbers alone.

  They are of one experiment, and differ in `seed` or in fields that `SWEPT` of its
  module names. As many are together as half of a device's memory holds.
  """
  found: dict[Any, list[Trial]] = {}
  for trial in trials:
    swept = getattr(trial.found.module, 'SWEPT', None)
    if swept is None:
      found[trial.name] = [trial]
      continue
    same = {
      k: v for k, v in config_to_json(trial.config).items() if k not in (*swept, 'seed')
    }
    # Of a number that is off in one run the other runs have a program of their own.
    kinds = [type(getattr(trial.config, k)).__name__ for k in swept]
    key = trial.found.name, json.dumps([same, kinds], sort_keys=True)
    found.setdefault(key, []).append(trial)
  out = []
  for group in found.values():
    most = _at_once(group[0]) if len(group) > 1 else 1
    parts = -(-len(group) // most)
    size = -(-len(group) // parts)  # Parts of about one size.
    out += [group[i : i + size] for i in range(0, len(group), size)]
  return out


def _at_once(trial: Trial) -> int:
  """How many runs like this one may be trained by one program."""
  built = trial.found.build(trial.config)
  data = built.train_data
  if built.warm_start is not None or not isinstance(data, Resident):
    return 1
  if len(data.shapes) > 1:
    return 1
  devices = jax.local_devices()
  stats = devices[0].memory_stats() or {}
  host = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(devices)
  limit = MEMORY * stats.get('bytes_limit', host)
  return max(1, int(limit * len(devices) // _bytes(built)))


def _bytes(built: Experiment) -> int:
  """Of one member, at most: its state, and all that a step makes."""
  state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  step = jax.make_jaxpr(built.train_step)(state, built.train_data.shapes[0])
  return 2 * sum(map(_size, jax.tree.leaves(state))) + _made(step.jaxpr)


def _size(x: Any) -> int:
  return 8 if is_key(x) else int(np.prod(x.shape)) * x.dtype.itemsize


def _made(jaxpr: Any) -> int:
  """Bytes of everything that a program computes, as if nothing were fused."""
  total = 0
  for eqn in jaxpr.eqns:
    inner = [x for x in jax.tree.leaves(list(eqn.params.values())) if _is_jaxpr(x)]
    total += sum(_made(getattr(x, 'jaxpr', x)) for x in inner)
    if not inner:
      total += sum(_size(v.aval) for v in eqn.outvars if hasattr(v.aval, 'dtype'))
  return total


def _is_jaxpr(x: Any) -> bool:
  return hasattr(x, 'eqns') or hasattr(getattr(x, 'jaxpr', None), 'eqns')
