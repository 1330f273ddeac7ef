"""What clusters do to the processes of a run: real processes, real signals. Slow.

  python -m pytest -m slow -s tests/launch/machine/multihost_faults_test.py

prints what the survivors said and how long they took.
"""

import pathlib
import random
import re
import shutil
import signal
import tempfile
import time

from absl.testing import absltest, parameterized
import jax
import numpy as np
import pytest

from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.checkpoint.files import read_meta
from dlx.run.records.workdir import absolute
from launch.machine.peers import LOST
from tests.launch import processes

pytestmark = pytest.mark.slow

FLAGS = (
  '--config.num_steps=400',
  '--config.save_every_steps=20',
  '--config.compute_dtype=float64',
  '--config.param_dtype=float64',
)
HEARTBEAT = 10
# Survivors are gone so many seconds after the fault: the heartbeat, some rounds of the
# threads that look, and a margin for a busy machine. A dead peer mostly shows at once,
# by its connections.
BOUND = HEARTBEAT + 20.0


def leaves(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """The whole state in a checkpoint, by path."""
  folder = absolute(workdir) / 'checkpoints'

  class Like:
    def __init__(self, dtype, shape):
      self.dtype, self.shape = np.dtype(dtype), tuple(shape)

  there = read_meta(folder / str(step))['leaves']
  wanted = {
    name: Like(dtype, shape)
    for name, (dtype, shape) in there.items()
    if not dtype.startswith('key')
  }
  with jax.enable_x64(True):
    return Checkpointer(folder, read_only=True).read_leaves(step, wanted)[0]


def goes_on_from(log: str) -> list[int]:
  return [int(step) for step in re.findall(r'Going on from step (\d+) of', log)]


def last_words(log: str) -> str:
  found = [line for line in log.splitlines() if line.startswith('error: ')]
  return found[-1] if found else ''


class TopologyTest(absltest.TestCase):
  def test_killed_at_random_and_resumed_on_every_topology(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    # Fewer steps: each is a dozen collectives between four processes.
    steps, every = 120, 10
    flags = (
      *FLAGS,
      f'--config.num_steps={steps}',
      f'--config.save_every_steps={every}',
    )
    mesh = '--mesh=data=2,fsdp=2,tensor=2'
    straight, broken = folder / 'straight', folder / 'broken'
    processes.finish(folder, 'straight', 4, 2, mesh, *flags)

    rng = random.Random()
    moment, victim = rng.randrange(3 * every, steps - every), rng.randrange(4)
    told = f'process {victim} killed at step {moment}'
    beat = f'--heartbeat_seconds={HEARTBEAT}'
    with processes.train(folder, 'broken', 4, 2, mesh, *flags, beat) as group:
      group.until(processes.reached(broken, moment))
      group.send(victim, signal.SIGKILL)
      statuses = group.wait(BOUND, skip=[victim])
      self.assertEqual({s for s in statuses if s is not None}, {LOST}, told)
    saved = processes.steps_saved(broken)[-1]
    self.assertGreaterEqual(saved, moment - 2 * every, told)  # One may be under way.
    for other in ('p2x4', 'p1x8', 'p1x1'):
      shutil.copytree(broken, folder / other)

    processes.finish(folder, 'broken', 4, 2, mesh, *flags)
    log = (folder / 'broken.log.0').read_text()
    self.assertEqual(goes_on_from(log), [saved], told)
    self.assertEqual(processes.lines(broken), processes.lines(straight), told)
    bits = [processes.result(w)['fingerprint'] for w in (broken, straight)]
    self.assertEqual(bits[0], bits[1], told)

    final = leaves(straight, steps)
    for name, n, devices, where in (
      ('p2x4', 2, 4, mesh),
      ('p1x8', 1, 8, '--mesh=data=8'),
      ('p1x1', 1, 1, '--mesh=data=1'),
    ):
      processes.finish(folder, name, n, devices, where, *flags)
      log = (folder / f'{name}.log.0').read_text()
      self.assertEqual(goes_on_from(log), [saved], f'{name}: {told}')
      # A line for every step: were the data of a step others, its loss would be.
      figures = processes.largest_difference(folder / name, straight)
      here = leaves(folder / name, steps)
      self.assertEqual(here.keys(), final.keys())
      state = max(
        float(np.abs(here[k].astype(np.float64) - final[k].astype(np.float64)).max())
        for k in final
        if final[k].size
      )
      print(f'{name}, {told}: figures differ by {figures:.1e}, state by {state:.1e}')
      self.assertLess(figures, 1e-6, f'{name}: {told}')
      self.assertLess(state, 1e-6, f'{name}: {told}')


class FaultTest(parameterized.TestCase):
  folder: pathlib.Path
  straight: pathlib.Path

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # One folder for all tests of the class: they share the undisturbed run.
    cls.folder = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, cls.folder)
    processes.finish(cls.folder, 'straight', 2, 2, *FLAGS)
    cls.straight = cls.folder / 'straight'

  def check_goes_on(self, name: str, saved: int):
    """The same command ends as the run that was never disturbed."""
    processes.finish(self.folder, name, 2, 2, *FLAGS)
    log = (self.folder / f'{name}.log.0').read_text()
    self.assertEqual(goes_on_from(log)[-1], saved)
    run = self.folder / name
    self.assertEqual(processes.lines(run), processes.lines(self.straight))
    self.assertEqual(
      processes.result(run)['fingerprint'],
      processes.result(self.straight)['fingerprint'],
    )

  @parameterized.named_parameters(
    # At a barrier a killed one is silent as a frozen one is.
    ('kill_worker', signal.SIGKILL, 1, 'is gone|no sign of life from process 1 for'),
    ('kill_coordinator', signal.SIGKILL, 0, 'is gone'),
    ('freeze_worker', signal.SIGSTOP, 1, 'no sign of life from process 1 for 10 s'),
    (
      'freeze_coordinator',
      signal.SIGSTOP,
      0,
      'no sign of life from process 0 for 10 s',
    ),
  )
  def test_lost(self, number, victim, words):
    name = self.id().rpartition('.')[2]
    run, survivor = self.folder / name, 1 - victim
    beat = f'--heartbeat_seconds={HEARTBEAT}'
    with processes.train(self.folder, name, 2, 2, *FLAGS, beat) as group:
      group.until(processes.reached(run, 70))
      began = time.monotonic()
      group.send(victim, number)
      statuses = group.wait(BOUND, skip=[victim])
      seconds = time.monotonic() - began
      told = last_words(group.text(survivor))
      print(f'{name}: status {statuses[survivor]} after {seconds:.1f} s: {told}')
      self.assertEqual(statuses[survivor], LOST)
      self.assertRegex(told, words)
    saved = processes.steps_saved(run)[-1]
    self.assertIn(f'is that of step {saved};', told)
    self.assertGreaterEqual(saved, 40)
    self.check_goes_on(name, saved)

  @parameterized.named_parameters(
    ('sigterm_worker', signal.SIGTERM, 1),
    ('sigterm_coordinator', signal.SIGTERM, 0),
    ('sigint_worker', signal.SIGINT, 1),
  )
  def test_asked(self, number, asked):
    name = self.id().rpartition('.')[2]
    run = self.folder / name
    with processes.train(self.folder, name, 2, 2, *FLAGS) as group:
      group.until(processes.reached(run, 70))
      began = time.monotonic()
      group.send(asked, number)
      self.assertEqual(group.wait(120), [42, 42])
      told = group.text(0).strip().splitlines()[-1]
      print(f'{name}: status 42 after {time.monotonic() - began:.1f} s: {told}')
    saved = processes.steps_saved(run)[-1]
    self.assertIn(f'interrupted at step {saved}, saved', told)
    # Nothing is lost: the newest checkpoint is of the last line.
    self.assertEqual(processes.lines(run)[-1]['step'], saved)
    self.check_goes_on(name, saved)

  @parameterized.named_parameters(('worker', 1), ('coordinator', 0))
  def test_killed_during_a_save(self, victim):
    name = self.id().rpartition('.')[2]
    run, survivor = self.folder / name, 1 - victim
    beat = f'--heartbeat_seconds={HEARTBEAT}'
    with processes.train(self.folder, name, 2, 2, *FLAGS, beat) as group:
      group.until(processes.saving_past(run, 50))
      began = time.monotonic()
      group.send(victim, signal.SIGKILL)
      statuses = group.wait(BOUND, skip=[victim])
      told = last_words(group.text(survivor))
      print(
        f'{name}: status {statuses[survivor]} after {time.monotonic() - began:.1f} s'
      )
      print(
        f'  {told}; left: {sorted(p.name for p in (run / "checkpoints").iterdir())}'
      )
      self.assertEqual(statuses[survivor], LOST)
    saved = processes.steps_saved(run)[-1]
    self.assertIn(f'is that of step {saved};', told)
    self.check_goes_on(name, saved)
    names = [p.name for p in (run / 'checkpoints').iterdir()]
    self.assertTrue(all(n.isdecimal() for n in names), names)

  def test_a_nan_is_found_by_all(self):
    flags = (
      '--config.num_steps=20',
      '--config.lr=1e37',
      '--config.warmup_fraction=0.9',
      '--config.save_every_steps=1',
      '--mesh=data=2,tensor=2',
    )
    with processes.train(self.folder, 'nan', 2, 2, *flags) as group:
      self.assertEqual(group.wait(), [1, 1])
      for k in range(2):
        self.assertIn('is the first tensor that is not finite (', group.text(k))
    # What is kept was finite: lines were written for its steps.
    saved = processes.steps_saved(self.folder / 'nan')[-1]
    self.assertGreaterEqual(len(processes.lines(self.folder / 'nan')), saved)

  def test_a_failure_of_one_process_is_told_by_all(self):
    folder = self.folder
    with processes.train(folder, 'other', 2, 2, *FLAGS) as group:
      group.until(processes.reached(folder / 'other', 30))
      # A second run in the same workdir: process 0 is refused, process 1 would wait.
      with processes.train(folder, 'other', 2, 2, *FLAGS) as second:
        began = time.monotonic()
        self.assertEqual(second.wait(120), [2, 2])
        print(f'refused after {time.monotonic() - began:.1f} s')
        print(last_words(second.text(1)))
      self.assertIn('another process is running there', second.text(0))
      self.assertIn('process 0 left: --workdir=', second.text(1))
      self.assertEqual(group.wait(), [0, 0])


if __name__ == '__main__':
  absltest.main()
