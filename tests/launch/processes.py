"""Real processes of one run on this machine, over gloo; none outlives its test."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Sequence

from tests import simulated

ROOT = pathlib.Path(__file__).parents[2]
# A child is killed when the test process ends, however that does (PR_SET_PDEATHSIG); in
# the child itself, since preexec_fn would fork a process in which JAX has threads.
BOOT = (
  'import ctypes, runpy, sys; ctypes.CDLL(None).prctl(1, 9); del sys.argv[0]; '
  'runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)'
)
HARD = 900.0  # Seconds after which a process that has not ended is killed.
# A model of four thousand parameters, over a text that is embedded.
TINY = (
  '--exp=char_gpt',
  '--config.num_layers=1',
  '--config.num_heads=2',
  '--config.width=16',
  '--config.context=16',
  '--config.batch_size=8',
  '--config.eval_batch_size=1024',
  '--config.sample_length=8',
  '--config.log_every_steps=1',
)


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


class Group:
  """Processes 0 to n - 1 of a command, each with so many simulated devices.

  Several get --multihost and its flags.

  A context manager; what still runs at its end is killed, with all its children.
  """

  def __init__(self, command: Sequence[str], n: int, devices: int, logs: pathlib.Path):
    """Starts them.

    Args:
      command: a module and its arguments.
      logs: path; process k appends to `LOGS.k`.
    """
    env = {**simulated.environment(devices), 'PYTHONPATH': str(ROOT)}
    self.logs = [pathlib.Path(f'{logs}.{k}') for k in range(n)]
    self.processes = []
    address = f'--coordinator=127.0.0.1:{free_port()}'
    for k in range(n):
      more = ['--multihost', address, f'--num_processes={n}', f'--process_id={k}']
      argv = [*command, *(more if n > 1 else [])]
      with open(self.logs[k], 'ab') as log:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, '-c', BOOT, *argv],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
          )
        )

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    for process in self.processes:
      try:
        os.killpg(process.pid, signal.SIGKILL)
      except ProcessLookupError:
        pass
      process.wait()

  def wait(self, seconds: float = HARD, skip: Sequence[int] = ()) -> list[int | None]:
    """Exit statuses, None of those in `skip`; raises where one takes longer."""
    until, out = time.monotonic() + seconds, []
    for k, process in enumerate(self.processes):
      try:
        left = max(0.0, until - time.monotonic())
        out.append(None if k in skip else process.wait(left))
      except subprocess.TimeoutExpired:
        raise AssertionError(
          f'process {k} still runs after {seconds} s:\n{self.text(k)[-2000:]}'
        ) from None
    return out

  def until(self, condition: Callable[[], Any], seconds: float = HARD):
    """Waits for a condition, while all run."""
    end = time.monotonic() + seconds
    while not condition():
      ended = [k for k, p in enumerate(self.processes) if p.poll() is not None]
      if ended or time.monotonic() > end:
        told = '\n'.join(f'--- {k}\n{self.text(k)[-3000:]}' for k in ended or [0])
        raise AssertionError(f'ended before the condition: {ended}\n{told}')
      time.sleep(0.002)

  def send(self, k: int, number: int):
    self.processes[k].send_signal(number)

  def text(self, k: int) -> str:
    return self.logs[k].read_text(errors='replace')


def train(
  folder: pathlib.Path,
  name: str,
  n: int,
  devices: int,
  *flags: str,
  experiment: Sequence[str] = TINY,
) -> Group:
  """`launch.train` on FOLDER/NAME; runs of a folder share their compiled programs."""
  cache = f'--compile_cache={folder}/cache'
  command = ('launch.train', *experiment, f'--workdir={folder / name}', cache, *flags)
  return Group(command, n, devices, folder / f'{name}.log')


def finish(
  folder: pathlib.Path, name: str, n: int, devices: int, *flags: str, **options: Any
):
  """The same, to its end."""
  with train(folder, name, n, devices, *flags, **options) as group:
    statuses = group.wait()
    assert statuses == [0] * n, f'{statuses}: {group.text(0)[-3000:]}'


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """metrics.jsonl without its times; a last line that is half written is left out."""
  path = workdir / 'metrics.jsonl'
  rows = path.read_bytes().splitlines(keepends=True) if path.exists() else []
  return [
    {k: v for k, v in json.loads(row).items() if k != 'time'}
    for row in rows
    if row.endswith(b'\n')
  ]


def reached(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
  """Whether a line of at least this step has been written."""
  return lambda: any(line['step'] >= step for line in lines(workdir)[-3:])


def steps_saved(workdir: pathlib.Path) -> list[int]:
  folder = workdir / 'checkpoints'
  names = os.listdir(folder) if folder.exists() else []
  return sorted(int(name) for name in names if name.isdecimal())


def saving_past(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
  """Whether a checkpoint of a later step is being written right now."""

  def condition():
    folder = workdir / 'checkpoints'
    return folder.exists() and any(
      'orbax-checkpoint-tmp' in name and int(name.split('.')[0]) > step
      for name in os.listdir(folder)
    )

  return condition


def record(workdir: pathlib.Path) -> dict[str, Any]:
  """What stands in config.json."""
  return json.loads((workdir / 'config.json').read_text())


def result(workdir: pathlib.Path) -> dict[str, Any]:
  return json.loads((workdir / 'result.json').read_text())


def largest_difference(a: pathlib.Path, b: pathlib.Path) -> float:
  """Of the figures of two runs, line by line; the lines are of the same steps."""
  pairs = list(zip(lines(a), lines(b), strict=True))
  assert all(
    (x['step'], x['split'], x['metrics'].keys())
    == (y['step'], y['split'], y['metrics'].keys())
    for x, y in pairs
  )
  return max(
    abs(x['metrics'][k] - y['metrics'][k]) for x, y in pairs for k in x['metrics']
  )
