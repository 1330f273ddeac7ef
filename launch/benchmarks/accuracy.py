"""Seconds from the start of a command until it prints a wanted accuracy."""

import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Mapping, NamedTuple, Sequence

from dlx.errors import ConfigError

TARGET = 0.99
# The same for both; 938 steps are two epochs. All else is the experiment's own.
FIELDS = {'num_steps': 938, 'eval_every_steps': 67, 'batch_size': 128, 'lr': 3e-3}
_LINE = re.compile(r'step (\d+).* test/accuracy ([0-9.]+)')


class Reached(NamedTuple):
  """When a command was there.

  Attributes:
    seconds: from its start to the line, start-up and evaluations included; None: never.
    step: of that line, or the last.
    curve: [seconds, step, accuracy] of every line.
  """

  seconds: float | None
  step: int
  curve: list[tuple[float, int, float]]


def run(
  command: Sequence[str], environ: Mapping[str, str], target: float = TARGET
) -> Reached:
  """Runs a command until it prints at least the wanted accuracy, then ends it.

  Raises:
    ConfigError: it failed; the message has its last line.
  """
  start = time.perf_counter()
  curve, lines = [], []
  with subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, **environ},
  ) as process:
    assert process.stdout is not None
    for line in process.stdout:
      lines.append(line.rstrip())
      if found := _LINE.search(line):
        seconds = time.perf_counter() - start
        curve.append((seconds, int(found[1]), float(found[2])))
        if curve[-1][2] >= target:
          process.kill()
          return Reached(seconds, curve[-1][1], curve)
  if process.returncode:
    said = lines[-1] if lines else 'nothing'
    raise ConfigError(f'{shlex.join(command[:4])} ... failed: {said}')
  return Reached(None, curve[-1][1] if curve else 0, curve)


def commands(
  data_dir: str, seed: int, workdir: pathlib.Path, torch: bool
) -> dict[str, list[str]]:
  """By side; `torch` where it is installed."""
  fields = {**FIELDS, 'seed': seed}
  found = {
    'dlx': [
      *(sys.executable, '-m', 'launch.train', '--exp=cnn', f'--workdir={workdir}'),
      *(f'--data_dir={data_dir}', '--config.dataset=mnist'),
      *(f'--config.{name}={value}' for name, value in fields.items()),
    ]
  }
  if torch:
    asked = json.dumps({**fields, 'data_dir': data_dir})
    module = 'launch.benchmarks.torch_peer.mnist'
    found['torch'] = [sys.executable, '-m', module, asked]
  return found


def compare(
  data_dir: str, environ: Mapping[str, str], *, seeds: int, torch: bool, say=print
) -> dict[str, Any]:
  """A row of the table: sides in turn, seed by seed; the first of dlx has no cache."""
  runs: dict[str, list[Reached]] = {}
  with tempfile.TemporaryDirectory() as folder:
    environ = {**environ, 'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache'}
    for seed in range(seeds):
      workdir = pathlib.Path(folder, str(seed))
      for side, command in commands(data_dir, seed, workdir, torch).items():
        reached = run(command, environ)
        runs.setdefault(side, []).append(reached)
        when = f'{reached.seconds:.1f} s' if reached.seconds else 'not'
        say(f'seed {seed}  {side}: {when}, step {reached.step}', flush=True)
  seconds = {side: [r.seconds for r in found] for side, found in runs.items()}
  row: dict[str, Any] = {
    'workload': 'cnn to 99 % of MNIST',
    'fields': FIELDS,
    'seconds': seconds,
    'steps': {side: [r.step for r in found] for side, found in runs.items()},
    'curves': {side: [r.curve for r in found] for side, found in runs.items()},
  }
  if torch and all(s is not None for of in seconds.values() for s in of):
    ratios = [a / b for a, b in zip(seconds['dlx'], seconds['torch'], strict=True)]  # type: ignore[operator]
    row['ratio'] = statistics.median(ratios)
  return row
