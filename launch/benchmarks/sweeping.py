"""Runs of a study in one program, beside the same runs one after the other."""

import json
import math
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from dlx.errors import NonFiniteError
from dlx.run import experiments_by_name
from dlx.run.loop import fit
from dlx.study.trials import expand
from dlx.train.members import together

STUDY = 'learning_rate_sweep'
CLOSE = 1e-3
METRICS = ('test/loss', 'test/accuracy')


def measure(fields: dict[str, Any], say=print) -> dict[str, Any]:
  """The row of --suite=sweep: all runs together, then each alone, in this process.

  Both read, compile, train, evaluate and save, as a study does; programs compiled
  before are not used.

  Args:
    fields: of the Config of `learning_rate_sweep`.
    say: is told each result.

  Returns:
    `runs`; `together_s`, `alone_s`; `speedup`, their ratio; `differences` of the
    figures that both report, relative to the figure: the median and the largest of the
    runs, and the share below CLOSE; and the number of runs that diverged.
  """
  found = experiments_by_name.load_any(STUDY)
  assert isinstance(found, experiments_by_name.FoundStudy)
  trials = expand(found.study(found.config_class(**fields)))
  first = trials[0]
  with tempfile.TemporaryDirectory() as folder:

    def train(built: Any, config: Any, name: str) -> dict[str, Any]:
      workdir = pathlib.Path(folder, name)
      module = first.found.module.__name__
      try:
        fit(built, config, workdir, module=module, terminal=False)
      except NonFiniteError:
        return dict.fromkeys(METRICS, math.nan)
      return json.loads((workdir / 'result.json').read_text())['metrics']

    start = time.perf_counter()
    joint = together(first.found.build, [trial.config for trial in trials])
    many = train(joint, first.config, 'together')
    together_s = time.perf_counter() - start
    say(f'{len(trials)} runs together: {together_s:.1f} s')
    start = time.perf_counter()
    single = [train(t.found.build(t.config), t.config, t.name) for t in trials]
    alone_s = time.perf_counter() - start
    say(
      f'one after the other: {alone_s:.1f} s, {alone_s / together_s:.1f} times as long'
    )
  differences = {}
  for metric in METRICS:
    a, b = np.array(many[metric]), np.array([m[metric] for m in single])
    apart = np.abs(a - b) / np.maximum(np.abs(b), 1e-12)
    middle, largest = float(np.nanmedian(apart)), float(np.nanmax(apart))
    # At the highest rates roundings grow until nothing is alike.
    close = float(np.mean(apart < CLOSE))
    differences[metric] = {'median': middle, 'largest': largest, 'close': close}
    say(
      f'{metric}: relative difference {middle:.1e}, at most {largest:.1e}; below '
      f'{CLOSE:g} in {100 * close:.0f} % of the runs'
    )
  return {
    'workload': f'{STUDY}, {len(trials)} runs',
    'runs': len(trials),
    'together_s': together_s,
    'alone_s': alone_s,
    'speedup': alone_s / together_s,
    'differences': differences,
    'diverged': int(np.sum(np.array(many['train/diverged']) > 0)),
  }
