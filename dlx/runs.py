"""Runs from Python: what the commands train and evaluate do, as functions.

train     trains an experiment by its name, and opens the run; `dlx.train` is this
fit       trains, or goes on; leaves the files of `launch.train`, the report among them
study     trains the runs of a study, and writes table, claims and page
sweep     searches the best config of an experiment; writes table, figures and page
evaluate  the metrics of a checkpoint
state     the state of a checkpoint, for the functions of an experiment

An experiment is what `build(config)` gives. Where the config asks for early stopping,
it is what `dlx.train.early_stopping.with_early_stopping` makes of that, as in commands.
"""

import contextvars
import os
import sys
from typing import TYPE_CHECKING, Any

import jax

from dlx.config import StudyConfig
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run.reopen import evaluate, state

if TYPE_CHECKING:
  from dlx.run.loop import Outcome
  from dlx.run.opened import Run
  from dlx.study import engine as study_engine
  from dlx.study.declaration import Study
  from dlx.study.search.declaration import Sweep
  from dlx.study.search.outcome import Outcome as Searched

__all__ = ('evaluate', 'fit', 'state', 'study', 'sweep', 'train')

# Arguments of `dlx.run.loop.fit` that a call of `train` may have.
OPTIONS = (
  *('mesh', 'stop_at', 'fresh', 'extend', 'data_changed', 'debug', 'trace_steps'),
  'terminal',
)


def train(
  exp: Any,
  config: Config | None = None,
  *,
  workdir: Any = None,
  data_dir: Any = None,
  **given: Any,
) -> 'Run':
  """Trains an experiment, or goes on, as `launch.train` does; returns the opened run.

    dlx.train('cnn', workdir='runs/cnn', num_steps=200, lr=0.1)
    dlx.train('my_cnn.py', features=(8, 16), fresh=True)
    dlx.train(build, Config(lr=0.1), workdir='runs/mine')     from a cell

  Where it was interrupted, what is there is saved, and the same call goes on.

  Args:
    exp: a name in experiments/, the path of a file, what has `Config` and `build`, or a
      function `build` of `config`.
    config: whose fields are taken where none is given; None: the defaults.
    workdir: path; None: runs/NAME.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    given: fields of the Config, of a group a mapping; and OPTIONS.

  Raises:
    ConfigError: an unknown experiment or field, and see `dlx.run.loop.fit`.
    NonFiniteError: see there.
  """
  options = {name: given.pop(name) for name in OPTIONS if name in given}
  train = lambda: _train(exp, config, workdir, data_dir, given, options)
  # In a context of its own: its data folder is forgotten afterwards.
  return contextvars.copy_context().run(train)


def _train(exp, config, workdir, data_dir, given, options) -> 'Run':
  from dlx.config_json import config_of_fields
  from dlx.data.formats.files import look_in
  from dlx.run import effects, experiments_by_name
  from dlx.run.opened import Run

  if data_dir is not None:
    look_in(data_dir)
  if isinstance(exp, (str, os.PathLike)):
    found = experiments_by_name.load(os.fspath(exp))
  else:
    found = experiments_by_name.given(exp, config)
  if config is not None and not isinstance(config, found.config_class):
    raise ConfigError(
      f'config={type(config).__qualname__} is not allowed: must be a Config of '
      f'{found.short}.'
    )
  config = config_of_fields(found.config_class, given, config).resolved()
  workdir = os.path.join('runs', found.short) if workdir is None else workdir
  experiment = found.build(config)
  effects.check(found.short, found.build, config)
  outcome = fit(
    experiment,
    config,
    workdir,
    module=found.module.__name__,
    data_dir=data_dir,
    **options,
  )
  if outcome.status != 'finished':
    told = f'{outcome.status} at step {outcome.step}, saved in {workdir}'
    print(f'{told}; the same call goes on', file=sys.stderr)
  return Run(workdir, exp=found.module, data_dir=data_dir)


def fit(
  experiment: Experiment, config: Config, workdir: Any, **options: Any
) -> 'Outcome':
  """Trains in a workdir, or goes on there; once the run is finished writes its page.

  Args:
    experiment: what `build(config)` gave.
    config: its fields that are None and follow from a size are filled, as by commands.
    workdir: path; may be an object store.
    options: see `dlx.run.loop.fit`.

  Raises:
    ConfigError, NonFiniteError: see `dlx.run.loop.fit`.
  """
  # Both are imported here, so that to evaluate needs no loop and no page.
  from dlx.report import render
  from dlx.run.loop import fit
  from dlx.run.opened import keep_vocabulary

  outcome = fit(experiment, config.resolved(), workdir, **options)
  if outcome.status == 'finished' and jax.process_index() == 0:
    keep_vocabulary(experiment, workdir, options.get('data_dir'))
    render(os.path.expanduser(workdir))
  return outcome


def study(
  declared: 'Study', config: StudyConfig, workdir: Any, **options: Any
) -> 'study_engine.Outcome':
  """Trains the runs of a study, or goes on with them; writes its page.

  Args:
    declared: what `study(config)` gave.
    config: of the study.
    workdir: path of a folder on a local disk.
    options: see `dlx.study.engine.run`.

  Raises:
    ConfigError: see there.
  """
  from dlx.report import render
  from dlx.study import engine

  outcome = engine.run(declared, config, workdir, **options)
  if outcome.status == 'finished':
    render(os.path.expanduser(workdir))
  return outcome


def sweep(declared: 'Sweep', workdir: Any, **options: Any) -> 'Searched':
  """Searches the best config, or goes on; writes its page. Needs the extra `sweep`.

  Args:
    declared: what is searched.
    workdir: path of a folder on a local disk.
    options: see `dlx.study.search.sweep.run`.

  Raises:
    ConfigError, StorageError: see there.
  """
  from dlx.report import render
  from dlx.study.search import sweep

  outcome = sweep.run(declared, workdir, **options)
  render(os.path.expanduser(workdir))
  return outcome
