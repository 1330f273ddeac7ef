"""What a run that goes on must share with what its workdir says of it.

| | changed since the run began |
| --- | --- |
| FREE fields of the config; workdir and files moved or renamed | goes on |
| `num_steps` raised | goes on where no step depends on it; else --extend |
| a new field of the config, at its default | goes on, with a note |
| the experiment's source | goes on, with a note; refused where the run is finished |
| --init_from left out | goes on; the other run is not read again |
| another --init_from or --init_skip | refused |
| versions, devices, threads, settings of jax and XLA | goes on, with a note |
| on a CPU its vendor, model and instruction sets | goes on, with a note |
| the kernels and calls of C++ in a program | goes on, with a note |
| the data | refused, unless --data_changed |
| any other field; another experiment | refused |
"""

import pathlib
from typing import Any, Mapping

from dlx.errors import ConfigError
from dlx.run.records.json_files import flat

# They decide no bit of the state; `eval_every_steps` does where there is `after_eval`.
FREE = (
  *('eval_batch_size', 'log_every_steps', 'save_every_steps', 'figure_every_steps'),
  *('eval_at_start', 'keep_checkpoints', 'best_metric', 'best_mode'),
  *('steps_per_dispatch', 'stream', 'stream_workers'),
)
_MOVES = ('path', 'downloaded')  # Parts of an origin that a moved folder changes.


def experiment(
  path: Any, former: Mapping[str, Any], name: str, same_source: bool
) -> None:
  """Refuses another experiment: of another name, file name and source.

  Args:
    path: of the workdir.
    former: config.json.
    name: of the experiment, or the path of its file.
    same_source: whether the code is the same.
  """
  stem = lambda text: pathlib.PurePath(str(text)).stem
  if not same_source and stem(former.get('experiment')) != stem(name):
    raise ConfigError(
      f'--workdir={path} holds a run of --exp={former.get("experiment")}, not of '
      f'--exp={name}: use another --workdir, or --fresh.'
    )


def config(
  path: Any,
  former: Mapping[str, Any],
  now: Mapping[str, Any],
  defaults: Mapping[str, Any],
  free: tuple[str, ...] = FREE,
) -> list[str]:
  """What changed of what may change, one text each; `num_steps` may be raised.

  Args:
    path: of the workdir.
    former: the config that config.json has.
    now, defaults: of today, as JSON.
    free: fields that may change.

  Raises:
    ConfigError: a field that may not change did.
  """
  then, here, usual = flat(former), flat(now), flat(defaults)
  notes, wrong = [], []
  for name in sorted(then.keys() | here.keys()):
    old, new = then.get(name), here.get(name)
    if name not in then:
      if new == usual.get(name):
        notes.append(f'{name}={new} is new since the run began')
        continue
    elif old == new:
      continue
    elif name in free or (name == 'num_steps' and (old or 0) < (new or 0)):
      notes.append(f'{name} was {old}, is {new}')
      continue
    wrong.append(f'{name}: {old} there, {new} here')
  if wrong:
    raise ConfigError(
      f'--workdir={path} holds a run of another config ({", ".join(wrong)}): use '
      'the same flags to go on, another --workdir, or --fresh.'
    )
  return notes


def init_from(path: Any, former: Mapping[str, Any] | None, now: Mapping | None):
  """Refuses that a run goes on with other parameters to begin with than it began with.

  Args:
    path: of the workdir.
    former: `init_from` of config.json.
    now: `Source.asked`; None passes.
  """
  then = former and {name: former.get(name) for name in now or ()}
  if now is None or then == now:
    return

  def text(of):
    skip = f' --init_skip={",".join(of["skip"])}' if of['skip'] else ''
    return f'--init_from={of["workdir"]}:{of["asked"]}{skip}'

  raise ConfigError(
    f'{text(now)} is not allowed: the run in --workdir={path} began '
    f'{f"with {text(then)}" if then else "without"}: leave it out to go on, or use '
    'another --workdir, or --fresh.'
  )


def equal(path: Any, there: Mapping[str, Any], mine: Mapping[str, Any]):
  """Refuses that two processes of one run have other names or configs.

  Raises:
    ConfigError: names what differs.
  """
  names = ('experiment', 'config')
  then, here = (flat({name: of[name] for name in names}) for of in (there, mine))
  wrong = [
    f'{name}: {then.get(name)} there, {here.get(name)} here'
    for name in sorted(then.keys() | here.keys())
    if then.get(name) != here.get(name)
  ]
  if wrong:
    raise ConfigError(
      f'--workdir={path}: process 0 has another config ({", ".join(wrong)}): give '
      'every process the same flags.'
    )


def data(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  """How the data of splits differ from those of then, one text each."""
  plain = lambda origins: {
    name: value
    for name, value in flat(origins).items()
    if name.rpartition('.')[2] not in _MOVES
  }
  then, here = plain(former), plain(now)
  return [
    f'{name} was {then.get(name)}, is {here.get(name)}'
    for name in sorted(then.keys() | here.keys())
    if then.get(name) != here.get(name)
  ]


def environment(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  """What is not as it was of what may decide bits besides."""
  pairs = {name: (former.get(name), now[name]) for name in ('threads', 'xla_flags')}
  parts = ['versions', 'device', 'jax']
  if now['device']['platform'] == 'cpu':  # Elsewhere it computes no step.
    parts.append('processor')
  for part in parts:
    known = former.get(part)
    if known is None:
      continue  # Written before this was recorded.
    pairs |= {f'{part} {k}': (known.get(k), v) for k, v in now[part].items()}
  return [
    f'{name} was {old}, is {new}' for name, (old, new) in pairs.items() if old != new
  ]


def calls(former: Mapping[str, Any], now: Mapping[str, int]) -> list[str]:
  """What a program calls more or less often than then, one text each."""
  return [
    f'calls of {name} in the program were {former.get(name, 0)}, are {now.get(name, 0)}'
    for name in sorted(former.keys() | now.keys())
    if former.get(name, 0) != now.get(name, 0)
  ]
