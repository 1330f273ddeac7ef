"""What the workdirs of runs hold, for a comparison: read as data, never executed.

A file from a stranger may hold anything: what is not of the kind that is expected
counts as absent, and what cannot be read at all is a DataError.
"""

import glob
import hashlib
import math
import os
import pathlib
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from etils import epath

from dlx.errors import ConfigError, DataError
from dlx.run.records import declared
from dlx.run.records.json_files import flat, is_remote, read_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.study.curves import Curve

COSTS = ('seconds', 'train_seconds', 'examples_per_second', 'parameters', 'flops')
DEPTH = 3  # Of folders of runs within a folder that is named.
_MOVES = ('path', 'downloaded')  # Parts of an origin that a moved folder changes.


class Trained(NamedTuple):
  """A run.

  Attributes:
    path: of the workdir, as it was named or found.
    record: config.json.
    fields: what decides its results, by dotted name: `experiment`, every field of the
      config, `init_from`, `source` (of a fork: 8 digits of a sha256 over its files);
      and `folder`, the name of the one that it lies in, of a study that of the study.
    finished: whether result.json says so.
    step: the last one.
    stopped_early: whether early stopping ended it.
    metrics: the last values by "split/name", of members their mean; nan where a step of
      the run was not finite.
    members: names in `metrics` that are means over members.
    curves: by "split/name".
    costs: COSTS by name, those that are known: seconds in total and in training steps,
      examples a second, parameters, operations of all steps.
    data: what its splits were read from, by dotted name.
    together: how many runs the program trained that trained this one; its costs are
      its share of theirs.
    machine: device, threads, versions and commit, by name.
    fingerprint: of its final state; None: not known.
  """

  path: str
  record: Mapping[str, Any]
  fields: Mapping[str, Any]
  finished: bool
  step: int
  stopped_early: bool
  metrics: Mapping[str, float]
  members: frozenset[str]
  curves: Mapping[str, Curve]
  costs: Mapping[str, float]
  together: int
  data: Mapping[str, Any]
  machine: Mapping[str, Any]
  fingerprint: str | None

  @property
  def name(self) -> str:
    """Of the workdir, without the folders above it."""
    return os.path.basename(self.path.rstrip('/')) or self.path


class Found(NamedTuple):
  """Attributes:
  runs: that can be compared, in the order in which they were named.
  left_out: a line each on the others.
  """

  runs: list[Trained]
  left_out: list[str]


def find(words: Iterable[str], *, unfinished: bool = False) -> Found:
  """The runs in folders.

  Args:
    words: workdirs, folders of workdirs, or patterns of either.
    unfinished: whether runs under way count, with what they have written so far.

  Raises:
    ConfigError: a word that leads to no folder of a run.
  """
  found, seen = Found([], []), {}
  for path in folders(words):
    real = path if is_remote(path) else os.path.realpath(path)
    if real in seen:
      continue
    seen[real] = path
    try:
      run = read(path)
    except (DataError, OSError) as error:
      found.left_out.append(f'{path} is left out: {" ".join(str(error).split())}')
      continue
    if not run.finished and not unfinished:
      found.left_out.append(
        f'{path} is left out: not finished, at step {run.step:,} '
        '(--unfinished takes it as it is).'
      )
    elif run.fingerprint and run.fingerprint in seen:
      found.left_out.append(
        f'{path} is left out: the same bits as {seen[run.fingerprint]}, a copy or the '
        'same run again.'
      )
    else:
      found.runs.append(run)
      seen[run.fingerprint or object()] = path
  return found


def folders(words: Iterable[str]) -> Iterator[str]:
  """Workdirs of runs: those that are named, in folders, or meant by patterns.

  Raises:
    ConfigError: a word of which none is there.
  """
  for word in words:
    if is_remote(word):
      yield word
      continue
    word = os.path.expanduser(word)
    # A folder may have a name that is also a pattern.
    paths = [word] if os.path.isdir(word) else sorted(glob.glob(word))
    inside = [one for path in paths for one in _below(path, DEPTH)]
    if not inside:
      raise ConfigError(
        f'{word}: no folder of a run is there: give workdirs of launch.train, folders '
        'of them, or a pattern such as runs/mlp_*.'
      )
    yield from inside


def _below(path: str, depth: int) -> Iterator[str]:
  """The folder itself if it is a workdir, else the workdirs in it."""
  within = lambda name: os.path.lexists(os.path.join(path, name))
  if any(map(within, _OF_RUNS)):
    yield path
  elif within('study.json'):  # Beside its runs lie the programs that trained several.
    yield from _below(os.path.join(path, 'runs'), 1)
  elif depth and os.path.isdir(path):
    for name in sorted(os.listdir(path)):
      yield from _below(os.path.join(path, name), depth - 1)


_OF_RUNS = ('config.json', 'metrics.jsonl')


def read(workdir: Any) -> Trained:
  """A run as its workdir tells of it.

  Raises:
    DataError: no workdir of a run, or a damaged one.
    OSError: it cannot be read.
  """
  path = epath.Path(workdir)
  record, result = (_json(path / name) for name in ('config.json', 'result.json'))
  if not record:
    raise DataError(f'{path} holds no config.json: is it the workdir of a run?')
  curves, members, steps = _curves(MetricsFile(path).read())
  metrics = {name: points[-1][1] for name, points in curves.items()}
  finished = bool(result) and result.get('finished', True) is not False
  lost = path / 'diverged.json'
  diverged = result.get('diverged') is True or lost.exists()
  if not result and lost.exists():
    result = {'seconds': {'total': _json(lost).get('seconds')}}
  for name, value in flat(_mapping(result.get('metrics'))).items():
    if (number := _mean(value)) is not None:
      metrics[name] = number
      if isinstance(value, list):
        members.add(name)
  if diverged:  # Its last figures are those of a run that went on to lose them.
    names = [*declared.headline(record), *metrics]
    metrics, finished = dict.fromkeys(names, math.nan), True
  if not metrics:
    raise DataError(f'{path} reports no metric: nothing to compare.')
  step = _number(result.get('step'))
  step = int(steps if step is None else step)
  return Trained(
    path=os.fspath(workdir),
    record=record,
    fields=_fields(record, os.fspath(workdir)),
    finished=finished,
    step=step,
    stopped_early=result.get('stopped_early') is True,
    metrics=metrics,
    members=frozenset(members),
    curves=curves,
    costs=_costs(result, step),
    together=_members(result),
    data=_origins(result.get('dataset') or record.get('data')),
    machine=_machine(record, result),
    fingerprint=_text(result.get('fingerprint')) if finished else None,
  )


def _json(path: Any) -> dict[str, Any]:
  if not path.exists():
    return {}
  found = read_json(path)
  if not isinstance(found, dict):
    raise DataError(f'{path} holds no JSON object: take another workdir.')
  return found


def _mapping(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
  return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
  """A finite number of a size that people measure; else None."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  return float(value) if abs(value) < 1e30 else None  # Not nan either.


def _mean(value: Any) -> float | None:
  """A number, or the mean of a list of them, which may be nan; None: neither."""
  values = value if isinstance(value, list) else [value]
  if not values or not all(type(v) in (int, float) for v in values):
    return None
  try:
    return math.fsum(values) / len(values)
  except (OverflowError, ValueError):  # Too large, or infinities of both signs.
    return math.nan


def _curves(log: Sequence[Any]) -> tuple[dict[str, Curve], set[str], int]:
  """Points by "split/name", by step; which are means of members; the last step."""
  found: dict[str, dict[float, float]] = {}
  members, last = set(), 0
  for record in log:
    step, split = _number(record['step']), _text(record['split'])
    if step is None or split is None:
      continue
    last = max(last, int(step))
    for name, value in _mapping(record['metrics']).items():
      if (number := _mean(value)) is not None:
        found.setdefault(f'{split}/{name}', {})[step] = number
        if isinstance(value, list):
          members.add(f'{split}/{name}')
  return {name: sorted(points.items()) for name, points in found.items()}, members, last


def _fields(record: Mapping[str, Any], path: str) -> dict[str, Any]:
  experiment = _text(record.get('experiment')) or '?'
  fork = experiment.endswith('.py')
  fields = {'experiment': pathlib.PurePath(experiment).stem if fork else experiment}
  fields |= flat(_mapping(record.get('config')))
  origin = _mapping(record.get('init_from'))
  if origin:
    fields['init_from'] = str(origin.get('digest') or origin.get('path'))
  source = _mapping(record.get('source'))
  digests = _mapping(source.get('sha256'))
  if fork and digests:
    every = ' '.join(sorted(str(digest) for digest in digests.values()))
    fields['source'] = hashlib.sha256(every.encode()).hexdigest()[:8]
  above, folder = os.path.split(os.path.dirname(os.path.abspath(path)))
  fields['folder'] = os.path.basename(above) if folder == 'runs' else folder
  return fields


def _origins(value: Any) -> dict[str, Any]:
  return {
    name: origin
    for name, origin in flat(_mapping(value)).items()
    if name.rpartition('.')[2] not in _MOVES
  }


def _costs(result: Mapping[str, Any], step: int) -> dict[str, float]:
  seconds = _mapping(result.get('seconds'))
  flops = _number(result.get('flops_per_step'))
  found = {
    'seconds': _number(seconds.get('total')),
    'train_seconds': _number(seconds.get('train')),
    'parameters': _number(result.get('parameters')),
    'flops': None if flops is None else flops * step,
  }
  members = _members(result)
  found = {k: x if x is None else x / members for k, x in found.items()}
  found['examples_per_second'] = _number(result.get('examples_per_second'))
  return {name: x for name in COSTS if (x := found[name]) is not None}


def _members(result: Mapping[str, Any]) -> int:
  """How many runs of a study one program trained together with this one."""
  found = _mapping(result.get('together')).get('members')
  return found if type(found) is int and found > 0 else 1


def _machine(record: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
  of = lambda name: result.get(name) or record.get(name)
  device, git = _mapping(of('device')), _mapping(of('git'))
  found = {
    'device': ' x '.join(str(device[k]) for k in ('count', 'kind') if k in device),
    'threads': of('threads'),
    'processes': of('processes'),
    **_mapping(of('versions')),
  }
  commit = str(git.get('commit') or '')[:8]
  found['commit'] = commit + (' with changes' if git.get('dirty') else '')
  return {name: value for name, value in found.items() if value not in (None, '')}
