"""Evaluates a checkpoint of a run, with the experiment and Config of its config.json.

  python -m launch.evaluate --workdir=runs/cnn --step=best --out=metrics.json

  python -m launch.evaluate --workdir=runs/cnn_0 --members='runs/cnn_*' \\
      --tta=flip --temperature=fit

Prints a table, then one line of JSON; with --show=NAME a figure of the report. Of a run
that classifies also: test/accuracy_ensemble of several runs, _tta of views of an image,
_average of checkpoints, _soup of the weights of runs, _calibrated by a temperature,
each beside the figure of the run alone; --show=reliability draws them. Exit status 2:
bad input, one line on stderr.
"""

import sys
from typing import Any, Mapping, NamedTuple

from absl import flags

from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from launch.evaluation import combining
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
  show = 'Instead of metrics: a figure of the report, by its name, or reliability.'
  text('show', None, show)
  combining.define(values)
  devices.define(values)


def table(metrics: Mapping[str, Any]) -> str:
  """One metric a line, aligned; of a list over members, all of them."""
  import numpy as np  # Not before the flags are known to be right.

  width = max(map(len, metrics), default=0)
  return '\n'.join(
    f'{name:<{width}}  {"  ".join(f"{v:.6g}" for v in np.ravel(value))}'
    for name, value in sorted(metrics.items())
  )


def show(drawn: Any, values: flags.FlagValues) -> int:
  """Prints a figure that is a text; writes a picture to --out."""
  from dlx.run.drawing import to_png

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


class Read(NamedTuple):
  """A run as its config.json says; nothing is built."""

  record: Mapping[str, Any]
  found: Any
  config: Any
  workdir: str

  def build(self) -> Any:
    """The experiment, with sets of the user's own as they were."""
    from dlx.data.sets import cards

    with cards.recall(self.record.get('data') or {}):
      return self.found.build(self.config)


def read(workdir: str, exp: str | None, flag: str) -> Read:
  """The run in a workdir. Raises ConfigError: there is none, or see `load`."""
  from dlx.config_json import config_from_json
  from dlx.run.records.config_file import read_run

  record = read_run(workdir, flag)
  found = load(record, exp, workdir)
  added: list[str] = []
  config = config_from_json(found.config_class, record['config'], added=added)
  for name in added:
    print(f'--{name} is new since the run: its default is taken.', file=sys.stderr)
  return Read(record, found, config, workdir)


def combine(run: Read, experiment: Any, values: flags.FlagValues, options: dict):
  """The run with what the flags combine it with: a `combined.Combined`."""
  from dlx.run.combining.classifiers import Member
  from dlx.run.combining.combined import combined
  from dlx.run.records.config_file import read_run

  def member(workdir: str) -> Member:
    same = read_run(workdir, '--members=')['experiment'] == run.record['experiment']
    other = read(workdir, values.exp if same else None, '--members=')
    return Member(workdir, other.build(), other.config)

  asked = combining.asked(values, member)
  return combined(Member(values.workdir, experiment, run.config), asked, **options)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values = command_line.parse_alone(argv, define, __doc__ or '')
  step = opened.parse_step(values.step)
  combining.check(values)
  if not values.workdir:
    raise ConfigError('--workdir is missing: must be the folder of a run.')
  run = read(values.workdir, values.exp, '--workdir=')
  devices.start_jax(run.config, values)
  experiment = run.build()
  import jax

  from dlx.run.records.json_files import to_text

  options = {'step': step, 'data_dir': values.data_dir, 'mesh': values.mesh}
  more: Mapping[str, Any] = {}
  if combining.wanted(values, experiment):
    found = combine(run, experiment, values, options)
    if values.show is not None:
      return show(combining.reliability(found), values)
    metrics, more = found.metrics, found.told
    combining.tell(found, values)
  elif values.show is not None:
    from dlx.run.reopen import draw

    one = experiment, run.config, values.workdir
    return show(draw(*one, values.show, **options), values)
  else:
    from dlx.run.reopen import evaluate

    metrics = evaluate(experiment, run.config, values.workdir, **options)
  if jax.process_index() == 0:
    told = dict(sorted(metrics.items()))
    line = to_text({'workdir': values.workdir, 'step': step, **more, 'metrics': told})
    print(table(metrics))
    print(line, flush=True)
    if values.out:
      from etils import epath

      epath.Path(values.out).write_text(line + '\n')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
