"""Runs that one environment begins and another goes on with; .ci/run calls both.

  python -m tests.every_experiment.across write FOLDER    # as the newest Python
  python -m tests.every_experiment.across go_on FOLDER    # as an older one

Python, jax and Orbax may all be others. What the first wrote must be restored,
evaluated to the same figures and trained to its end; that versions differ is told, not
refused.
"""

import contextlib
import io
import json
import pathlib
import sys

import numpy as np

from dlx.run.loop import fit
from dlx.run.records.environment import versions
from dlx.run.reopen import evaluate
from tests.every_experiment.small import load, small

# Batch statistics; a state carried from batch to batch; two optimisers. Not char_gpt:
# its text is the manual of the Python that runs, another one in each.
NAMES = ('cnn', 'sst2_tbptt', 'dcgan')
STEPS, STOP = 6, 4
TOLD = 'Other than at the start: versions '


def make(name: str):
  """(config, experiment) of a short run without figures."""
  config = small(name, num_steps=STEPS, eval_every_steps=2)
  return config, load(name).build(config)._replace(figures={})


def write(folder: pathlib.Path) -> None:
  """Begins a run of each experiment and writes what an evaluation of it gives."""
  for name in NAMES:
    config, built = make(name)
    fit(built, config, folder / name, name=name, stop_at=STOP)
    found = evaluate(built, config, folder / name)
    record = {'versions': versions(), 'metrics': numbers(found)}
    (folder / f'{name}.json').write_text(json.dumps(record))


def go_on(folder: pathlib.Path) -> None:
  """Evaluates and ends the runs that `write` began."""
  for name in NAMES:
    config, built = make(name)
    record = json.loads((folder / f'{name}.json').read_text())
    found = numbers(evaluate(built, config, folder / name))
    assert found.keys() == record['metrics'].keys(), name
    for metric, there in record['metrics'].items():
      # The same parameters, and float32 sums in another order.
      np.testing.assert_allclose(found[metric], there, rtol=1e-4, atol=1e-5)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
      done = fit(built, config, folder / name, name=name)
    assert (done.status, done.step) == ('finished', STEPS), name
    differ = record['versions'] != versions()
    assert (TOLD in told.getvalue()) == differ, told.getvalue()
    print(f'{name}: begun with {record["versions"]["jax"]}, ended: {differ=}')


def numbers(metrics) -> dict:
  return {key: np.asarray(value).tolist() for key, value in metrics.items()}


if __name__ == '__main__':
  where = pathlib.Path(sys.argv[2])
  where.mkdir(parents=True, exist_ok=True)
  {'write': write, 'go_on': go_on}[sys.argv[1]](where)
