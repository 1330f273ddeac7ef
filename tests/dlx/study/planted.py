"""Workdirs made by hand, for tests of comparisons: every number in them is known."""

import pathlib
from typing import Any, Mapping

from dlx.run.records.json_files import write_json
from dlx.run.records.metrics_file import MetricsFile

METRICS = {
  'accuracy': {'title': 'Accuracy', 'better': 'higher', 'unit': '%'},
  'loss': {'title': 'Cross-entropy', 'better': 'lower', 'unit': 'nats'},
}


def plant(
  workdir: pathlib.Path,
  *,
  seed: int = 0,
  accuracy: Any = 0.5,
  loss: Any = 1.0,
  config: Mapping[str, Any] | None = None,
  record: Mapping[str, Any] | None = None,
  result: Mapping[str, Any] | None = None,
  finished: bool = True,
  curve: Mapping[int, float] | None = None,
) -> pathlib.Path:
  """A run of `mlp` as launch.train leaves it, but for what is given.

  Args:
    workdir: a folder that is made.
    seed, accuracy, loss: of it; None: the metric is not reported.
    config: more of its fields, or other values.
    record, result: more of config.json and of result.json.
    finished: whether there is a result.json.
    curve: test/loss by step.
  """
  workdir.mkdir(parents=True)
  fields = {'seed': seed, 'num_steps': 100, 'log_every_steps': 10, 'lr': 0.1}
  told = {
    'experiment': 'mlp',
    'config': {**fields, **(config or {})},
    'metrics': METRICS,
    'headline': ['test/accuracy', 'test/loss'],
    'data': {'test': {'name': 'digits', 'size': 360, 'path': f'/x/{seed}'}},
    'device': {'kind': 'cpu', 'count': 1},
    'threads': 2,
    'versions': {'jax': '9.9'},
    'git': {'commit': 'abc123', 'dirty': False},
  }
  write_json(workdir / 'config.json', {**told, **(record or {})})
  metrics = {'test/accuracy': accuracy, 'test/loss': loss}
  metrics = {name: value for name, value in metrics.items() if value is not None}
  with MetricsFile(workdir) as file:
    for step, value in (curve or {50: 2.0, 100: 1.0}).items():
      file.write(step, 'test', {'loss': value}, {})
  if finished:
    whole = {
      'experiment': 'mlp',
      'metrics': metrics,
      'step': 100,
      'seconds': {'total': 10.0 + seed, 'train': 4.0 + seed},
      'examples_per_second': 1000.0,
      'parameters': 500,
      'flops_per_step': 2000,
      'finished': True,
    }
    write_json(workdir / 'result.json', {**whole, **(result or {})})
  return workdir
