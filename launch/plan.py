"""Says of a run on machines that are not here whether it fits, and what it needs.

  python -m launch.plan --exp=cnn --topology=v5e:2x2
  python -m launch.plan --exp=char_gpt --config.size=1b --topology=v5e:16x16 \\
      --mesh=fsdp=64,tensor=4 --out=plan.json

The program that launch.train would run is compiled for the real target by its real
compiler; no data is placed and no device is used. Memory is what that compiler says,
operations are counted on the jaxpr, traffic and collectives are read from the compiled
program. The time is the least that published peaks allow: a bound, never a promise.
Evaluations are compiled for their memory alone, figures not at all; --noevaluations
leaves the former out.

Exit status: 0 it fits (with --sweep: some row does); 3 it does not, and a suggestion
that was compiled too is printed where one was found; 2 bad input, or a compiler that is
not installed (one line on stderr).
"""

import collections
import datetime
import functools
import json
import os
import pathlib
import shlex
import sys
from typing import Any, Callable, NamedTuple

from absl import flags

from dlx import config_json
from dlx.errors import ConfigError
from launch.flags import command_line, config_flags, paths
from launch.planning import hardware

DOES_NOT_FIT = 3
TRIALS = 4  # Compilations in search of a suggestion: each takes as long as the plan.


class Asked(NamedTuple):
  """What is planned: the experiment, its config, and where it is to run.

  Attributes:
    build: config -> Experiment.
    config: of the run.
    target: see hardware.py.
    devices: of the target.
    data_dir: of data whose size is not declared.
    evaluate: whether evaluations are compiled too.
  """

  build: Callable[[Any], Any]
  config: Any
  target: hardware.Target
  devices: list[Any]
  data_dir: str | None
  evaluate: bool = True

  def plan(self, mesh: str | None, config: Any = None):
    """The plan of this mesh, and of another config where one is given."""
    from launch.planning import program

    built = self.build(self.config if config is None else config)
    return program.make(
      built, self.target, self.devices, mesh, self.data_dir, self.evaluate
    )


def define(values: flags.FlagValues):
  """The launcher's own flags."""

  def text(name, default, help_):
    flags.DEFINE_string(name, default, help_, values, module_name='launcher')

  path = functools.partial(paths.define, values)

  def boolean(name, default, help_):
    flags.DEFINE_boolean(name, default, help_, values, module_name='launcher')

  text('exp', None, 'A name in experiments/, or the path of a .py file.')
  text('topology', None, f'CHIP:SHAPE, or 2xCHIP:SHAPE: {hardware.EXAMPLES}.')
  flags.DEFINE_integer(
    'num_slices',
    1,
    'TPU slices, or hosts of GPUs, of that shape.',
    lower_bound=1,
    flag_values=values,
    module_name='launcher',
  )
  text('mesh', None, 'As of launch.train, e.g. fsdp=64,tensor=4. Default: data.')
  path('out', None, 'JSON file of the plan, or of the rows of the sweep.')
  path('data_dir', None, 'Folder of data whose size is known only from its files.')
  boolean('evaluations', True, 'Also compile the evaluations, for their memory.')
  boolean('advise', True, 'Where it does not fit, search for a change that does.')
  boolean('sweep', False, 'Plan all meshes and batch sizes, ranked by the bound.')
  text('meshes', None, "Of the sweep, between semicolons: 'data=8; fsdp=4,tensor=2'.")
  flags.DEFINE_list(
    'batch_sizes', None, 'Of the sweep, e.g. 64,128.', values, module_name='launcher'
  )


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  hardware.prepare()
  values, found = command_line.parse(argv, define, __doc__ or '')
  target = hardware.parse(values.topology, values.num_slices)
  if not values.sweep and (values.meshes or values.batch_sizes):
    raise ConfigError('--meshes and --batch_sizes are allowed with --sweep alone.')
  config = config_flags.build(found.config_class, values).resolved()
  out = None if values.out is None else pathlib.Path(values.out)
  if out is not None and not out.parent.is_dir():
    raise ConfigError(f'--out={out} is not allowed: {out.parent} is no folder.')
  use_x64(config)
  there = hardware.devices(target)
  asked = Asked(found.build, config, target, there, values.data_dir, values.evaluations)
  about = {
    'experiment': found.name,
    'config': config_json.config_to_json(config),
    'command': shlex.join(['python', '-m', 'launch.plan', *argv[1:]]),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'versions': versions(),
  }
  if values.sweep:
    return _sweep(asked, values.meshes, values.batch_sizes, about, out)
  return _one(asked, values.mesh, values.advise, about, out)


def use_x64(config: Any):
  """64-bit numbers where the run would have them; nothing of jax is asked for yet."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  if 'float64' in (config.compute_dtype, config.param_dtype):
    jax.config.update('jax_enable_x64', True)
  # A program from the cache tells nothing of the time to compile, and the folder is
  # that of the runs on this machine.
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()  # Whether it is used was settled at its first use.


def versions() -> dict[str, Any]:
  """Those that decide a plan."""
  import importlib.metadata

  from dlx.run.records.environment import versions

  found: dict[str, Any] = dict(versions())
  for name in ('libtpu', 'jax-cuda13-plugin'):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return found


def _one(asked: Asked, mesh, advise: bool, about, out) -> int:
  from launch.planning import page

  plan = asked.plan(mesh)
  print(page.as_text(plan, asked.target), flush=True)
  advice = [] if plan.fits or not advise else suggest(asked, plan)
  for one in advice:
    memory = one['needs']
    fits = 'fits' if one['fits'] else 'does not fit'
    print(f'\n{one["flags"]}: {fits}, {memory} (compiled)', flush=True)
  if not plan.fits and advise and not any(one['fits'] for one in advice):
    print(
      '\nNo change that fits was found: take more devices, or a smaller model.',
      flush=True,
    )
  _write(out, {**about, **page.as_json(plan, asked.target), 'advice': advice})
  return 0 if plan.fits else DOES_NOT_FIT


def suggest(asked: Asked, plan) -> list[dict[str, Any]]:
  """Changes of flags that were compiled, the last of which fits if any does."""
  from launch.planning import advice, page

  rules = asked.build(asked.config).placement
  candidates = advice.edits(
    asked.config,
    plan.axes,
    plan.bytes_by_kind,
    plan.limit_bytes,
    evaluations=plan.evaluations,
    slices=asked.target.slices,
    tensor=any('tensor' in str(spec) for _, spec in rules),
  )
  found, scale = [], 1.0
  waiting = collections.deque(candidates)
  while waiting and len(found) < TRIALS:
    edit = waiting.popleft()
    if edit.estimate * scale > plan.limit_bytes:
      continue  # The last trial needed more than was guessed.
    try:
      changed = advice.applied(asked.config, edit)
      mesh = edit.mesh or ','.join(f'{k}={v}' for k, v in plan.axes.items())
      tried = asked.plan(mesh, changed)
    except ConfigError:
      continue  # Not for this experiment.
    needs = page.needs(tried)
    found.append(
      {
        'flags': edit.flags,
        'fits': tried.fits,
        'peak_bytes_per_device': tried.peak_bytes,
        'needs': needs,
        'bound_seconds': dict(tried.bound),
      }
    )
    if tried.fits:
      break
    print(f'\ntried {edit.flags}: {needs}', file=sys.stderr, flush=True)
    if tried.peak_bytes > tried.limit_bytes:
      scale = max(scale, tried.peak_bytes / edit.estimate)
    elif fewer := advice.smaller_evaluation(edit, asked.config):
      waiting.appendleft(fewer)
  return found


def _sweep(asked: Asked, meshes, sizes, about, out) -> int:
  import dataclasses

  from launch.planning import page, sweep

  rules = asked.build(asked.config).placement
  names = sweep.meshes(
    meshes,
    len(asked.devices),
    slices=asked.target.slices,
    tensor=any('tensor' in str(spec) for _, spec in rules),
  )
  rows, refused = [], []
  for size in sweep.batch_sizes(sizes, asked.config.batch_size):
    for mesh in names:
      try:
        config = dataclasses.replace(asked.config, batch_size=size)
        plan = asked.plan(mesh, config)
      except ConfigError as error:
        refused.append({'mesh': mesh, 'batch_size': size, 'error': str(error)})
        print(f'{mesh}, batch {size}: {error}', file=sys.stderr, flush=True)
        continue
      rows.append({'batch_size': size, **page.as_json(plan, asked.target)})
      print(f'{mesh}, batch {size}: compiled', file=sys.stderr, flush=True)
  rows = sweep.ranked(rows)
  if not rows:
    raise ConfigError(
      '--sweep: no mesh can have any of these batch sizes: '
      f'{refused[-1]["error"] if refused else "none was given"}'
    )
  print(page.sweep_table(rows))
  print(f'\n({page.BOUND})', flush=True)
  _write(out, {**about, 'rows': rows, 'refused': refused})
  return 0 if any(row['fits'] for row in rows) else DOES_NOT_FIT


def _write(out: pathlib.Path | None, plan: dict[str, Any]):
  if out is None:
    return
  beside = out.with_name(out.name + '.part')
  beside.write_text(json.dumps(plan, indent=1) + '\n')
  os.replace(beside, out)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
