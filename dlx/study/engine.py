"""Trains the runs of a study, in as few programs as may be, and judges its claims.

  WORKDIR/study.json       the study, its runs, their numbers, table and claims
  WORKDIR/runs/NAME/       a folder a run: config.json, metrics.jsonl, result.json
  WORKDIR/together/K/      the workdir of runs that one program trained
  WORKDIR/table.md, figures/*.png

Killed at any moment and called again it goes on: a run that is finished is not trained
again, and one that is not goes on from its checkpoint. A study may grow on its workdir:
runs that are new, by more seeds or values, are trained besides.
"""

import contextlib
import fcntl
import sys
import time
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from etils import epath
import jax

from dlx.config_json import config_to_json
from dlx.errors import ConfigError, NonFiniteError
from dlx.run import origin
from dlx.run.drawing import to_png
from dlx.run.loop import fit
from dlx.run.records import sources
from dlx.run.records.environment import environment
from dlx.run.records.json_files import plain, read_json, write_bytes, write_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.run.records.workdir import absolute, move_aside
from dlx.run.tables import markdown
from dlx.study import apart
from dlx.study.declaration import Study, StudyConfig, Verdict
from dlx.study.rehearsal import rehearse
from dlx.study.results import Finished, Results
from dlx.study.table import NOTE, as_table, rows_of
from dlx.study.trials import Trial, expand, programs
from dlx.train.members import together

RUNS, TOGETHER = 'runs', 'together'
MARK = 'diverged.json'  # In the folder of a run whose step was not finite.


class Outcome(NamedTuple):
  """How a study ended.

  Attributes:
    status: 'finished' or 'interrupted' (by a signal; the same call goes on).
    done: runs that are finished, of `total`.
    results: None where it was interrupted.
    verdicts: by claim.
    rows: of the table.
  """

  status: str
  done: int
  total: int
  results: Results | None = None
  verdicts: Mapping[str, Verdict] = {}
  rows: Sequence[Mapping[str, Any]] = ()


def run(
  study: Study,
  config: StudyConfig,
  workdir: Any,
  *,
  name: str | None = None,
  module: str | None = None,
  data_dir: Any = None,
  mesh: str | None = None,
  fresh: bool = False,
  argv: Sequence[str] = (),
  terminal: bool | None = None,
) -> Outcome:
  """Trains what is not trained yet, and writes what it all says.

  Args:
    study: what `study(config)` gave.
    config: written to study.json.
    workdir: path of a folder on a local disk.
    name: of the study, or the path of its file; None: by `module`.
    module: name of the module of the study; None: that of the Config.
    data_dir: see `Dataset.load`.
    mesh: see `dlx.run.loop.fit`; runs that are trained together lie along data.
    fresh: what is in the workdir is moved aside first.
    argv: the command, for the record.
    terminal: see `fit`.

  Raises:
    ConfigError: a run that cannot be, or that stands there with other fields; several
      processes.
  """
  if jax.process_count() > 1:
    raise ConfigError('A study is not allowed with several processes: start one.')
  module = module or type(config).__module__
  trials = expand(study, getattr(sys.modules.get(module), '__file__', None))
  said = rehearse(study, trials, mesh)
  workdir = absolute(workdir)
  if fresh and (moved := move_aside(workdir)):
    print(f'What was in {workdir} is in {moved} now.', file=sys.stderr)
  (workdir / RUNS).mkdir(parents=True, exist_ok=True)
  record = {
    'study': name or origin.name_of(module),
    'config': config_to_json(config),
    'argv': list(argv),
    'metrics': list(study.metrics),
    'declared': said,
    **environment(),
  }
  _agree(workdir, trials)
  options = {'data_dir': data_dir, 'mesh': mesh, 'argv': argv, 'terminal': terminal}
  found: dict[str, Finished] = {}
  with lock(workdir):
    _write(workdir, record, trials, found)
    for status, finished in _train(workdir, trials, options):
      found |= finished
      _write(workdir, record, trials, found)  # For the page of a study under way.
      if status != 'finished':
        return Outcome('interrupted', len(found), len(trials))
    results = Results({trial.name: found[trial.name] for trial in trials})
    verdicts = {claim: check(results) for claim, check in study.claims.items()}
    rows = rows_of(study, results)
    _draw(workdir, study, results)
    write_bytes(workdir / 'table.md', (markdown(as_table(rows)) + '\n').encode())
    record |= {
      'table': plain(rows),
      'note': NOTE,
      'claims': [
        {'claim': claim, 'holds': bool(v.holds), 'numbers': v.numbers}
        for claim, v in verdicts.items()
      ],
      'figures': list(study.figures),
      'finished': True,
    }
    _write(workdir, record, trials, found)
  return Outcome('finished', len(found), len(trials), results, verdicts, rows)


def _agree(workdir: epath.Path, trials: Sequence[Trial]):
  """Refuses runs that stand in the workdir with other fields.

  Raises:
    ConfigError: naming the run and the fields.
  """
  path = workdir / 'study.json'
  former = read_json(path).get('runs', {}) if path.exists() else {}
  for trial in trials:
    there = former.get(trial.name)
    if there is None:
      continue
    now = config_to_json(trial.config)
    then = there.get('config', {})
    other = sorted(k for k in now.keys() & then.keys() if now[k] != then[k])
    if there.get('experiment') != trial.found.name or other:
      what = ', '.join(f'config.{k}: {then[k]} there, {now[k]} now' for k in other)
      raise ConfigError(
        f'{workdir} holds run {trial.name} of {there.get("experiment")}'
        f'{f" ({what})" if what else ""}: use another --workdir, or --fresh.'
      )


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Keeps a second process out of the study."""
  with open(workdir / '.lock', 'a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ConfigError(
        f'Another process trains the study in {workdir}: wait for it, or use another '
        '--workdir.'
      ) from None
    yield


def _write(
  workdir: epath.Path,
  record: Mapping[str, Any],
  trials: Sequence[Trial],
  found: Mapping[str, Finished],
):
  runs = {}
  for trial in trials:
    runs[trial.name] = {
      'experiment': trial.found.name,
      'fields': plain(trial.run.fields),
      'group': trial.run.group or trial.name,
      'config': config_to_json(trial.config),
    }
    if trial.name in found:
      done = found[trial.name]
      runs[trial.name] |= {
        'metrics': dict(done.metrics),
        'diverged': done.diverged,
        'seconds': done.seconds,
      }
  write_json(workdir / 'study.json', {**record, 'runs': runs})


def _train(
  workdir: epath.Path, trials: Sequence[Trial], options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Finished]]]:
  """Status and results of one program after the other."""
  by_name = {trial.name: trial for trial in trials}
  left, groups = dict(by_name), []
  folders = [p for p in (workdir / TOGETHER).glob('*') if p.name.isdecimal()]
  # What was begun together goes on together.
  for folder in sorted(folders, key=lambda p: int(p.name)):
    path = folder / 'members.json'
    names = read_json(path)['runs'] if path.exists() else []  # Killed before it.
    if names and set(names) <= left.keys():
      groups.append((folder, [left.pop(name) for name in names]))
  number = max([int(folder.name) for folder in folders], default=0)
  for group in programs(list(left.values())):
    if len(group) > 1:
      number += 1
      groups.append((workdir / TOGETHER / str(number), group))
    else:
      groups.append((None, group))
  for i, (folder, group) in enumerate(groups):
    what = group[0].name if folder is None else f'{len(group)} runs, {group[0].name} to'
    what += '' if folder is None else f' {group[-1].name}'
    print(f'Program {i + 1} of {len(groups)}: {what}', file=sys.stderr, flush=True)
    if folder is None:
      yield alone(workdir / RUNS / group[0].name, group[0], options)
    else:
      yield joint(workdir, folder, group, options)


def alone(
  folder: epath.Path, trial: Trial, options: Mapping[str, Any]
) -> tuple[str, dict[str, Finished]]:
  """One run by itself, in a workdir like any other's.

  Args:
    folder: its workdir.
    trial: the run.
    options: of `fit`.

  Returns:
    The status of `fit`, and what it found by the name of the run, once it is finished;
    one that diverged is. What diverged with other source goes on as a run that is not
    finished does.
  """
  lost = _diverged(folder, trial)
  if lost is None:
    start, before = time.monotonic(), spent(folder)
    try:
      outcome = fit(
        trial.found.build(trial.config),
        trial.config,
        folder,
        name=trial.found.name,
        module=trial.found.module.__name__,
        **options,
      )
    except NonFiniteError as error:
      lost = before + time.monotonic() - start
      mark = {'error': str(error), 'seconds': round(lost, 3), 'source': _source(trial)}
      write_json(folder / MARK, mark)
    else:
      (folder / MARK).unlink(missing_ok=True)
      if outcome.status != 'finished':
        return outcome.status, {}
      result = read_json(folder / 'result.json')
      seconds = float(result['seconds'].get('total', 0.0))
      metrics = {k: float(v) for k, v in result['metrics'].items() if _number(v)}
      return 'finished', {trial.name: _finished(trial, metrics, seconds, False)}
  return 'finished', {trial.name: _finished(trial, {}, lost, True)}


def _diverged(folder: epath.Path, trial: Trial) -> float | None:
  """Seconds of a run that diverged with the source of today; None: none did."""
  if not (folder / MARK).exists():
    return None
  mark = read_json(folder / MARK)
  then, now = mark.get('source') or {}, _source(trial)
  if then.get('main') and now['main'] and not sources.same(then, now):
    print(
      f'{trial.name} diverged with other source: it goes on with that of today.',
      file=sys.stderr,
      flush=True,
    )
    return None
  return float(mark.get('seconds', 0.0))


def _source(trial: Trial) -> dict[str, Any]:
  return sources.record(sources.of(trial.found.module.__name__))


def spent(folder: epath.Path) -> float:
  """Seconds of a run so far, as its last line tells; 0 where there is none."""
  times = [
    line['time']['seconds'].get('total', 0.0)
    for line in MetricsFile(folder).read()
    if 'seconds' in (line.get('time') or {})
  ]
  return float(times[-1]) if times else 0.0


def _finished(
  trial: Trial, metrics: Mapping[str, float], seconds: float, diverged: bool
) -> Finished:
  config = config_to_json(trial.config)
  return Finished(trial.run, config, {} if diverged else metrics, seconds, diverged)


def _number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def joint(
  workdir: epath.Path,
  folder: epath.Path,
  group: Sequence[Trial],
  options: Mapping[str, Any],
) -> tuple[str, dict[str, Finished]]:
  """Runs in one program; afterwards each has a folder with its own records.

  Args:
    workdir: of the study: those folders are WORKDIR/runs/NAME.
    folder: workdir of the program.
    group: runs that differ in numbers alone, see `programs`.
    options: of `fit`.

  Returns:
    As `alone`.
  """
  first = group[0]
  folder.mkdir(parents=True, exist_ok=True)
  if not (folder / 'members.json').exists():
    write_json(folder / 'members.json', {'runs': [trial.name for trial in group]})
  outcome = fit(
    together(first.found.build, [trial.config for trial in group]),
    first.config,
    folder,
    name=first.found.name,
    module=first.found.module.__name__,
    **options,
  )
  if outcome.status != 'finished':
    return outcome.status, {}
  records = apart.read(folder, len(group))
  found = {}
  for i, trial in enumerate(group):
    lost = records.diverged[i]
    found[trial.name] = _finished(trial, records.metrics(i), records.seconds, lost)
    config = found[trial.name].config
    records.write(workdir / RUNS / trial.name, i, config)
  return 'finished', found


def _draw(workdir: epath.Path, study: Study, results: Results):
  (workdir / 'figures').mkdir(exist_ok=True)
  for name, draw in study.figures.items():
    data, _ = to_png(draw(results))
    write_bytes(workdir / 'figures' / f'{name}.png', data)
