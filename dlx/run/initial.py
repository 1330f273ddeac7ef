"""`--init_from=W[:step]`: a run that begins with the parameters of another run.

  source = initial.source('runs/a:best', 'head/.*')    what was asked for
  source.check(shapes)                                  refuses; reads no array
  state, origin = source.take(state)                    once, before step 0

What is the same by name and shape is taken: parameters, and statistics of batches; of a
run that keeps an average of its parameters, that average. Averages and other copies of
the parameters begin as copies of what was taken. The optimiser, the step, random keys
and all else that a run remembers begin anew.
"""

import fnmatch
import hashlib
import json
import math
import os
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run.records.config_file import read_run
from dlx.run.records.workdir import absolute
from dlx.run.warm_start import read
from dlx.state import TrainState, leaves_by_path
from dlx.train import early_stopping

FLAG = '--init_from='
_SHOWN = 3  # Names in a line of the report.
_ROWS = {
  'taken': 'taken',
  'left_out': 'left out (there alone)',
  'new': 'newly made',
  'cast': 'cast',
}
# (dtype, shape), of a leaf of a checkpoint or of a state.
Kind = tuple[str, tuple[int, ...]]


class Source(NamedTuple):
  """What a run begins with.

  Attributes:
    workdir: of the other run, absolute.
    step: 'latest', 'best' or a number, as it was asked for.
    skip: patterns of paths of parameters that are left new.
  """

  workdir: str
  step: int | str
  skip: tuple[str, ...] = ()

  def asked(self) -> dict[str, Any]:
    """As it stands in config.json, and is compared when the run goes on."""
    return {'workdir': self.workdir, 'asked': self.step, 'skip': list(self.skip)}

  def refuse(self, workdir: Any):
    """Raises ConfigError where it is the workdir of the run that would begin."""
    if str(absolute(workdir)) == self.workdir:
      raise ConfigError(
        f'{FLAG}{self.workdir} is not allowed: is the --workdir itself: choose another '
        '--workdir for the new run.'
      )

  def check(self, state: TrainState):
    """Refuses what cannot be taken; reads names and shapes alone.

    Args:
      state: its arrays or ShapeDtypeStructs.

    Raises:
      ConfigError: see `take`.
    """
    self._read(_kinds(leaves_by_path(state)), lambda matched: {})

  def take(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The state before step 0 with the parameters of the other run.

    Returns:
      Leaves in the dtypes of `state`; and the origin, as JSON: `asked`, what
      `warm_start.read` says, `config_sha256` of that run's config, whether `averaged`
      parameters were taken, and `taken`, `left_out` (there alone), `new` (here alone,
      or of another shape there) and `cast`, each with its `arrays`, `numbers`, `names`.

    Raises:
      ConfigError: no run, no such checkpoint, a corrupt one, a pattern or a run of
        which nothing fits; one line.
    """
    here = leaves_by_path(state)
    names = lambda matched: set(matched.taken.values())
    leaves, origin, matched = self._read(_kinds(here), names)
    values = {
      name: jnp.asarray(np.asarray(leaves[f'state/{there}']).astype(here[name].dtype))
      for name, there in matched.taken.items()
    }
    values |= _follow(here, values)
    new = [values.get(name, leaf) for name, leaf in here.items()]
    state = jax.tree.unflatten(jax.tree.structure(state), new)
    config = json.dumps(read_run(self.workdir, FLAG)['config'], sort_keys=True)
    sha256 = hashlib.sha256(config.encode()).hexdigest()
    origin |= {'config_sha256': sha256, **matched.report()}
    return early_stopping.begun(state), {**self.asked(), **origin}

  def _read(self, here: Mapping[str, Kind], wanted):
    """(leaves, origin, what matches); `wanted` picks the leaves from what matches."""
    found = []

    def choose(leaves):
      there = {
        name.removeprefix('state/'): (dtype, tuple(shape))
        for name, (dtype, shape) in leaves.items()
        if name.startswith('state/')
      }
      found[:] = [match(there, here, self)]
      kind = lambda name: jax.ShapeDtypeStruct(*reversed(_jax(there[name])))
      return {f'state/{name}': kind(name) for name in wanted(found[0])}

    with jax.enable_x64(True):  # A run in float64 is read as it is.
      leaves, origin = read(self.workdir, self.step, choose, flag=FLAG)
    return leaves, origin, found[0]


def source(
  text: str | os.PathLike | None, skip: str | Sequence[str] = ()
) -> Source | None:
  """What --init_from and --init_skip ask for; None: nothing.

  Args:
    text: WORKDIR or WORKDIR:STEP. A colon in the last part of a path is taken for that
      before a step.
    skip: patterns, or a text of them by comma. Each is a regular expression or a glob,
      and must match the whole path of a parameter, as in `head/kernel`.

  Raises:
    ConfigError: no such step, no workdir, or patterns alone.
  """
  patterns = skip.split(',') if isinstance(skip, str) else skip
  patterns = tuple(p for p in patterns if p)
  if text is None:
    if patterns:
      raise ConfigError(
        f'--init_skip={",".join(patterns)} is not allowed without {FLAG}WORKDIR.'
      )
    return None
  text = os.fspath(text)
  workdir, colon, step = text.rpartition(':')
  if not colon or '/' in step:
    workdir, step = text, 'latest'
  if not workdir or not (step in ('latest', 'best') or step.isdecimal()):
    raise ConfigError(
      f'{FLAG}{text} is not allowed: must be WORKDIR or WORKDIR:STEP, with STEP '
      'latest, best or a number of steps.'
    )
  step = int(step) if step.isdecimal() else step
  return Source(str(absolute(workdir)), step, patterns)


class Match(NamedTuple):
  """What is taken for what, by names such as `params/head/kernel`.

  Attributes:
    there, here: kinds of the leaves of the model in both runs; there of averages, too.
    taken: names here -> there.
    averaged: whether there are averages among them.
    skipped: names here.
  """

  there: Mapping[str, Kind]
  here: Mapping[str, Kind]
  taken: Mapping[str, str]
  averaged: bool
  skipped: frozenset[str]

  def report(self) -> dict[str, Any]:
    """See `Source.take`."""
    new = [name for name in self.here if name not in self.taken]
    pairs = self.taken.items()
    cast = [n for n, other in pairs if self.there[other][0] != self.here[n][0]]
    used = {*self.here, *self.taken.values()}
    return {
      'averaged': self.averaged,
      'taken': _counted(self.here, self.taken),
      'left_out': _counted(self.there, [n for n in self.there if n not in used]),
      'new': {**_counted(self.here, new), 'names': [self._why(name) for name in new]},
      'cast': _counted(self.here, cast),
    }

  def _why(self, name: str) -> str:
    if name in self.skipped:
      return f'{name} (skipped)'
    if name in self.there:
      return f'{name} ({_text(self.here[name])}, there {_text(self.there[name])})'
    return name


def match(there: Mapping[str, Kind], here: Mapping[str, Kind], asked: Source) -> Match:
  """What of one run fits another.

  Args:
    there, here: kinds of all leaves of the two states, by name.
    asked: `skip` is read.

  Raises:
    ConfigError: a pattern or a run of which nothing fits.
  """
  averages = {of: n for tree in _mirrors(there, ('ema',)) for n, of in tree.items()}
  ours, theirs = _of_model(here), _of_model(there)
  for pattern in asked.skip:
    if not any(_matches(pattern, name) for name in ours):
      raise ConfigError(
        f'--init_skip={pattern} is not allowed: must match the whole path of a '
        f'parameter of this run, such as {_path(next(iter(ours), "head/kernel"))}.'
      )
  skipped = {n for n in ours if any(_matches(p, n) for p in asked.skip)}
  fits = lambda a, b: a[1] == b[1] and (a[0] == b[0] or _floats(a) and _floats(b))
  same = [n for n in ours if n in theirs and fits(ours[n], theirs[n])]
  taken = {n: averages.get(n, n) for n in same if n not in skipped}
  if not any(name.startswith('params') for name in taken):
    one = lambda of: next((f'{_path(n)} ({_text(k)})' for n, k in of.items()), 'none')
    why = f'there {one(theirs)}, here {one(ours)}'
    why = 'all that would fit is in --init_skip' if same else why
    raise ConfigError(
      f'{FLAG}{asked.workdir} is not allowed: no parameter there has the name and '
      f'shape of one here ({why}): give a run of the same layers.'
    )
  averaged = any(other != name for name, other in taken.items())
  kinds = {other: there[other] for other in {*theirs, *taken.values()}}
  return Match(kinds, ours, taken, averaged, frozenset(skipped))


def told(origin: Mapping[str, Any]) -> list[str]:
  """The report of `take` for a person, line by line."""
  what = 'averaged parameters' if origin['averaged'] else 'parameters'
  lines = [f'{FLAG}{origin["path"]}:{origin["step"]}, {what} of {origin["experiment"]}']
  for row, words in _ROWS.items():
    arrays, numbers, names = (origin[row][k] for k in ('arrays', 'numbers', 'names'))
    if row == 'cast' and not arrays:
      continue
    more = f', and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    shown = f': {", ".join(names[:_SHOWN])}{more}' if row != 'taken' and names else ''
    lines.append(f'  {words}: {arrays:,} arrays, {numbers:,} numbers{shown}')
  return lines


# Names and trees of leaves.


def _kinds(leaves: Mapping[str, Any]) -> dict[str, Kind]:
  return {name: (str(x.dtype), tuple(x.shape)) for name, x in leaves.items()}


def _jax(kind: Kind):
  return jnp.dtype(kind[0]), kind[1]


def _floats(kind: Kind) -> bool:
  return 'float' in kind[0]


def _text(kind: Kind) -> str:
  return ' x '.join(map(str, kind[1])) or 'scalar'


def _counted(kinds: Mapping[str, Kind], names: Iterable[str]) -> dict[str, Any]:
  names = list(names)
  numbers = sum(math.prod(kinds[name][1]) for name in names)
  return {'arrays': len(names), 'numbers': numbers, 'names': names}


def _of_model(leaves: Mapping[str, Kind]) -> dict[str, Kind]:
  """Parameters, and statistics: parts of model_state that are named as flax names them,
  or as a part of the parameters (a player, a task) is.
  """
  parts = {name.split('/')[1] for name in leaves if name.startswith('params/')}
  parts = {f'model_state/{part}' for part in (*parts, 'batch_stats')}
  return {
    name: kind
    for name, kind in leaves.items()
    if name.split('/')[0] == 'params' or '/'.join(name.split('/')[:2]) in parts
  }


def _path(name: str) -> str:
  """Of a parameter or statistic, below `params` and its like."""
  for start in ('params/', 'model_state/batch_stats/', 'model_state/'):
    if name.startswith(start):
      return name.removeprefix(start)
  return name


def _matches(pattern: str, name: str) -> bool:
  """Whether a regular expression or a glob matches the whole path."""
  path = _path(name)
  if fnmatch.fnmatchcase(path, pattern):
    return True
  try:
    return re.fullmatch(pattern, path) is not None
  except re.error:  # A glob that is no regular expression.
    return False


def _groups(leaves: Iterable[str], part: str) -> dict[str, list[str]]:
  """{'ema': names, 'ema/g': names, ...}: a part of the state and its parts."""
  groups: dict[str, list[str]] = {}
  for name in leaves:
    first, *rest = name.split('/')
    if first == part:
      groups.setdefault(part, []).append(name)
      if len(rest) > 1:
        groups.setdefault(f'{part}/{rest[0]}', []).append(name)
  return groups


def _mirrors(leaves: Mapping[str, Kind], parts: Sequence[str]) -> list[dict[str, str]]:
  """Leaves of `parts` -> those of the model of which they are copies, tree by tree.

  A part, or a part of it, is a copy of a tree of the same names and shapes. Statistics
  begin alike everywhere, so that in model_state copies of parameters alone are told.
  """
  inside = lambda group, names: {
    name.removeprefix(group): leaves[name][1] for name in names
  }
  params = _groups(leaves, 'params')
  trees = {**params, **_groups(_of_model(leaves), 'model_state')}
  found: list[dict[str, str]] = []
  for part in parts:
    for group, names in _groups(leaves, part).items():
      if group in trees or any(names[0] in tree for tree in found):
        continue
      for other, of in (params if part == 'model_state' else trees).items():
        if inside(group, names) == inside(other, of):
          found.append({n: other + n.removeprefix(group) for n in names})
          break
  return found


def _follow(here: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
  """New values of what begins as a copy: an average, a momentum encoder."""
  new = {}
  for tree in _mirrors(_kinds(here), ('ema', 'model_state')):
    if _equal([(here[name], here[of]) for name, of in tree.items()]):
      new |= {
        name: values[of].astype(here[name].dtype)
        for name, of in tree.items()
        if of in values
      }
  return new


@jax.jit
def _equal(pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
  return jnp.stack([(a == b.astype(a.dtype)).all() for a, b in pairs]).all()
