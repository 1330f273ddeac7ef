"""Runs from Python: what the commands train and evaluate do, as functions.

fit       trains, or goes on; leaves the files of `launch.train`, the report among them
evaluate  the metrics of a checkpoint
state     the state of a checkpoint, for the functions of an experiment

An experiment is what `build(config)` gives. Where the config asks for early stopping,
it is what `dlx.train.early_stopping.with_early_stopping` makes of that, as in commands.
"""

import os
from typing import TYPE_CHECKING, Any

import jax

from dlx.experiment import Config, Experiment
from dlx.run.reopen import evaluate, state

if TYPE_CHECKING:
  from dlx.run.loop import Outcome

__all__ = ('evaluate', 'fit', 'state')


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
