"""Checks an experiment, a fork above all, in about a minute: what every one must hold.

  python -m launch.check --exp=my.py

Its SMALL config is run, or six steps of its Config where it has none: it builds without
data, all that a run calls can be traced, a stopped run goes on with equal bits, rows of
its functions stand alone, the dtype reaches the model, one batch is learnt by the net
of its default Config. It tells which flags of every run a start refuses, since nothing
reads them. Of a study the runs are traced, claims, table and figures are called on
made-up numbers, and its SMALL is trained. Exit status 1 where something fails.
"""

import dataclasses
import pathlib
import sys
import tempfile
import time
from typing import Any, Callable

from absl import flags

from dlx.run import experiments_by_name
from launch.flags import command_line, config_flags, paths
from launch.machine import devices


def define(values: flags.FlagValues):
  """The launcher's flags."""
  flags.DEFINE_string(
    'exp',
    None,
    'A name in experiments/, or the path of a .py file.',
    values,
    module_name='launcher',
  )
  help_ = (
    'Folder of data sets: raw files, prepared or your own. Default: $DLX_DATA_DIR.'
  )
  paths.define(values, 'data_dir', None, help_)
  devices.define(values)


def checks(found, config: Any, folder: pathlib.Path, data_dir: Any) -> list:
  """(name, what it says of what it found) of every check."""
  from launch import checks as lib

  small = getattr(found.module, 'SMALL', None) or dataclasses.replace(
    config, num_steps=6
  )
  own = dataclasses.replace(config, num_steps=300, batch_size=16)

  def traced() -> str:
    return f'reports {", ".join(lib.traced(found.build, config))}'

  def learnt() -> str:
    least = lib.overfitted(found.build, own, data_dir)
    if least is not None:
      return f'down to {least:.3g}'
    return found.build(config).overfit or 'nothing is said of it'

  def refused() -> str:
    return ', '.join(lib.refused(found.build, small)) or 'none'

  def bfloat16() -> str:
    return '' if lib.half_precision(found.build, small) else 'refused'

  def restarted() -> str:
    return lib.restarted(found.build, small, folder)['fingerprint'][:12]

  return [
    ('everything is traced without data', traced),
    ('stopped and gone on with, equal bits', restarted),
    ('rows of functions stand alone', lambda: f'{lib.rows(found.build(small))} tried'),
    ('flags that a start refuses', refused),
    ('compute_dtype reaches the model', bfloat16),
    ('one batch is learnt', learnt),
  ]


def study_checks(found, config: Any, folder: pathlib.Path, data_dir: Any) -> list:
  """The same of a study."""
  from launch import study_checks as lib

  small = getattr(found.module, 'SMALL', None) or dataclasses.replace(
    config, seeds=min(config.seeds, 2)
  )
  return [
    (
      'claims, table and figures take the numbers of its runs',
      lambda: lib.rehearsed(found, config),
    ),
    ('more seeds are more runs of the same settings', lambda: lib.grown(found, config)),
    (
      'trained, judged, and trained no second time',
      lambda: lib.trained(found, small, folder, data_dir),
    ),
  ]


def run(name: str, check: Callable[[], str | None]) -> bool:
  """Runs one check and prints its line; whether it passed."""
  from launch.checks import Failed

  start = time.monotonic()
  try:
    said, passed = check() or '', True
  except Failed as failed:
    said, passed = str(failed), False
  mark = 'ok  ' if passed else 'FAIL'
  seconds = time.monotonic() - start
  print(f'{mark} {seconds:5.1f} s  {name}{f": {said}" if said else ""}', flush=True)
  return passed


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values, found = command_line.parse(argv, define, __doc__ or '', studies=True)
  config = config_flags.build(found.config_class, values).resolved()
  devices.start_jax(config, values)
  of_many = isinstance(found, experiments_by_name.FoundStudy)
  listing = study_checks if of_many else checks
  with tempfile.TemporaryDirectory(prefix='dlx-check-') as folder:
    listed = listing(found, config, pathlib.Path(folder), values.data_dir)
    passed = [run(name, check) for name, check in listed]
  return 0 if all(passed) else 1


if __name__ == '__main__':
  sys.exit(main(sys.argv))
