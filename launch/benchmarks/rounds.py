"""Sides as processes, measured in turns: A B C A B C, each with the machine alone."""

import json
import os
import select
import statistics
import subprocess
import sys
import time
from typing import Any, Mapping, NamedTuple, Sequence

PAUSE_S = 0.02  # Between turns, for the threads of the last side to fall asleep.


class Broken(Exception):
  """A side that could not be built or that died; the message is for the table."""


class Process:
  """A worker process: one side of one workload. A context manager.

  Attributes:
    start_s: seconds from its start to the end of its first dispatch.
    ready: what it said then.
  """

  def __init__(
    self,
    asked: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    cpus: Sequence[int],
    limit_s: float,
    log,
  ):
    self._limit_s = limit_s
    asked = {**asked, 'cpus': list(cpus)}
    start = time.perf_counter()
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'launch.benchmarks.worker', json.dumps(asked)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
      env={**os.environ, **environ},
    )
    try:
      self.ready = self._answer()
    except Broken:
      self.close()
      raise
    self.start_s = time.perf_counter() - start

  def ask(self, command: str) -> dict[str, Any]:
    """Sends one command and waits for its answer.

    Raises:
      Broken: it died, or took longer than the limit.
    """
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(command + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      raise Broken('it died') from None
    return self._answer()

  def _answer(self) -> dict[str, Any]:
    out = self._process.stdout
    assert out is not None
    if not select.select([out], [], [], self._limit_s)[0]:
      raise Broken(f'no answer within {self._limit_s:.0f} s')
    line = out.readline()
    if not line:
      raise Broken(f'ended with status {self._process.wait()}')
    return json.loads(line)

  def close(self):
    self._process.kill()
    self._process.wait()
    for pipe in (self._process.stdin, self._process.stdout):
      if pipe is not None:
        pipe.close()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.close()


class Timed(NamedTuple):
  """What the rounds found of one side.

  Attributes:
    seconds: of a step, one value a round.
    cpu_share: CPU seconds over wall seconds: cores that were busy.
    peak_mb: largest resident memory.
    steps: of one dispatch, at the end.
    loss: of the last step.
  """

  seconds: list[float]
  cpu_share: float
  peak_mb: float
  steps: int
  loss: float


def interleave(
  sides: Mapping[str, Process], *, rounds: int, seconds: float
) -> dict[str, Timed]:
  """Times all sides in turns.

  Args:
    sides: running processes by name.
    rounds: turns of each.
    seconds: that a turn should take; as many steps as fit, at least one.

  Raises:
    Broken: names the side.
  """
  counts = {}
  for name, process in sides.items():
    count = 1
    for _ in range(3):  # Warm, and in the end as long as a turn.
      step_s = process.ask(f'go {count}')['seconds'] / count
      count = max(1, round(seconds / max(step_s, 1e-6)))
    counts[name] = count
  turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, process in sides.items():
      time.sleep(PAUSE_S)
      turns[name].append(process.ask(f'go {counts[name]}'))
  found = {}
  for name, process in sides.items():
    last = process.ask('memory')
    found[name] = Timed(
      [turn['seconds'] / counts[name] for turn in turns[name]],
      sum(t['cpu'] for t in turns[name]) / sum(t['seconds'] for t in turns[name]),
      last['peak_mb'],
      last['steps'],
      turns[name][-1]['loss'],
    )
  return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """Median over rounds of ours / theirs: what both suffer in a round cancels."""
  return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
