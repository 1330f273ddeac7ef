"""What a sweep is: an experiment, a space, what is looked for, and for how long."""

from typing import Any, Mapping, NamedTuple

from dlx.run.experiments_by_name import Found
from dlx.run.records.json_files import plain
from dlx.study.declaration import Run
from dlx.study.search.space import Space
from dlx.study.trials import Trial

TRIALS = 20  # Of a search without a budget, but for a grid.


class Sweep(NamedTuple):
  """What is searched.

  Attributes:
    found: the experiment.
    space: its fields that are varied, and all others.
    search: one of SEARCHES.
    metric: "split/name" of a number that the experiment reports.
    mode: 'min' or 'max'; None: as the experiment declares the metric.
    seed: of the search.
    seeds: runs of each trial, from the seed of the config on; their mean counts.
    trials, minutes, steps: no trial is begun past so many trials, minutes of training,
      or optimiser steps, of all workers together; None: no such limit.
    at_once: trials that are chosen at once; None: as many as are best.
  """

  found: Found
  space: Space
  search: str
  metric: str
  mode: str | None = None
  seed: int = 0
  seeds: int = 1
  trials: int | None = None
  minutes: float | None = None
  steps: int | None = None
  at_once: int | None = None


def name_of(index: int) -> str:
  """Of a trial; that of the group of its runs."""
  return f'trial-{index:04d}'


def runs_of(sweep: Sweep, index: int, params: Mapping[str, Any]) -> list[Trial]:
  """The runs of a trial, one a seed.

  Raises:
    ConfigError: the Config refuses them.
  """
  group, space, found = name_of(index), sweep.space, []
  values = {name: as_json(value) for name, value in space.values(params).items()}
  start = space.config(params).seed
  for seed in range(start, start + sweep.seeds):
    config = space.config(params, seed=seed).resolved()
    run = Run(sweep.found.name, {**values, 'seed': seed}, group)
    found.append(Trial(f'{group}-{seed}', run, sweep.found, config))
  return found


def as_json(value: Any) -> Any:
  """A value of a field as JSON; of an enum its name."""
  return plain(getattr(value, 'name', value))
