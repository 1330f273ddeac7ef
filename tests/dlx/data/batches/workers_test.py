"""Tests of the pipeline of batches, with real worker processes."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from unittest import mock

from absl import flags
from absl.testing import parameterized
import chex
import jax
import numpy as np
import pytest

from dlx import leaving
from dlx.data.batches import workers
from dlx.data.batches.streamed import batches
from dlx.data.batches.workers import BatchError, SharedBatches, WholeBatches
from dlx.data.dataset import Loaded, Streamed
from dlx.errors import ConfigError, DataError

REPO = pathlib.Path(__file__).resolve().parents[4]
PATIENCE_SECONDS = 60  # For what takes seconds on an idle machine.


class Weird(Exception):
  """Pickles, but cannot be unpickled."""

  def __init__(self, a, b):
    super().__init__(f'{a} and {b}')


class Toy(Streamed):
  """Batches of (step, process id) that fail or hang at a step.

  Attributes:
    folder: gets an empty file named by each step that is begun.
  """

  shapes = ()

  def __init__(self, num_workers=0, *, at=None, what=None, folder=None):
    self.num_workers = num_workers
    self.at, self.what, self.folder = at, what, folder

  def load(self, data_dir=None):
    return Loaded(None, {})

  def get(self, data, step, rows):
    if self.folder is not None:
      pathlib.Path(self.folder, str(step)).touch()
    if self.at is not None and step >= self.at:
      if self.what == 'hang':
        time.sleep(3600)
      if self.what == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
      if self.what == 'objects':
        return {'step': np.array([{}], object)}
      raise {
        'weird': Weird('this', 'that'),
        'exit': SystemExit(0),
        'data': DataError('file x is truncated.'),
      }[self.what]
    return {'step': np.array(step), 'pid': np.full((2000,), os.getpid())}


class Small(Toy):
  """Declares what a batch holds, so that several are sent at once."""

  shapes = (
    {
      'step': jax.ShapeDtypeStruct((), np.int64),
      'pid': jax.ShapeDtypeStruct((2000,), np.int64),
    },
  )

  def __init__(self, *args, size=2000, **kwargs):
    super().__init__(*args, **kwargs)
    self.size = size

  def get(self, data, step, rows):
    batch = super().get(data, step, rows)
    return {**batch, 'pid': np.full((self.size,), os.getpid())}


ALL = slice(None)


def alive(pid):
  """Whether a process runs; a dead one that nobody waits for does not."""
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] not in 'ZX'


def wait_until(condition):
  deadline = time.monotonic() + PATIENCE_SECONDS
  while time.monotonic() < deadline:
    if condition():
      return True
    time.sleep(0.05)
  return condition()


def all_end(pids):
  """Whether processes end by themselves; kills those that do not."""
  ended = wait_until(lambda: not any(map(alive, pids)))
  for pid in filter(alive, pids):
    os.kill(pid, signal.SIGKILL)
  return ended


def child_pids(pid):
  """The worker processes of a process (not multiprocessing's resource tracker)."""
  # Listed by the thread that has spawned them.
  lists = pathlib.Path('/proc', str(pid), 'task').glob('*/children')
  found = [child for one in lists for child in one.read_text().split()]
  lines = {int(p): pathlib.Path(f'/proc/{p}/cmdline').read_text() for p in found}
  return {p for p, line in lines.items() if 'spawn_main' in line}


class BatchesTest(parameterized.TestCase):
  @parameterized.parameters(0, 2)
  def test_workers_make_the_batches(self, workers):
    with batches(Toy(workers), None, 0, 9, ALL) as got:
      pids = [int(batch['pid'][0]) for batch in got]
    self.assertLen(set(pids), workers or 1)
    self.assertEqual(os.getpid() in pids, workers == 0)
    self.assertEqual(pids, (pids[: max(workers, 1)] * 9)[:9])
    others = set(pids) - {os.getpid()}
    self.assertTrue(all_end(others))

  def test_one_batch_needs_no_worker(self):
    with batches(Toy(2), None, 5, 6, ALL) as got:
      self.assertEqual([int(b['pid'][0]) for b in got], [os.getpid()])

  @parameterized.parameters(
    ('weird', 0, BatchError, 'Batch 6 of Toy: Weird: this and that'),
    ('weird', 1, BatchError, 'Batch 6 of Toy: Weird: this and that'),
    ('exit', 0, BatchError, 'Batch 6 of Toy: SystemExit: 0'),
    ('exit', 1, BatchError, 'Batch 6 of Toy: SystemExit: 0'),
    ('objects', 0, BatchError, "Batch 6 of Toy: TypeError: field 'step' of dtype obj"),
    ('data', 0, DataError, r'Batch 6: file x is truncated\.'),
    ('data', 1, DataError, r'Batch 6: file x is truncated\.'),
  )
  def test_failure_names_the_step(self, what, workers, kind, message):
    got = batches(Toy(workers, at=6, what=what), None, 3, 50, ALL)
    first = [next(got) for _ in range(3)]
    self.assertEqual([int(batch['step']) for batch in first], [3, 4, 5])
    with self.assertRaisesRegex(kind, f'^{message}') as caught:
      next(got)
    self.assertNotIn('\n', str(caught.exception))
    if workers and what == 'weird':
      self.assertIn('in get', caught.exception.__notes__[0])
    # It has closed itself.
    self.assertIsNone(next(got, None))
    pids = {int(batch['pid'][0]) for batch in first} - {os.getpid()}
    self.assertLen(pids, workers)
    self.assertTrue(all_end(pids))

  def test_small_batches_are_sent_together(self):
    # A worker sends eight at once: the ring holds them, a failure ends the row.
    with batches(Small(2), None, 3, 60, ALL) as got:
      found = [(int(b['step']), int(b['pid'][0])) for b in got]
    self.assertEqual([step for step, _ in found], list(range(3, 60)))
    first, second = found[0][1], found[8][1]
    self.assertEqual(
      [pid for _, pid in found[:24]], [first] * 8 + [second] * 8 + [first] * 8
    )
    self.assertNotEqual(first, second)

  @parameterized.parameters('weird', 'data')
  def test_what_was_made_before_a_failure_comes_first(self, what):
    got = batches(Small(2, at=6, what=what), None, 3, 60, ALL)
    self.assertEqual([int(next(got)['step']) for _ in range(3)], [3, 4, 5])
    with self.assertRaisesRegex(
      ConfigError if what == 'data' else BatchError, 'Batch 6'
    ):
      next(got)
    self.assertIsNone(next(got, None))

  def test_larger_batches_than_declared_are_sent_all_the_same(self):
    with batches(Small(1, size=9000), None, 0, 20, ALL) as got:
      self.assertEqual([len(b['pid']) for b in got], [9000] * 20)

  def test_worker_that_dies(self):
    # Batches that it had made but not yet sent are lost with it.
    got = batches(Toy(2, at=6, what='die'), None, 3, 50, ALL)
    with self.assertRaisesRegex(BatchError, r'^Batch [3-6]: .*exit code -9.*/dev/shm'):
      list(got)
    self.assertIsNone(next(got, None))

  def test_close_ends_workers_that_hang(self):
    got = batches(Toy(2, at=4, what='hang'), None, 0, 50, ALL)
    pids = {int(next(got)['pid'][0]) for _ in range(4)}
    self.assertTrue(all(map(alive, pids)))
    got.close()
    got.close()
    self.assertTrue(all_end(pids))

  def test_collection_ends_workers(self):
    got = batches(Toy(1), None, 0, 50, ALL)
    pids = {int(next(got)['pid'][0])}
    del got
    self.assertTrue(all_end(pids))

  @parameterized.parameters((0, 1), (0, 4), (2, 2))
  def test_no_more_than_buffer_ahead(self, workers, buffer):
    folder = self.create_tempdir().full_path
    with batches(Toy(workers, folder=folder), None, 0, 500, ALL, buffer=buffer) as got:
      next(got)
      begun = []
      # Until nothing new was begun for a second.
      while len(begun) < 20 or begun[-1] > begun[-20]:
        begun.append(len(os.listdir(folder)))
        time.sleep(0.05)
      self.assertGreater(begun[-1], 1)
      self.assertLessEqual(
        begun[-1], 1 + max(workers, 1) * (buffer + 2 * (workers > 0))
      )

  @parameterized.parameters(
    dict(start=-1),
    dict(stop=-1),
    dict(stop=2**31),
    dict(num_workers=-1),
    dict(buffer=0),
    dict(start=9, stop=8),
  )
  def test_refuses(self, **changed):
    arguments = dict(start=0, stop=4) | changed
    with self.assertRaisesRegex(ValueError, '^batches: .* is not allowed'):
      batches(Toy(), None, rows=ALL, **arguments)

  def test_unparsed_flags_are_named(self):
    flags.FLAGS.unparse_flags()
    try:
      with self.assertRaisesRegex(ConfigError, r'mark_as_parsed\(\)'):
        batches(Toy(2), None, 0, 9, ALL)
    finally:
      flags.FLAGS.mark_as_parsed()


class SharedSourceTest(parameterized.TestCase):
  def make(self, data):
    return SharedBatches(WholeBatches(Toy(), data, 0, 9, slice(0, 2)))

  def test_large_arrays_are_not_pickled(self):
    large = np.random.default_rng(0).normal(size=(1000, 200))
    data = {'a': large, 'deep': [large[:500], np.arange(3)], 'turned': large.T}
    shared = self.make(data)
    pickled = pickle.dumps(shared)
    self.assertLess(len(pickled), 3000)
    opened = pickle.loads(pickled)
    chex.assert_trees_all_equal(opened.data, data)
    self.assertFalse(opened.data['a'].flags.writeable)
    shared.close()
    chex.assert_trees_all_equal(opened.data, data)  # Lives on in who has opened it.

  def test_without_anonymous_files_all_is_pickled(self):
    data = {'a': np.random.default_rng(0).normal(size=(1000, 200))}
    with mock.patch.object(workers.os, 'memfd_create', create=True):
      del workers.os.memfd_create
      pickled = pickle.dumps(self.make(data))
    self.assertGreater(len(pickled), data['a'].nbytes)
    chex.assert_trees_all_equal(pickle.loads(pickled).data, data)

  @parameterized.parameters('C', 'F')
  def test_files_are_opened_by_name(self, order):
    path = self.create_tempfile('a.npy').full_path
    np.save(
      path, np.asarray(np.random.default_rng(0).normal(size=(500, 90)), order=order)
    )
    mapped = np.load(path, mmap_mode='r')
    shared = self.make({'a': mapped, 'part': mapped[100:150]})
    self.assertLess(len(shared.payload), 50 * 90 * 8 + 3000)
    opened = pickle.loads(pickle.dumps(shared)).data
    self.assertIsInstance(opened['a'], np.memmap)
    chex.assert_trees_all_equal(opened, {'a': mapped, 'part': mapped[100:150]})


def parent(mode):
  """What the processes of ProcessTest run."""
  flags.FLAGS.mark_as_parsed()
  say = lambda *words: print(*words, flush=True)
  if mode == 'leave':
    got = batches(Toy(2, at=4, what='hang'), None, 0, 50, ALL)
    kept = [next(got) for _ in range(4)]
    say('leaves', kept[-1]['step'])
    globals()['left_open'] = got
  elif mode == 'fall':
    got = batches(Toy(2), None, 0, 50, ALL)
    next(got)
    raise ValueError('on purpose')
  elif mode == 'wait':
    with batches(Toy(2), None, 0, 50, ALL) as got:
      next(got)
      say('waits')
      time.sleep(3600)
  elif mode == 'signals':
    count = []
    for number in leaving.SIGNALS:
      signal.signal(number, lambda number, frame: count.append(number))
    say('starts')
    with batches(Toy(2), None, 0, 40, ALL) as got:
      steps = []
      for batch in got:
        if not steps:
          say('runs')
        steps.append(int(batch['step']))
        time.sleep(0.1)
    assert steps == list(range(40)), steps
    say('done', len(count) > 4)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
class TestProcesses:
  """Real processes in a group of their own, as under a terminal or a scheduler."""

  @pytest.fixture
  def run(self):
    started = []

    def run(mode):
      code = f'from tests.dlx.data.batches import workers_test as t; t.parent({mode!r})'
      process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=REPO,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
      )
      started.append(process)
      return process

    yield run
    for process in started:
      # Not the group of a parent that has ended: its resource tracker still cleans up.
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
      process.communicate()

  def test_workers_end_with_a_killed_parent(self, run):
    process = run('wait')
    assert process.stdout.readline() == 'waits\n'
    pids = child_pids(process.pid)
    assert len(pids) == 2 and all(map(alive, pids))
    process.kill()
    process.wait()
    assert all_end(pids)

  def test_workers_end_with_a_parent_killed_while_they_start(self, run):
    process = run('wait')
    assert wait_until(lambda: len(child_pids(process.pid)) == 2)
    pids = child_pids(process.pid)
    process.kill()
    process.wait()
    assert all_end(pids)

  def test_exit_without_close(self, run):
    process = run('leave')
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (out, err, process.returncode) == ('leaves 3\n', '', 0)

  def test_exit_by_exception(self, run):
    process = run('fall')
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert err.startswith('Traceback') and err.endswith('\nValueError: on purpose\n')
    assert err.count('Traceback') == 1

  def test_signals_to_the_group_reach_the_parent_alone(self, run):
    process = run('signals')
    assert process.stdout.readline() == 'starts\n'
    # From before the workers exist until batches come.
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + PATIENCE_SECONDS
    said = None
    while not said and time.monotonic() < deadline:
      for number in leaving.SIGNALS:
        os.killpg(process.pid, number)
      time.sleep(0.02)
      said = process.stdout.readline()
    assert said == 'runs\n'
    os.set_blocking(process.stdout.fileno(), True)
    for _ in range(10):
      for number in leaving.SIGNALS:
        os.killpg(process.pid, number)
      time.sleep(0.05)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (out, err, process.returncode) == ('done True\n', '', 0)
