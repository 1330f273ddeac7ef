"""A run that is killed ends as one that was not: real processes, real signals.

Batch norm, dropout, EMA and micro-batches are on. Every run has the same command, but
for its workdir, and ends with the same fingerprint and the same metrics.jsonl.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from absl.testing import absltest

from tests import turns

ROOT = pathlib.Path(__file__).parents[2]
FORK = pathlib.Path(__file__).with_name('fork_for_kills.py')


class Session:
  """One process of `launch.train` on a workdir."""

  def __init__(self, workdir, stream: bool, cache):
    self.workdir = pathlib.Path(workdir)
    command = [
      sys.executable,
      '-m',
      'launch.train',
      f'--exp={FORK}',
      f'--workdir={workdir}',
      f'--config.stream={stream}',
      f'--compile_cache={cache}',
    ]
    self.log = open(f'{workdir}.log', 'ab')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    self.process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=env,
      stdout=self.log,
      stderr=self.log,
      start_new_session=True,
    )

  def wait(self) -> int:
    status = self.process.wait(timeout=300)
    self.log.close()
    return status

  def until(self, condition):
    """Waits for a condition on the workdir, or for the end of the process."""
    while self.process.poll() is None and not condition(self.workdir):
      time.sleep(0.0005)

  def kill(self, number):
    if self.process.poll() is None:
      self.process.send_signal(number)
    return self.wait()


def step_reached(step):
  """Whether a line of at least this step has been written."""

  def condition(workdir):
    path = workdir / 'metrics.jsonl'
    if not path.exists():
      return False
    written = path.read_bytes().splitlines(keepends=True)
    return any(
      line.endswith(b'\n') and json.loads(line)['step'] >= step for line in written[-3:]
    )

  return condition


def saving_past(step):
  """Whether a checkpoint of a later step is being written right now."""

  def condition(workdir):
    folder = workdir / 'checkpoints'
    return folder.exists() and any(
      'orbax-checkpoint-tmp' in name and int(name.split('.')[0]) > step
      for name in os.listdir(folder)
    )

  return condition


def lines(workdir):
  rows = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  return [{k: v for k, v in json.loads(row).items() if k != 'time'} for row in rows]


def fingerprint(workdir):
  return json.loads((pathlib.Path(workdir) / 'result.json').read_text())['fingerprint']


class KillTest(absltest.TestCase):
  @turns.seldom(0, 2)
  def test_killed_and_restarted_equals_undisturbed_resident(self):
    self.killed_and_restarted(stream=False)

  @turns.seldom(1, 2)
  def test_killed_and_restarted_equals_undisturbed_streamed(self):
    self.killed_and_restarted(stream=True)

  def killed_and_restarted(self, stream):
    folder = pathlib.Path(self.create_tempdir().full_path)
    cache = folder / 'cache'
    straight = folder / 'straight'
    session = Session(straight, stream, cache)
    self.assertEqual(session.wait(), 0, (folder / 'straight.log').read_text()[-3000:])

    rng = random.Random()  # Any step must do: the seed is told where it did not.
    moments = [rng.randrange(40, 120), rng.randrange(150, 250), rng.randrange(280, 400)]
    broken = folder / 'broken'
    session = Session(broken, stream, cache)
    session.until(step_reached(moments[0]))
    self.assertEqual(session.kill(signal.SIGKILL), -signal.SIGKILL)
    session = Session(broken, stream, cache)
    session.until(saving_past(moments[1]))
    self.assertEqual(session.kill(signal.SIGKILL), -signal.SIGKILL)
    session = Session(broken, stream, cache)
    session.until(step_reached(moments[2]))
    self.assertEqual(session.kill(signal.SIGTERM), 42)
    # SIGTERM saved: the next session starts from a step that is no multiple of 10, or
    # at least goes on from where the last line was.
    self.assertFalse((broken / 'result.json').exists())
    session = Session(broken, stream, cache)
    self.assertEqual(session.wait(), 0, (folder / 'broken.log').read_text()[-3000:])

    told = f'killed at {moments}'
    self.assertEqual(fingerprint(broken), fingerprint(straight), told)
    self.assertEqual(lines(broken), lines(straight), told)
    log = (folder / 'broken.log').read_text()
    self.assertEqual(log.count('Going on from step'), 3, log[-3000:])

  def test_sigint_saves_and_the_second_leaves_at_once(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    session = Session(folder / 'run', False, folder / 'cache')
    session.until(step_reached(50))
    self.assertEqual(session.kill(signal.SIGINT), 42)
    self.assertTrue(any((folder / 'run' / 'checkpoints').iterdir()))

  def test_workers_end_with_a_killed_parent(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    session = Session(folder / 'run', True, folder / 'cache')
    session.until(step_reached(50))
    group = session.process.pid  # It leads a session of its own, with its workers.
    self.assertGreater(len(members(group)), 1)
    session.kill(signal.SIGKILL)
    until = time.monotonic() + 30
    while members(group) and time.monotonic() < until:
      time.sleep(0.1)
    self.assertEqual(members(group), [])


def members(session: int) -> list[int]:
  """Live processes of a session, by /proc."""
  found = []
  for entry in pathlib.Path('/proc').iterdir():
    if entry.name.isdecimal():
      try:
        fields = (entry / 'stat').read_text().rpartition(')')[2].split()
      except OSError:
        continue
      if int(fields[3]) == session and fields[0] != 'Z':
        found.append(int(entry.name))
  return found


if __name__ == '__main__':
  absltest.main()
