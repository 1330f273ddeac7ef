"""Trains the runs of trials that were chosen at once, in as few programs as may be.

WORKDIR/runs/NAME/      a folder a run: config.json, metrics.jsonl, result.json
WORKDIR/together/NAME/  the workdir of runs that one program trained; the first's name
"""

from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from etils import epath

from dlx.config_json import config_to_json
from dlx.run.records.json_files import read_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.study.engine import RUNS, TOGETHER, alone, joint, spent
from dlx.study.results import Finished
from dlx.study.trials import Trial, programs

INTERRUPTED = 'interrupted'


class Stopped(NamedTuple):
  """How far runs came that were trained step by step.

  Attributes:
    status: 'finished', 'pruned' or 'interrupted'.
    found: by run; of pruned ones what they reported at that step.
    step: of the last rung that was asked.
  """

  status: str
  found: Mapping[str, Finished]
  step: int = 0


def train(
  workdir: epath.Path, runs: Sequence[Trial], options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Finished]]]:
  """Status and results of one program after the other; the first of what was finished.

  Args:
    workdir: of the sweep.
    runs: of trials of this process, which no other process trains.
    options: of `dlx.run.loop.fit`.
  """
  left = {run.name: run for run in runs}
  done = {name: found for name, run in left.items() if (found := _read(workdir, run))}
  if done:
    yield 'finished', done
  left = {name: run for name, run in left.items() if name not in done}
  groups: list[tuple[epath.Path | None, list[Trial]]] = []
  for folder in sorted((workdir / TOGETHER).glob('*')):
    path = folder / 'members.json'
    names = read_json(path)['runs'] if path.exists() else []
    if names and set(names) <= left.keys():  # Begun together: it goes on so.
      groups.append((folder, [left.pop(name) for name in names]))
  for group in programs(list(left.values())):
    folder = None if len(group) == 1 else _new(workdir / TOGETHER / group[0].name)
    groups.append((folder, group))
  for folder, group in groups:
    if folder is None:
      yield alone(workdir / RUNS / group[0].name, group[0], options)
    else:
      yield joint(workdir, folder, group, options)


def _new(path: epath.Path) -> epath.Path:
  """A folder that is not there: of that name lies one with other members."""
  while path.exists():
    path = path.with_name(path.name + '+')
  return path


def _read(workdir: epath.Path, run: Trial) -> Finished | None:
  """A run that was trained together with others, as it lies there."""
  path = workdir / RUNS / run.name / 'result.json'
  if not path.exists():
    return None
  result, config = read_json(path), config_to_json(run.config)
  if 'together' not in result:
    return None  # `alone` looks at its records itself.
  lost = bool(result.get('diverged'))
  metrics = {} if lost else {k: float(v) for k, v in result['metrics'].items()}
  seconds = float(result['seconds'].get('total', 0.0)) / result['together']['members']
  return Finished(run.run, config, metrics, seconds, lost)


def by_rungs(
  workdir: epath.Path,
  runs: Sequence[Trial],
  rungs: Sequence[int],
  metric: str,
  options: Mapping[str, Any],
  goes_on: Callable[[int, Sequence[float]], bool],
) -> Stopped:
  """Trains the runs of one trial from rung to rung, each by itself.

  Args:
    workdir: of the sweep.
    runs: that differ in their seed.
    rungs: steps at which is asked, in order.
    metric: "split/name" of an evaluation that is made there.
    options: of `fit`.
    goes_on: step and numbers of all runs there -> whether they are trained on.
  """
  found: dict[str, Finished] = {}
  for step in rungs:
    values = []
    for run in runs:
      folder = workdir / RUNS / run.name
      value = _value_at(folder, metric, step)
      if value is None and run.name not in found:
        status, done = alone(folder, run, {**options, 'stop_at': step})
        found |= done
        value = _value_at(folder, metric, step)
        if value is None and status == INTERRUPTED:
          return Stopped(status, found, step)
      if run.name in found and found[run.name].diverged:
        return Stopped('finished', found, step)
      if value is None:  # It stopped early, before this step.
        value = found[run.name].metrics[metric]
      values.append(value)
    if not goes_on(step, values):
      for run, value in zip(runs, values, strict=True):
        config = config_to_json(run.config)
        seconds = spent(workdir / RUNS / run.name)
        found[run.name] = Finished(run.run, config, {metric: value}, seconds)
      return Stopped('pruned', found, step)
  for run in runs:
    status, done = alone(workdir / RUNS / run.name, run, options)
    found |= done
    if not done:
      return Stopped(INTERRUPTED, found)
    if done[run.name].diverged:
      break
  return Stopped('finished', found, runs[0].config.num_steps)


def _value_at(folder: epath.Path, metric: str, step: int) -> float | None:
  split, _, name = metric.rpartition('/')
  for line in MetricsFile(folder).read():
    if line['step'] == step and line['split'] == split and name in line['metrics']:
      return float(line['metrics'][name])
  return None
