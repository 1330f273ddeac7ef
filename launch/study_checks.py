"""What every study must hold; each check returns what it found, or raises Failed."""

import dataclasses
import pathlib
from typing import Any

from dlx import runs
from dlx.study import rehearsal
from dlx.study.engine import Outcome
from dlx.study.trials import expand, programs
from launch.checks import Failed


def rehearsed(found: Any, config: Any) -> str:
  """Traces every experiment, and calls what is made of the results on made-up numbers.

  Args:
    found: `experiments_by_name.FoundStudy`.
    config: of the study.

  Raises:
    Failed: it claims nothing.
    ConfigError: a run, a metric or a group that cannot be.
  """
  study = found.study(config)
  trials = expand(study, found.module.__file__)
  rehearsal.rehearse(study, trials, None)
  if not study.claims:
    raise Failed('it claims nothing: say what is expected, as `claims`')
  many = lambda n, what: f'{n} {what}{"s" * (n != 1)}'
  return (
    f'{many(len(trials), "run")} in {many(len(programs(trials)), "program")}, '
    f'{many(len(study.claims), "claim")}'
  )


def grown(found: Any, config: Any) -> str:
  """Compares the runs with those of one seed more.

  Raises:
    Failed: a run is lost or another, so that its workdir would be refused.
  """
  few = found.study(config).runs
  many = found.study(dataclasses.replace(config, seeds=config.seeds + 1)).runs
  lost = [name for name, run in few.items() if many.get(name) != run]
  if lost or len(many) <= len(few):
    told = f'{lost[0]} is another run' if lost else 'there are no more runs'
    raise Failed(f'with one seed more {told}: name runs by their setting and seed')
  return f'{len(many) - len(few)} more for one seed'


def trained(found: Any, config: Any, folder: pathlib.Path, data_dir: Any) -> str:
  """Trains it twice on one workdir.

  Raises:
    Failed: the second time gives another table.
  """

  def once() -> Outcome:
    return runs.study(
      found.study(config),
      config,
      folder / 'study',
      name=found.name,
      module=found.module.__name__,
      data_dir=data_dir,
      terminal=False,
    )

  first, second = once(), once()
  if first.status != 'finished':
    raise Failed('it was interrupted')
  if list(first.rows) != list(second.rows):
    raise Failed('called again it gives another table: its results must be pure')
  held = sum(verdict.holds for verdict in first.verdicts.values())
  return f'{held} of {len(first.verdicts)} claims hold at this size'
