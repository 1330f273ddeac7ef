"""Searches the best config of an experiment; the same command goes on where it ended.

  python -m launch.sweep --exp=mlp --sweep='config.lr=log(1e-4,1e-1,8)' --seeds=3
    --search=random --trials=20 --metric=validation/loss --config.validation=0.1

--sweep, once a field of the Config, groups too: config.FIELD=RANGE, RANGE one of

  1e-3,3e-3            values; of tuples, or of texts with commas, by |: 32,64|64,64
  lin(0,0.5,6)         6 values a constant difference apart
  log(1e-4,1e-2,8)     8 values a constant factor apart
  int(1,4)             any whole number from 1 to 4
  uniform(0,0.5)       any number between
  loguniform(1e-4,1)   the same, uniform in its logarithm

and behind it `if config.OTHER=VALUE`, or VALUE|VALUE: varied only there. Other fields
are fixed by --config.NAME=VALUE. Runs that differ in the seed, or in fields that the
experiment names as SWEPT, are trained by one program; the rest one after the other.

--storage=postgresql://USER@HOST/DATABASE lets any number of processes on any machines
share a search: each starts the same command. A worker that dies is replaced by another,
which goes on from its checkpoint where both have one --workdir.

It leaves WORKDIR/report.html, table.md and best.flags, which --flagfile takes, and
prints the command that trains it. Exit status: 0 finished; 2 bad input; 42 asked to
leave by a signal: the same command goes on.
"""

import importlib.util
import os
import sys
from typing import Any

from absl import flags

from dlx import leaving
from dlx.errors import ConfigError
from dlx.study.search import SEARCHES
from launch.flags import command_line, config_flags, paths
from launch.machine import devices

SHOWN = 10  # Rows of the table on a terminal.


def define(values: flags.FlagValues):
  """The launcher's flags."""
  own = {'flag_values': values, 'module_name': 'launcher'}

  def number(kind, name, default, help_):
    kind(name, default, help_, **own)

  def text(name, help_):
    flags.DEFINE_string(name, None, help_, **own)

  text('exp', 'A name in experiments/, or the path of a .py file.')
  flags.DEFINE_multi_string(
    'sweep',
    [],
    'A field and its range, config.FIELD=RANGE, see above; once a field.',
    **own,
  )
  flags.DEFINE_enum(
    'search',
    'random',
    SEARCHES,
    'grid: all points; random; halving: random, of which the best third is trained '
    'three times as far, from --config.eval_every_steps on; tpe, cmaes: by what was '
    'found.',
    **own,
  )
  text('metric', 'SPLIT/NAME that is searched for, e.g. validation/loss.')
  flags.DEFINE_enum(
    'mode',
    None,
    ['min', 'max'],
    'Whether the least or the largest metric is the best. Default: as the experiment '
    'declares it.',
    **own,
  )
  integer, real = flags.DEFINE_integer, flags.DEFINE_float
  number(integer, 'seed', 0, 'Seed of the search; that of the runs is --config.seed.')
  number(integer, 'seeds', 1, 'Runs of each trial, which differ in the seed.')
  number(
    integer,
    'trials',
    None,
    'Most trials. Default: all points of a grid; else 20 where no budget is given.',
  )
  number(real, 'minutes', None, 'Minutes of training after which no trial is begun.')
  number(integer, 'steps', None, 'Optimiser steps after which no trial is begun.')
  number(
    integer,
    'at_once',
    None,
    'Trials that are chosen at once. Default: as many as one program may train.',
  )
  paths.define(
    values, 'workdir', None, 'Folder of the sweep. Default: runs/NAME_sweep.'
  )
  paths.define(
    values,
    'data_dir',
    None,
    'Folder of data sets: raw files, prepared or your own. Default: $DLX_DATA_DIR.',
  )
  text('mesh', 'Sizes of the mesh of devices, see launch.train.')
  flags.DEFINE_boolean(
    'fresh',
    False,
    'Move what is in the workdir aside first, to WORKDIR.before_N.',
    **own,
  )
  text(
    'storage',
    'Database that workers share: postgresql://USER@HOST:PORT/DATABASE, or '
    'sqlite:///PATH on one machine. A password is best kept out of it: '
    '$DLX_STORAGE_PASSWORD, --storage_password_file, $PGPASSWORD or ~/.pgpass. '
    'Default: a file in the workdir.',
  )
  paths.define(
    values, 'storage_password_file', None, 'File with the password of --storage.'
  )
  text('study', 'Name of the search in the database. Default: by what is searched.')
  flags.DEFINE_integer(
    'heartbeat_seconds',
    120,
    'A worker that was not heard of for so long is dead: others take its trials.',
    lower_bound=2,
    **own,
  )
  devices.define(values)


def _address(values: flags.FlagValues):
  """Of the database, or None."""
  from dlx.study.search import address

  if values.storage is None:
    for name in ('storage_password_file', 'study'):
      if values[name].value is not None:
        raise ConfigError(f'--{name} is not allowed without --storage.')
    return None
  password = os.environ.get(address.VARIABLE)
  if (path := values.storage_password_file) is not None:
    with open(path, encoding='utf-8') as file:
      password = file.read().rstrip('\r\n')
  return address.parse(values.storage, password)


def _require(address):
  """Refuses where a package is missing."""
  names = ['optuna', 'cmaes'] + ['psycopg'] * bool(address and address.is_server)
  missing = [name for name in names if importlib.util.find_spec(name) is None]
  if missing:
    raise ConfigError(
      f'launch.sweep needs {" and ".join(missing)}: pip install -c constraints.txt -e '
      "'.[sweep]'"
    )


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values, found = command_line.parse(argv, define, __doc__ or '')
  base = config_flags.build(found.config_class, values)
  from dlx.study.search import grammar

  space = grammar.parse(values.sweep, base)
  address = _address(values)
  _require(address)
  if values.metric is None:
    raise ConfigError(
      '--metric is missing: give what is searched for, e.g. --metric=validation/loss '
      'with --config.validation=0.1.'
    )
  workdir = values.workdir or os.path.join('runs', f'{found.short}_sweep')
  devices.start_jax(base.resolved(), values)
  from dlx.run import effects, tables
  from dlx.study.search.declaration import Sweep
  from dlx.study.table import as_table

  for config in (base, space.config(space.draw(0))):
    effects.check(found.short, found.build, config.resolved())
  names = 'search metric mode seed seeds trials minutes steps at_once'.split()
  given: dict[str, Any] = {name: values[name].value for name in names}
  sweep = Sweep(found, space, **given)
  from dlx import runs

  outcome = runs.sweep(
    sweep,
    workdir,
    address=address,
    name=values.study,
    stale_seconds=values.heartbeat_seconds,
    data_dir=values.data_dir,
    mesh=values.mesh,
    fresh=values.fresh,
    argv=argv,
  )
  if outcome.status != 'finished':
    print(
      f'interrupted: {outcome.done} trials are finished, saved in {workdir}; the same '
      'command goes on',
      flush=True,
    )
    return leaving.STATUS
  tables.terminal(as_table(outcome.rows[:SHOWN], 'Trials', note=''))
  if len(outcome.rows) > SHOWN:
    print(
      f'... {len(outcome.rows) - SHOWN} more in {os.path.join(workdir, "table.md")}'
    )
  if outcome.best:
    fields = ' '.join(f'--{k}={v}' for k, v in outcome.best['fields'].items())
    print(f'best: {outcome.best["trial"]}, {values.metric} {outcome.best["value"]:.4g}')
    print(f'  {fields}\ntrain it: {outcome.best["command"]}')
  print(f'report: {os.path.join(workdir, "report.html")}', flush=True)
  return 0


if __name__ == '__main__':
  leaving.listen()
  sys.exit(main(sys.argv))
