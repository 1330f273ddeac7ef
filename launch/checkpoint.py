"""Looks at the checkpoints of a run: on any machine, on one CPU; writes nothing.

  python -m launch.checkpoint ls WORKDIR            steps, sizes, which is best
  python -m launch.checkpoint inspect WORKDIR       leaves of the newest, or --step=N
  python -m launch.checkpoint verify WORKDIR        every leaf against its checksum
  python -m launch.checkpoint diff WORKDIR 100 200  two steps of a run
  python -m launch.checkpoint diff WORKDIR WORKDIR  two runs: their newest, or --step=N

`ls` and `inspect --nonorms` read the metadata alone and say so. Exit status: 0; 1 where
`verify` finds damage or `diff` a difference; 2 bad input, in one line.
"""

import datetime
import os
import sys
from typing import TYPE_CHECKING, Callable

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line

if TYPE_CHECKING:
  from dlx.run.checkpoint.proof import Opened

_WORDS = {'ls': 'WORKDIR', 'inspect': 'WORKDIR', 'verify': 'WORKDIR', 'diff': 'A B'}
_CHEAP_BYTES = 2**30  # Norms of a larger checkpoint are computed when asked for.
_TRIES = 20  # Of looking at a run that saves every moment.
_LINES = 5  # Damaged parts of one checkpoint that are named.


def define(values: flags.FlagValues):
  """The launcher's own flags."""
  flags.DEFINE_integer(
    'step',
    None,
    'Step of the checkpoint. Default: the newest; verify: all.',
    lower_bound=0,
    flag_values=values,
    module_name='launcher',
  )
  flags.DEFINE_boolean(
    'norms',
    None,
    'inspect: read the leaves for their norms and means. Default: up to 1 GiB.',
    values,
    module_name='launcher',
  )


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  command, places = command_line.chosen(words, _WORDS)
  if len(places) not in ((2, 3) if command == 'diff' else (1,)):
    raise ConfigError(
      f'{command} {" ".join(places)}: give {command} {_WORDS[command]}'
      f'{" or diff WORKDIR STEP STEP" if command == "diff" else ""}.'
    )
  # The accelerators belong to the run that may be going on.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  import jax

  from dlx.run.checkpoint import quiet

  with jax.enable_x64(True), quiet.orbax():  # Leaves of 8 bytes an element.
    return run(command, places, values)


def run(command: str, places: list[str], values: flags.FlagValues) -> int:
  """One of the commands; returns the exit status."""
  if command == 'ls':
    return show_list(places[0])
  if command == 'verify':
    return verify(places[0], values.step)
  if command == 'inspect':
    return looked_at(lambda x: inspect(x, values.norms), (places[0], values.step))
  if len(places) == 2:
    return looked_at(diff, *((place, values.step) for place in places))
  if values.step is not None:
    raise ConfigError(
      f'--step={values.step} is not allowed beside the steps {" ".join(places[1:])}.'
    )
  return looked_at(diff, *((places[0], _number(word)) for word in places[1:]))


# Finding.


def folder_of(workdir: str):
  """The folder of checkpoints of a workdir.

  Raises:
    ConfigError: there is none.
  """
  from dlx.run.checkpoint import files
  from dlx.run.records.workdir import absolute

  folder = absolute(workdir) / 'checkpoints'
  if not folder.is_dir():
    raise ConfigError(f'{workdir} holds no checkpoints: give the --workdir of a run.')
  if not files.steps(folder):
    raise ConfigError(f'{folder} holds no finished checkpoint: train there first.')
  return folder


def open_step(workdir: str, step: int | None) -> 'Opened':
  """A checkpoint; None: the newest.

  Raises:
    ConfigError: it is not there, or its metadata is damaged.
  """
  from dlx.run.checkpoint import files, proof

  folder = folder_of(workdir)

  def pick() -> int:
    steps = files.steps(folder)
    if not steps or step not in (None, *steps):
      which = '' if step is None else f' of step {step}'
      raise ConfigError(
        f'{folder} has no checkpoint{which}: there are '
        f'{", ".join(map(str, steps)) or "none, as the run has removed them"}.'
      )
    return steps[-1] if step is None else step

  return files.follow(folder, pick, lambda found: proof.open_sound(folder / str(found)))


def looked_at(command: Callable[..., int], *places: tuple[str, int | None]) -> int:
  """`command` of checkpoints, which prints once all is read.

  They are opened anew where a run removes one of them meanwhile.

  Args:
    places: (workdir, step) of each, see `open_step`.

  Raises:
    ConfigError: see `open_step`; or what is there is damaged.
  """
  from dlx.run.checkpoint import files

  for _ in range(_TRIES):
    opened = [open_step(*place) for place in places]
    try:
      return command(*opened)
    except ConfigError:
      if all(files.is_finished(each.path) for each in opened):
        raise
  return command(*(open_step(*place) for place in places))


def _number(word: str) -> int:
  if not word.isdecimal():
    raise ConfigError(f'{word!r} is no step: give diff WORKDIR STEP STEP.')
  return int(word)


# The commands.


def show_list(workdir: str) -> int:
  """Prints one line a checkpoint, and what else lies there."""
  from dlx.run.checkpoint import files
  from dlx.run.checkpoint.checkpointer import Checkpointer
  from dlx.run.records.json_files import read_json

  folder = folder_of(workdir)
  record = folder.parent / 'config.json'
  config = read_json(record).get('config', {}) if record.exists() else {}
  metric, mode = config.get('best_metric'), config.get('best_mode', 'max')
  reader = Checkpointer(folder, read_only=True, best_metric=metric, best_mode=mode)
  steps, best = reader.steps(), reader.best()
  reader.close()
  rows = [['step', 'saved', 'size', 'metadata', '']]
  for step in steps:
    path = folder / str(step)
    try:
      meta = files.read_meta(path)
      missing = not (path / 'arrays' / 'manifest.ocdbt').exists()
      state = 'arrays missing' if missing else 'sound'
    except (files.Damaged, OSError) as error:
      meta, state = {}, f'damaged: {files.one_line(error)}'
    told = ['newest'] if step == steps[-1] else []
    if step == best and metric in meta.get('metrics', {}):
      told.append(f'best {metric} {_text(meta["metrics"][metric])}')
    size = files.size_on_disk(path)
    try:
      saved = datetime.datetime.fromtimestamp(path.stat().mtime)
    except FileNotFoundError:
      continue  # The run has removed it since.
    rows.append(
      [str(step), saved.isoformat(' ', 'seconds'), _size(size), state, ', '.join(told)]
    )
  _print_table(rows)
  for path in files.others(folder):
    what = 'was set aside' if '.corrupt' in path.name else 'the next start cleans it'
    print(f'{path.name}  {_size(files.size_on_disk(path))}  {what}')
  return 0


def inspect(opened: 'Opened', norms: bool | None) -> int:
  """Prints the leaves of a checkpoint and its metrics."""
  from dlx.run.checkpoint import proof

  leaves, sizes = opened.meta['leaves'], opened.bytes
  total = sum(sizes.values())
  known = {}
  if norms or (norms is None and total <= _CHEAP_BYTES):
    for part in proof.sound_leaves(opened, leaves):
      known |= {name: _norm_and_mean(x) for name, x in part.items()}
  rows = [['leaf', 'dtype', 'shape', 'bytes', 'norm', 'mean']]
  for name, (dtype, shape) in leaves.items():
    figures = known.get(name, ('', ''))
    rows.append([name, dtype, str(tuple(shape)), f'{sizes[name]:,}', *figures])
  print(f'{opened.path}, digest {opened.meta["digest"][:16]}')
  _print_table(rows)
  print(f'{len(leaves)} leaves, {_size(total)}')
  for name, value in sorted(opened.meta['metrics'].items()):
    print(f'{name} {_text(value)}')
  if not known:
    print('Norms and means: --norms (reads every leaf).')
  return 0


def verify(workdir: str, step: int | None) -> int:
  """Reads every leaf; prints one line a checkpoint, and the parts that are damaged."""
  from dlx.run.checkpoint import files, proof

  folder = folder_of(workdir)
  if step is not None:
    open_step(workdir, step)
  worst = 0
  for each in files.steps(folder) if step is None else [step]:
    damage = proof.damaged_parts(folder / str(each))
    if damage and not files.is_finished(folder / str(each)):
      if step is not None:
        print(f'{each}: removed by the run meanwhile')
      continue
    worst |= bool(damage)
    print(f'{each}: {f"DAMAGED, {len(damage)} part(s)" if damage else "sound"}')
    for line in damage[:_LINES]:
      print(f'  {line}')
    if len(damage) > _LINES:
      print(f'  and {len(damage) - _LINES} more')
  return worst


def diff(a: 'Opened', b: 'Opened') -> int:
  """Prints the leaves that differ. Those of equal checksums are not read."""
  import numpy as np

  from dlx.run.checkpoint import proof

  kinds_a, kinds_b = a.meta['leaves'], b.meta['leaves']
  names = sorted(kinds_a.keys() | kinds_b.keys())
  told: dict[str, str] = {}
  for name in names:
    if name not in kinds_a or name not in kinds_b:
      told[name] = f'only in {(a if name in kinds_a else b).path}'
    elif kinds_a[name] != kinds_b[name]:
      told[name] = f'{_kind(kinds_a[name])} and {_kind(kinds_b[name])}'
  sums_a, sums_b = a.meta['checksums'], b.meta['checksums']
  unequal = [n for n in names if n not in told and sums_a[n] != sums_b[n]]
  largest = 0.0, ''
  for part in proof.groups(a.bytes, unequal):
    (x,), (y,) = list(proof.sound_leaves(a, part)), list(proof.sound_leaves(b, part))
    for name in part:
      count = int((x[name] != y[name]).sum())
      if kinds_a[name][0].startswith('key<'):
        told[name] = 'another random key'
        continue
      u, v = x[name].astype(np.float64), y[name].astype(np.float64)
      apart = np.abs(u - v)
      scale = np.maximum(np.abs(u), np.abs(v))
      relative = np.divide(apart, scale, out=np.zeros_like(apart), where=scale > 0)
      told[name] = (
        f'{_kind(kinds_a[name])}, {count} of {apart.size} differ, by at most '
        f'{apart.max():.3g} (relative {relative.max():.3g})'
      )
      largest = max(largest, (float(apart.max()), name))
  _print_table([[name, told[name]] for name in names if name in told])
  print(
    f'{len(told)} of {len(names)} leaves differ between {a.path} and {b.path}'
    + (f'; most of all {largest[1]}, by {largest[0]:.3g}' if largest[1] else '')
  )
  return int(bool(told))


# Printing.


def _norm_and_mean(x) -> tuple[str, str]:
  import jax.numpy as jnp
  import numpy as np

  if not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
    return '', ''
  wide = x.astype(np.float64)
  return f'{np.sqrt((wide * wide).sum()):.5g}', f'{wide.mean():.5g}'


def _kind(kind) -> str:
  dtype, shape = kind
  return f'{dtype}[{",".join(map(str, shape))}]'


def _text(value) -> str:
  return f'{value:.6g}' if isinstance(value, float) else str(value)


def _size(count: float) -> str:
  for unit in ('bytes', 'kB', 'MB', 'GB'):
    if count < 1000:
      break
    count, unit = count / 1000, 'TB'
  return f'{count:.3g} {unit}'


def _print_table(rows: list[list[str]]):
  widths = (
    [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
  )
  for row in rows:
    print('  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())


if __name__ == '__main__':
  sys.exit(main(sys.argv))
