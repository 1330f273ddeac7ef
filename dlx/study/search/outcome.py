"""What a sweep found, from its storage: lines, table, best config, figures, page."""

import contextlib
import fcntl
import math
import os
import shlex
import statistics
import sys
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from etils import epath
import optuna
from optuna.trial import FrozenTrial, TrialState

from dlx.config_json import config_to_json
from dlx.config_text import value_to_text
from dlx.figures import sweeps
from dlx.run.drawing import to_png
from dlx.run.records.environment import environment
from dlx.run.records.json_files import write_bytes, write_json
from dlx.run.records.progress import number
from dlx.run.records.tensorboard import EventWriter
from dlx.run.tables import markdown
from dlx.study.results import mean_and_sd
from dlx.study.search import flagfile
from dlx.study.search.declaration import Sweep, as_json, name_of
from dlx.study.search.sampling import INDEX
from dlx.study.search.space import PREFIX
from dlx.study.search.storage import FINISHED, Store, quiet
from dlx.study.table import as_table

RECORD, FLAGS, HPARAMS = 'sweep.json', 'best.flags', 'hparams'
IMPORTANCE = 'fANOVA (Hutter et al. 2014), random forest of Optuna'
_LEAST = 4  # Trials with a number, for an importance.


class Outcome(NamedTuple):
  """How a sweep ended.

  Attributes:
    status: 'finished', or 'interrupted' (by a signal; the same call goes on).
    done: trials that are finished.
    rows: of the table, the best first.
    best: of the best trial `trial`, `value`, `fields`, `flagfile` and `command`; {}: no
      trial has a number.
  """

  status: str
  done: int
  rows: Sequence[Mapping[str, Any]]
  best: Mapping[str, Any]


class Told:
  """Writes and says what is known, as trials end."""

  def __init__(
    self,
    sweep: Sweep,
    store: Store,
    workdir: epath.Path,
    highest: bool,
    said: Mapping[str, Any],
    argv: Sequence[str],
  ):
    """`said`: what the experiment declares of the metric; argv: without a password."""
    self._sweep, self._store, self._workdir = sweep, store, workdir
    self._highest, self._said, self._argv = highest, said, list(argv)
    self._environment = environment()

  def one(self, index: int):
    """A line about a trial that ended, and its row for TensorBoard."""
    trials = self._store.trials()
    (trial,) = (t for t in trials if t.user_attrs[INDEX] == index)
    values = self._sweep.space.values(trial.params)
    fields = '  '.join(f'{k}={value_to_text(v)}' for k, v in values.items())
    state = trial.user_attrs['state']
    told = self._sweep.metric
    told += f' {number(trial.value)}' if trial.value is not None else f': {state}'
    best, record = self._best(trials), ''
    if best is not None and best.number == trial.number:
      record = '  (the best so far)'
    elif best is not None:
      record = f'  (best {number(best.value)}, {_name(best)})'
    line = f'{name_of(index)}  {told}{record}  {fields}'
    print(line, file=sys.stderr, flush=True)
    self._hparams(trial, values)

  def _hparams(self, trial: FrozenTrial, values: Mapping[str, Any]):
    folder = self._workdir / HPARAMS / _name(trial)
    if trial.value is None or folder.exists():
      return
    folder.mkdir(parents=True)
    metrics = {self._sweep.metric: trial.value}
    fields = {name: as_json(value) for name, value in values.items()}
    with EventWriter(folder) as events:
      events.hparams(trial.user_attrs['steps'], fields, metrics)

  def write(self, finished: bool, *, brief: bool = False) -> Outcome:
    """Writes sweep.json and best.flags; figures, table.md and the page, unless brief.

    Args:
      finished: whether the search is.
      brief: it goes on at once.
    """
    trials = self._store.trials()
    rows = [self._row(t) for t in self._ranked(trials)]
    first = self._best(trials)
    best = {} if first is None else self._config_of(first)
    record = {
      'study': self._sweep.found.short,
      'launcher': 'launch.sweep',
      'argv': self._argv,
      'config': config_to_json(self._sweep.space.base),
      'metrics': [self._sweep.metric],
      'declared': {self._sweep.metric: dict(self._said)},
      'search': {
        'by': self._sweep.search,
        'seed': self._sweep.seed,
        'seeds': self._sweep.seeds,
        'better': 'higher' if self._highest else 'lower',
        'fields': {
          PREFIX + d.name: d.text for d in self._sweep.space.dimensions.values()
        },
      },
      'best': best,
      'table': rows,
      'finished': finished,
      'runs': self._runs(trials),
      **self._environment,
    }
    with _written_by_one(self._workdir):
      if first is not None:
        about = f'{self._sweep.metric} {number(first.value)}, {best["trial"]}'
        config = self._sweep.space.config(first.params)
        text = flagfile.text(self._sweep.found.name, config, about)
        write_bytes(self._workdir / FLAGS, text.encode())
      if not brief:
        text = markdown(as_table(rows, 'Trials', note=''))
        write_bytes(self._workdir / 'table.md', f'{text}\n'.encode())
        importance = self._draw(trials)
        record['search'] |= {'importance': importance, 'importance_by': IMPORTANCE}
      write_json(self._workdir / RECORD, record)
    done = sum(t.state in FINISHED for t in trials)
    return Outcome('finished' if finished else 'interrupted', done, rows, best)

  def _best(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    ranked = self._ranked([t for t in trials if t.value is not None])
    return ranked[0] if ranked else None

  def _ranked(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best first, equal ones in order; those without a number last."""
    sign = -1 if self._highest else 1

    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
      value = trial.value
      lost = value is None
      return lost, 0.0 if lost else sign * value, trial.user_attrs[INDEX]

    return sorted(trials, key=key)

  def _row(self, trial: FrozenTrial) -> dict[str, Any]:
    metric, values = self._sweep.metric, self._sweep.space.values(trial.params)
    runs = trial.user_attrs.get('runs', {}).values()
    numbers = [r['metrics'][metric] for r in runs if metric in r['metrics']]
    mean = statistics.fmean(numbers) if numbers else math.nan
    sd = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    row: dict[str, Any] = {'trial': _name(trial)}
    for name in self._sweep.space.dimensions:
      value = values.get(name)
      if isinstance(value, float):
        row[name] = f'{value:.4g}'
      else:
        row[name] = value_to_text(value) if name in values else ''
    state = trial.user_attrs.get('state', 'under way')
    return {
      **row,
      'runs': len(runs),
      metric: '–' if state == 'diverged' else mean_and_sd(mean, sd),
      'state': state,
    }

  def _config_of(self, best: FrozenTrial) -> dict[str, Any]:
    path = self._workdir / FLAGS
    workdir = f'{os.fspath(self._workdir)}_best'
    return {
      'trial': _name(best),
      'value': best.value,
      'fields': {
        PREFIX + name: value_to_text(value)
        for name, value in self._sweep.space.values(best.params).items()
      },
      'flagfile': os.fspath(path),
      'command': shlex.join(
        ['python', '-m', 'launch.train', f'--flagfile={path}', f'--workdir={workdir}']
      ),
    }

  def _runs(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Every run as report/study.py shows it."""
    found = {}
    for trial in trials:
      values = self._sweep.space.values(trial.params)
      fields = {name: as_json(value) for name, value in values.items()}
      for name, run in trial.user_attrs.get('runs', {}).items():
        found[name] = {
          'experiment': self._sweep.found.name,
          'fields': fields,
          'group': _name(trial),
          **run,
        }
    return found

  def _draw(self, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """The figures; the importance of each field."""
    space, metric = self._sweep.space, self._sweep.metric
    ended = [t for t in trials if t.state in FINISHED]
    value_T = [math.nan if t.value is None else t.value for t in ended]
    if not any(map(math.isfinite, value_T)):
      return {}
    label = _label(metric, self._said)
    values = [space.values(t.params) for t in ended]
    columns = [[_shown(v, name) for v in values] for name in space.dimensions]
    drawn = {
      '1_best_so_far': sweeps.best_so_far(
        value_T, highest=self._highest, ylabel=label, title='Best trial so far'
      ),
      '2_parallel_coordinates': sweeps.parallel_coordinates(
        list(space.dimensions),
        columns,
        value_T,
        log=[
          d.kind == 'loguniform' or d.text.startswith('log(')
          for d in space.dimensions.values()
        ],
        highest=self._highest,
        label=label,
        title='Trials, the darker the better',
      ),
    }
    importance = self._importance(ended)
    if importance:
      drawn['3_importance'] = sweeps.importance(
        list(importance), list(importance.values()), f'Importance by fANOVA: {label}'
      )
    folder = self._workdir / 'figures'
    folder.mkdir(exist_ok=True)
    for name, figure in drawn.items():
      data, _ = to_png(figure)
      write_bytes(folder / f'{name}.png', data)
    return importance

  def _importance(self, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Shares of the variance, of fields that all trials have; {}: too few trials."""
    known = [t for t in trials if t.state == TrialState.COMPLETE]
    if len(known) < _LEAST or len({t.value for t in known}) < 2:
      return {}
    with quiet():
      study = optuna.create_study(direction=self._store.study.direction)
      study.add_trials(known)
      by = optuna.importance.FanovaImportanceEvaluator(seed=0)
      found = optuna.importance.get_param_importances(study, evaluator=by)
    return {name: float(share) for name, share in found.items()}


@contextlib.contextmanager
def _written_by_one(workdir: epath.Path) -> Iterator[None]:
  """Workers of one workdir write its records one after the other."""
  with open(workdir / '.writing', 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _name(trial: FrozenTrial) -> str:
  return name_of(trial.user_attrs[INDEX])


def _shown(values: Mapping[str, Any], name: str) -> Any:
  """A value on an axis: a number as it is, else its text; None: not varied there."""
  value = values.get(name)
  if name not in values or type(value) in (int, float):
    return value
  return value_to_text(value)


def _label(metric: str, said: Mapping[str, Any]) -> str:
  unit = said.get('unit')
  return f'{metric} ({unit})' if unit and unit != '%' else metric  # A share.
