"""Trains an experiment; the same command on the same workdir goes on where it ended.

  python -m launch.train --exp=cnn --workdir=runs/cnn --config.lr=3e-3

--exp takes a name in experiments/ or the path of a fork; also that of a study of many
runs (dlx/study/declaration.py), which leaves a table and claims. Every field of its
Config is a flag; --exp=cnn --helpfull lists them. Exit status: 0 finished, or stopped
by --stop_at; 2 bad input (one line on stderr, nothing compiled, nothing written); 42
interrupted by SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGUSR2 and saved, so that a
scheduler can requeue on it; 1 a bug, with its stack trace. Several processes
(--multihost, launch/machine/multihost.py) leave together, with the same status; 43
where one of them was lost: requeue on it, too.
"""

import os
import re
import sys
from typing import Mapping

from absl import flags

from dlx import leaving
from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from launch.flags import command_line, config_flags, paths
from launch.machine import devices, multihost

STATUS = {'finished': 0, 'stopped': 0, 'interrupted': leaving.STATUS}


def define(values: flags.FlagValues):
  """The launcher's own flags."""

  def text(name, default, help_):
    flags.DEFINE_string(name, default, help_, values, module_name='launcher')

  text('exp', None, 'A name in experiments/, or the path of a .py file.')
  paths.define(
    values, 'workdir', None, 'Folder or gs:// address of the run. Default: runs/NAME.'
  )
  paths.define(
    values,
    'data_dir',
    None,
    'Folder of data sets: raw files, prepared or your own. Default: $DLX_DATA_DIR.',
  )
  text(
    'mesh',
    None,
    'Sizes of the mesh of devices, AXIS=SIZE by comma: data, fsdp, tensor, sequence, '
    'expert; -1 is what the others leave, e.g. data=-1,tensor=4. Default: all devices '
    'along data.',
  )
  flags.DEFINE_boolean(
    'describe',
    False,
    'Print all parameters, where they lie and bytes a device, and leave: no data is '
    'read, nothing compiled or written.',
    values,
    module_name='launcher',
  )
  flags.DEFINE_integer(
    'stop_at',
    None,
    'Stop, saved, after this step; the same command without this flag goes on.',
    lower_bound=1,
    flag_values=values,
    module_name='launcher',
  )
  for name, help_ in (
    ('fresh', 'Move what is in the workdir aside first, to WORKDIR.before_N.'),
    (
      'extend',
      'Go on to a larger --config.num_steps also where steps depend on it, as by a '
      'schedule: from here on they are those of a run of that length.',
    ),
    ('data_changed', 'Go on with other data than those the run began with.'),
    (
      'debug',
      'Look for a NaN in every operation of every step, one by one, and name its line; '
      'slow, one process.',
    ),
  ):
    flags.DEFINE_boolean(name, False, help_, values, module_name='launcher')
  text(
    'trace_steps',
    None,
    'FIRST:END, e.g. 10:20: write a profiler trace of these steps into the workdir.',
  )
  text(
    'init_from',
    None,
    'WORKDIR or WORKDIR:STEP: begin with the parameters of that run, as far as names '
    'and shapes are the same; STEP is latest, best or a number.',
  )
  text(
    'init_skip',
    '',
    'Parameters that --init_from leaves new: regular expressions or globs on whole '
    "paths, by comma, e.g. 'head/*'.",
  )
  devices.define(values)
  multihost.define(values)


def parse_trace_steps(text: str | None) -> tuple[int, int] | None:
  """(first step, step after the last) of FIRST:END."""
  if text is None:
    return None
  match = re.fullmatch(r'(\d+):(\d+)', text)
  if not match or int(match[1]) >= int(match[2]):
    raise ConfigError(
      f'--trace_steps={text} is not allowed: must be FIRST:END with '
      'FIRST below END, e.g. 10:20.'
    )
  return int(match[1]), int(match[2])


def last_line(outcome, workdir: str) -> str:
  """What a person sees at the end: the figures and where to look."""
  if outcome.status != 'finished':
    without = ' without --stop_at' if outcome.status == 'stopped' else ''
    return (
      f'{outcome.status} at step {outcome.step}, saved in {workdir}; '
      f'the same command{without} goes on'
    )
  return f'{figures(outcome.metrics)}  report: {os.path.join(workdir, "report.html")}'


def figures(metrics: Mapping[str, float]) -> str:
  """`split/name value` of every evaluation; of training where there is none."""
  from dlx.run.records.progress import number

  evals = {k: v for k, v in metrics.items() if not k.startswith('train/')}
  return '  '.join(f'{k} {number(v)}' for k, v in sorted((evals or metrics).items()))


# What a study of many runs has no use for.
_OF_ONE_RUN = (
  *('describe', 'stop_at', 'extend', 'data_changed', 'debug', 'trace_steps'),
  *('init_from', 'init_skip', 'multihost'),
)


def _study(
  found: experiments_by_name.FoundStudy, values: flags.FlagValues, argv: list[str]
) -> int:
  """Runs a study; returns the exit status."""
  for name in _OF_ONE_RUN:
    if values[name].value != values[name].default:
      remedy = 'train one of its runs by itself'
      if name == 'multihost':
        remedy = 'one process trains it, on all devices of its machine'
      raise ConfigError(
        f'--{name} is not allowed with {found.short}, a study: {remedy}.'
      )
  config = config_flags.build(found.config_class, values)
  workdir = values.workdir or os.path.join('runs', found.short)
  devices.start_jax(config, values)
  from dlx import runs
  from dlx.run import tables
  from dlx.study.table import as_table

  outcome = runs.study(
    found.study(config),
    config,
    workdir,
    name=found.name,
    module=found.module.__name__,
    data_dir=values.data_dir,
    mesh=values.mesh,
    fresh=values.fresh,
    argv=argv,
  )
  if outcome.status != 'finished':
    print(
      f'interrupted: {outcome.done} of {outcome.total} runs are finished, saved in '
      f'{workdir}; the same command goes on',
      flush=True,
    )
    return STATUS[outcome.status]
  tables.terminal(as_table(outcome.rows, found.short))
  for claim, verdict in outcome.verdicts.items():
    print(f'{"held" if verdict.holds else "NOT HELD"}  {claim}\n  {verdict.numbers}')
  print(f'report: {os.path.join(workdir, "report.html")}', flush=True)
  return 0


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  # What can be wrong is looked at from cheap to dear: flags, experiment, config, build.
  values, found = command_line.parse(argv, define, __doc__ or '', studies=True)
  if isinstance(found, experiments_by_name.FoundStudy):
    return _study(found, values, argv)
  trace_steps = parse_trace_steps(values.trace_steps)
  config = config_flags.build(found.config_class, values).resolved()
  workdir = values.workdir or os.path.join('runs', found.short)
  devices.start_jax(config, values)
  experiment = found.build(config)

  with multihost.start(values, workdir):  # Before the first use of a device.
    import jax

    from dlx.run import effects

    effects.check(found.short, found.build, config)
    if values.describe:
      from dlx.run import describe, sharding

      told = describe.describe(experiment, sharding.make_mesh(values.mesh))
      if jax.process_index() == 0:
        print(describe.as_text(told), end='', flush=True)
      return 0
    from dlx.runs import fit

    outcome = fit(
      experiment,
      config,
      workdir,
      name=found.name,
      module=found.module.__name__,
      data_dir=values.data_dir,
      mesh=values.mesh,
      stop_at=values.stop_at,
      fresh=values.fresh,
      extend=values.extend,
      data_changed=values.data_changed,
      init_from=values.init_from,
      init_skip=values.init_skip,
      debug=values.debug,
      argv=argv,
      trace_steps=trace_steps,
    )
    if jax.process_index() == 0:
      print(last_line(outcome, workdir), flush=True)
  return STATUS[outcome.status]


if __name__ == '__main__':
  leaving.listen()
  sys.exit(main(sys.argv))
