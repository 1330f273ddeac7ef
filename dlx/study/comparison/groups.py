"""Groups of runs: those whose configs differ in the seed alone, or by named fields."""

import dataclasses
import difflib
import json
from typing import Any, Mapping, NamedTuple, Sequence

from dlx.config import Config
from dlx.errors import ConfigError
from dlx.run.records import agreement, declared
from dlx.study.comparison.workdirs import Trained

SEED = 'seed'
# They tell groups apart where they are asked for, only then.
ASKED = (SEED, 'folder', *agreement.FREE)
EVERY = frozenset(field.name for field in dataclasses.fields(Config))
ABSENT = '-'  # What stands for a field that a config does not have.
LABELLED = 3  # Fields in the label of a group; the others stand in the table of fields.


class Group(NamedTuple):
  """Runs that are samples of one thing.

  Attributes:
    label: what tells it from the other groups, one line.
    number: from 1, in the order in which the groups were met.
    fields: the values by which it was formed that not all groups share.
    runs: at least one.
  """

  label: str
  number: int
  fields: Mapping[str, Any]
  runs: Sequence[Trained]

  def values(self, metric: str) -> list[float]:
    """Of the runs that report a metric, also what is not finite."""
    return [run.metrics[metric] for run in self.runs if metric in run.metrics]

  def costs(self, name: str) -> list[float]:
    """Of the runs that know a cost."""
    return [run.costs[name] for run in self.runs if name in run.costs]


def group(runs: Sequence[Trained], by: Sequence[str] | None = None) -> list[Group]:
  """The groups, in the order in which their first runs stand.

  Args:
    runs: at least one.
    by: names of fields, of which runs of a group have the same values. None: all that
      decide results, but for the seed.

  Raises:
    ConfigError: a name that no run has.
  """
  known = {name: None for run in runs for name in run.fields}
  for name in by or ():
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = f'Did you mean {near[0]}?' if near else 'No run has it.'
      raise ConfigError(
        f'--by={name} is not allowed: must be a field of a config, or experiment, '
        f'init_from, source or folder. {hint}'
      )
  names = [name for name in known if name not in ASKED] if by is None else [*by]
  parts: dict[str, list[Trained]] = {}
  for run in runs:
    key = [_key(run.fields, name) for name in names]
    if by is None:  # The same fields on other data are another thing.
      key += [f'{k} {_key(run.data, k)}' for k in sorted(run.data) if not _packaged(k)]
    parts.setdefault(json.dumps(key), []).append(run)
  groups = [*parts.values()]
  told = differing([part[0].fields for part in groups], names)
  out: list[Group] = []
  for number, part in enumerate(groups, 1):
    own = part[0].fields
    peers = [p[0].fields for p in groups if _same(p[0].fields, own, 'experiment')]
    label = _label(own, peers, told)
    if any(label == other.label for other in out):
      label += f' ({number})'
    fields = {name: own.get(name, ABSENT) for name in told}
    out.append(Group(label, number, fields, part))
  return out


def differing(of: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
  """The names whose values are not the same everywhere."""
  return [name for name in names if len({_key(one, name) for one in of}) > 1]


def baseline(groups: Sequence[Group], text: str | None) -> Group:
  """The group that the others are compared with: by number or label; None: the first.

  Raises:
    ConfigError: no group is called so.
  """
  if text is None:
    return groups[0]
  for one in groups:
    if text in (one.label, str(one.number)):
      return one
  told = '; '.join(f'{one.number} ({one.label})' for one in groups)
  raise ConfigError(f'--baseline={text} is not allowed: must be one of {told}.')


def metrics(groups: Sequence[Group], asked: Sequence[str] | None = None) -> list[str]:
  """The "split/name" to compare: those asked for, else the headlines of the runs.

  Without a headline all that is reported but of training, else all.

  Raises:
    ConfigError: a name that no run reports.
  """
  runs = [run for one in groups for run in one.runs]
  reported = list(dict.fromkeys(name for run in runs for name in run.metrics))
  for name in asked or ():
    if name not in reported:
      raise ConfigError(
        f'--metrics={name} is not allowed: must be of {", ".join(reported)}.'
      )
  if asked:
    return list(dict.fromkeys(asked))
  lead = dict.fromkeys(n for run in runs for n in declared.headline(run.record))
  tested = [name for name in reported if not name.startswith('train/')]
  return [name for name in lead if name in reported] or tested or reported


def declaration(groups: Sequence[Group], metric: str) -> declared.Declared:
  """What the first run that reports a metric declares of it."""
  split, _, name = metric.rpartition('/')
  for one in groups:
    for run in one.runs:
      if metric in run.metrics:
        return declared.of(run.record, split, name)
  return declared.Declared(name)


def shown(value: Any) -> str:
  """A value of a field for people, one line."""
  if isinstance(value, list):
    return 'x'.join(map(shown, value)) or 'none'
  if isinstance(value, float):
    return f'{value:g}' if float(f'{value:g}') == value else repr(value)
  return ' '.join(str(value).split())


def _label(
  own: Mapping[str, Any], peers: Sequence[Mapping[str, Any]], told: Sequence[str]
) -> str:
  """The experiment where several are compared, and the fields that differ within it.

  Those of the experiment come before those that every run has.
  """
  varied = [name for name in differing(peers, told) if name != 'experiment']
  varied.sort(key=lambda name: name in EVERY)
  words = [shown(own['experiment'])] if 'experiment' in told or not varied else []
  words += [f'{name}={shown(own.get(name, ABSENT))}' for name in varied[:LABELLED]]
  more = len(varied) - LABELLED
  return ', '.join(words) + (f' and {more} more' if more > 0 else '')


def _packaged(name: str) -> bool:
  """Whether a part of an origin is the version of the package that a set comes with."""
  return name.rpartition('.')[2] == 'package'


def _key(of: Mapping[str, Any], name: str) -> str:
  return json.dumps(of.get(name, ABSENT), sort_keys=True)


def _same(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> bool:
  return _key(a, name) == _key(b, name)
