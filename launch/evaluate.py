"""Evaluates a checkpoint of a run, with the experiment and Config of its config.json.

  python -m launch.evaluate --workdir=runs/cnn --step=best --out=metrics.json

Prints a table, then one line of JSON; with --show=NAME a figure of the report. Exit
status 2: bad input, one line on stderr.
"""

import sys
from typing import Any, Mapping

from absl import flags

from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from launch.flags import command_line, opened, paths
from launch.machine import devices


def define(values: flags.FlagValues):
  """The launcher's flags."""

  def text(name, default, help_):
    flags.DEFINE_string(name, default, help_, values, module_name='launcher')

  opened.define(values, trust=False)
  paths.define(
    values,
    'data_dir',
    None,
    'Folder of data sets: raw files, prepared or your own. Default: $DLX_DATA_DIR.',
  )
  text(
    'mesh',
    None,
    'Sizes of the mesh of devices, e.g. data=4,tensor=2. Default: all devices on data.',
  )
  out = 'File to write the JSON, or the figure of --show, to.'
  paths.define(values, 'out', None, out)
  text('show', None, 'Instead of metrics: a figure of the report, by its name.')
  devices.define(values)


def table(metrics: Mapping[str, Any]) -> str:
  """One metric a line, aligned; of a list over members, all of them."""
  import numpy as np  # Not before the flags are known to be right.

  width = max(map(len, metrics), default=0)
  return '\n'.join(
    f'{name:<{width}}  {"  ".join(f"{v:.6g}" for v in np.ravel(value))}'
    for name, value in sorted(metrics.items())
  )


def show(experiment, config, values, step: str | int) -> int:
  """Prints a figure that is a text; writes a picture to --out."""
  from dlx.run.drawing import to_png
  from dlx.run.reopen import draw

  drawn = draw(
    experiment,
    config,
    values.workdir,
    values.show,
    step=step,
    data_dir=values.data_dir,
    mesh=values.mesh,
  )
  if isinstance(drawn, str):
    print(drawn, end='')
  elif not values.out:
    raise ConfigError(f'--show={values.show} is a picture: needs --out=FILE.png.')
  if values.out:
    from etils import epath

    data = drawn.encode() if isinstance(drawn, str) else to_png(drawn)[0]
    epath.Path(values.out).write_bytes(data)
  return 0


def load(run: Mapping[str, Any], exp: str | None, workdir: str):
  """The experiment of a run; tells a person where its source has changed since.

  Raises:
    ConfigError: it is not where it was, and --exp does not say where it is.
  """
  from dlx.run import kept
  from dlx.run.records import sources
  from dlx.run.records.workdir import absolute

  folder = absolute(workdir) / 'source'
  if exp is None and kept.lies_in(run['experiment'], workdir):
    raise ConfigError(
      f'--workdir={workdir}: the experiment, {run["experiment"]}, came with the '
      'workdir: give --exp=PATH of it, if you trust what it runs.'
    )
  try:
    found = experiments_by_name.load(exp or run['experiment'])
  except ConfigError as error:
    if exp is not None:
      raise
    copy = f' (a copy lies in {folder})' if folder.exists() else ''
    raise ConfigError(
      f'{error} The run is of this experiment{copy}: give --exp=PATH where it is now.'
    ) from None
  then, files = run.get('source') or {}, sources.of(found.module.__name__)
  if then.get('main') and not sources.same(then, sources.record(files)):
    paths = {name: folder / f'{name}.py' for name in then['sha256']}
    copies = {name: path.read_bytes() for name, path in paths.items() if path.exists()}
    told = sources.difference(then, copies, files)
    print(f'The source is not that of the run: {told}.', file=sys.stderr)
  return found


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values = command_line.parse_alone(argv, define, __doc__ or '')
  step = opened.parse_step(values.step)
  if not values.workdir:
    raise ConfigError('--workdir is missing: must be the folder of a run.')
  from dlx.run.records.config_file import read_run

  run = read_run(values.workdir, '--workdir=')
  from dlx.config_json import config_from_json

  found = load(run, values.exp, values.workdir)
  added: list[str] = []
  config = config_from_json(found.config_class, run['config'], added=added)
  for name in added:
    print(f'--{name} is new since the run: its default is taken.', file=sys.stderr)
  devices.start_jax(config, values)
  from dlx.data.sets import cards

  with cards.recall(run.get('data') or {}):
    experiment = found.build(config)

  import jax

  from dlx.run.records.json_files import to_text
  from dlx.run.reopen import evaluate

  if values.show is not None:
    return show(experiment, config, values, step)
  metrics = evaluate(
    experiment,
    config,
    values.workdir,
    step=step,
    data_dir=values.data_dir,
    mesh=values.mesh,
  )
  if jax.process_index() == 0:
    told = dict(sorted(metrics.items()))
    line = to_text({'workdir': values.workdir, 'step': step, 'metrics': told})
    print(table(metrics))
    print(line, flush=True)
    if values.out:
      from etils import epath

      epath.Path(values.out).write_text(line + '\n')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
