"""What a study makes of its results, called before anything is trained."""

from typing import Any, Sequence

import numpy as np

from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.experiment import declared
from dlx.run import sharding
from dlx.run.dispatch import make_dispatch
from dlx.run.rehearsal import rehearse as of_run
from dlx.study.declaration import Study
from dlx.study.results import COSTS, Finished, Results
from dlx.study.table import rows_of
from dlx.study.trials import Trial


def reported(trial: Trial, mesh: str | None) -> dict[str, Any]:
  """The numbers that a run reports, by "split/name", with what is declared of each.

  All that the run calls is traced for it; nothing is read or compiled.
  """
  built = trial.found.build(trial.config)
  dispatch = make_dispatch(built, sharding.make_mesh(mesh))
  evals = of_run(built, trial.config, dispatch).evals
  names = [f'train/{metric}' for metric in dispatch.window] + [
    f'{split}/{metric}'
    for split, traced in evals.items()
    for metric, value in traced.found.items()
    if getattr(value, 'shape', None) == ()
  ]
  of = declared(built)['metrics']
  return {x: of.get(x) or of.get(x.rpartition('/')[2]) or {} for x in names}


def rehearse(study: Study, trials: Sequence[Trial], mesh: str | None) -> dict[str, Any]:
  """Calls all that is made of the results on numbers that are made up.

  A metric that is misspelt, or a claim on a group that is not there, costs no training.

  Returns:
    Declarations of the metrics of the table.
  """
  names: dict[tuple[str, Any], list[str]] = {}
  said: dict[str, Any] = {}
  for trial in trials:
    if _kind(trial) not in names:
      reports = reported(trial, mesh)
      names[_kind(trial)] = list(reports)
      said |= {metric: reports.get(metric, {}) for metric in study.metrics}
  for metric in study.metrics:
    for (exp, _), known in names.items():
      if metric not in known:
        raise ConfigError(
          f'metrics: {metric} is not allowed: {exp} reports no such figure; must be '
          f'one of {", ".join(sorted(known))}.'
        )
  rng = np.random.default_rng(0)
  made_up = Results({t.name: _made_up(t, names[_kind(t)], rng) for t in trials})
  for check in study.claims.values():
    check(made_up)
  rows_of(study, made_up)
  for draw in study.figures.values():
    draw(made_up)
  return said


def _kind(trial: Trial) -> tuple[str, Any]:
  """What decides which numbers are reported: of a table also whether it has classes."""
  return trial.found.name, getattr(trial.config, 'dataset', None)


def _made_up(trial: Trial, names: Sequence[str], rng: np.random.Generator) -> Finished:
  """A run of which all costs, and every metric at three steps, are drawn."""
  last = trial.config.num_steps
  steps = sorted({0, last // 2, last})
  drawn = lambda: [(step, float(rng.uniform(0.1, 0.9))) for step in steps]
  curves = {metric: drawn() for metric in names}
  metrics = {metric: curve[-1][1] for metric, curve in curves.items()}
  costs = {name: float(rng.uniform(0.1, 0.9)) for name in COSTS}
  config = config_to_json(trial.config)
  return Finished(trial.run, config, metrics, 1.0, curves=curves, costs=costs)
