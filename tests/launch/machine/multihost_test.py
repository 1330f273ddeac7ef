"""Several processes: their flags, signs of life, rows of a batch, and a common leave.

The faults, with real signals, are in multihost_faults_test.py.
"""

import argparse
import json
import pathlib
import signal
import time

from absl.testing import absltest, parameterized

from dlx.errors import ConfigError
from launch.machine import multihost
from launch.machine.peers import LOST, Peers
from tests import turns
from tests.launch import processes


def values(**given):
  names = ('coordinator', 'num_processes', 'process_id')
  return argparse.Namespace(**{'multihost': True, **dict.fromkeys(names), **given})


class AddressesTest(parameterized.TestCase):
  def test_off_and_found_by_jax(self):
    self.assertIsNone(multihost.addresses(values(multihost=False), {}))
    self.assertEqual(multihost.addresses(values(), {}), {})

  def test_flags_win_over_variables(self):
    environ = {
      'DLX_COORDINATOR': 'a:1',
      'DLX_NUM_PROCESSES': '3',
      'DLX_PROCESS_ID': '2',
    }
    found = multihost.addresses(values(coordinator='[::1]:77'), environ)
    self.assertEqual(
      found, {'coordinator_address': '[::1]:77', 'num_processes': 3, 'process_id': 2}
    )
    self.assertIsNone(multihost.addresses(values(multihost=False), environ))

  @parameterized.parameters(
    ({'multihost': False, 'num_processes': 2}, {}, '--num_processes without --multih'),
    ({'coordinator': 'a:1'}, {}, r'--num_processes \(or DLX_NUM_PROCESSES\), --proc'),
    ({}, {'DLX_PROCESS_ID': '0'}, r'--coordinator \(or DLX_COORDINATOR\)'),
    (
      {'coordinator': 'a:1', 'num_processes': 2, 'process_id': 2},
      {},
      '--process_id=2 with --num_processes=2 is not allowed: must be 0 to 1',
    ),
    ({'coordinator': 'a', 'num_processes': 2, 'process_id': 0}, {}, '=a is not allow'),
    ({'coordinator': 'a:0', 'num_processes': 2, 'process_id': 0}, {}, 'HOST:PORT'),
    (
      {'coordinator': 'a:1', 'process_id': 0},
      {'DLX_NUM_PROCESSES': 'two'},
      'DLX_NUM_PROCESSES=two is not allowed: must be a number',
    ),
  )
  def test_what_cannot_be_is_one_line(self, given, environ, message):
    with self.assertRaisesRegex(ConfigError, message) as caught:
      multihost.addresses(values(**given), environ)
    self.assertNotIn('\n', str(caught.exception))


class Store:
  """The key-value store of JAX's service, as far as it is used."""

  def __init__(self):
    self.keys = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    del allow_overwrite
    self.keys[key] = value

  def key_value_dir_get(self, folder):
    return [(k, v) for k, v in self.keys.items() if k.startswith(folder)]

  def blocking_key_value_get(self, key, timeout_in_ms):
    del timeout_in_ms
    return self.keys[key]


class Left(Exception):
  """In place of the end of a process."""


class PeersTest(parameterized.TestCase):
  def make(self, count=3):
    """Peers over one store, with a clock that is set by hand."""
    self.time, store = 0.0, Store()

    def leave(status):
      raise Left(status)

    make = lambda k: Peers(
      store,
      k,
      count,
      'localhost:1',
      silence=8.0,
      advice=lambda: 'ADVICE',
      now=lambda: self.time,
      leave=leave,
    )
    peers = [make(k) for k in range(count)]
    for k, one in enumerate(peers):
      others = range(count) if k == 0 else range(1)
      one._seen = {j: ('', 0.0) for j in others if j != k}
      one._every = 0.0  # No waiting for those that read.
    return peers

  def exchange(self, peers, beat):
    """A round of all; those that leave, as {process: status}."""
    left = {}
    for k, one in [*enumerate(peers)][1:] + [(0, peers[0])]:
      one._awake()
      try:
        one._round(beat)
      except Left as e:
        left[k] = e.args[0]
      except KeyError:
        pass  # Nothing told yet.
    return left

  def test_nobody_leaves_while_all_speak(self):
    peers = self.make()
    for beat in range(50):
      self.time += 1
      self.assertEqual(self.exchange(peers, beat), {})

  def test_a_silent_worker_is_told_to_all(self):
    peers = self.make()
    self.exchange(peers, 0)
    left, silent = {}, [peers[0], peers[2]]
    while not left:
      self.time += 1
      self.assertLess(self.time, 20)
      for k, one in ((2, peers[2]), (0, peers[0])):
        one._awake()
        try:
          one._round(int(self.time))
        except Left as e:
          left[k] = e.args[0]
    self.assertEqual(left, {0: LOST})
    self.assertGreater(self.time, 8)
    with self.assertRaises(Left):
      silent[1]._round(99)

  def test_a_process_that_slept_does_not_judge(self):
    peers = self.make()
    self.exchange(peers, 0)
    self.time += 100
    peers[0]._awake()
    self.assertEqual(peers[0]._silent(), [])
    self.time += 3
    peers[0]._awake()
    self.time += 3
    peers[0]._awake()
    self.time += 3
    peers[0]._awake()
    self.assertEqual(peers[0]._silent(), [1, 2])

  def test_the_reason_of_a_failure_is_passed_on(self):
    peers = self.make()
    self.exchange(peers, 0)
    peers[1].fail(1, 'ValueError: no')
    peers[2].fail(LOST, 'a process is gone')
    self.assertEqual(peers[0].failure(), (1, 'process 1 left: ValueError: no'))
    self.assertEqual(self.exchange([peers[0]], 1), {0: 1})

  def test_a_worker_whose_coordinator_hangs_leaves(self):
    peers = self.make()
    self.exchange(peers, 0)
    for _ in range(2):
      self.time += 3
      peers[1]._glance()
    self.time += 3
    with self.assertRaises(Left) as caught:
      peers[1]._glance()
    self.assertEqual(caught.exception.args, (LOST,))


class WordsTest(parameterized.TestCase):
  def test_errors_of_peers(self):
    gloo = RuntimeError('UNKNOWN: Gloo all-reduce failed: Connection closed by peer')
    self.assertTrue(multihost.is_of_peers(gloo))
    try:
      raise ValueError('wrapped') from gloo
    except ValueError as error:
      self.assertTrue(multihost.is_of_peers(error))
    self.assertFalse(multihost.is_of_peers(ValueError('gloo')))
    self.assertFalse(multihost.is_of_peers(RuntimeError('a shape is wrong')))

  def test_newest_checkpoint(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertIn('no checkpoint', multihost.newest_checkpoint(str(folder)))
    for name in ('8', '24', '32.orbax-checkpoint-tmp', '16.corrupt'):
      (folder / 'checkpoints' / name).mkdir(parents=True)
    self.assertIn('step 24;', multihost.newest_checkpoint(str(folder)))
    self.assertIn('the same command', multihost.newest_checkpoint('gs://a/b'))


class ProcessesTest(absltest.TestCase):
  def test_no_cluster_is_one_line(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with processes.train(folder, 'run', 1, 1, '--multihost') as group:
      self.assertEqual(group.wait(), [2], group.text(0))
      last = group.text(0).strip().splitlines()[-1]
    self.assertStartsWith(last, 'error: --multihost found no TPU pod, Slurm or Open')
    self.assertFalse((folder / 'run').exists())

  def test_rows_of_a_batch(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    address = f'127.0.0.1:{processes.free_port()}'
    groups = [
      processes.Group(
        ('tests.launch.rows_child', address, '2', str(k)), 1, 2, folder / f'p{k}'
      )
      for k in range(2)
    ]
    with groups[0] as first, groups[1] as second:
      statuses = first.wait(240) + second.wait(240)
      self.assertEqual(statuses, [0, 0], first.text(0)[-3000:])
      found = [
        json.loads(g.text(0).partition('FOUND ')[2].splitlines()[0]) for g in groups
      ]
    for k in range(2):
      half = [8 * k, 8 * k + 8, 5, True]
      for mesh in ('data=4', 'fsdp=4', 'data=2,tensor=2', 'data=2,sequence=2'):
        self.assertEqual(found[k][mesh], half, mesh)
      # With tensor across the processes both need all rows.
      self.assertEqual(found[k]['tensor=4'], [0, 16, 5, True])
      self.assertEqual(found[k]['keys'], [False, True])
      self.assertEqual(found[k]['whole'], [True] * 4)
      self.assertTrue(found[k]['again'])
      self.assertTrue(found[k]['sums'])

  @turns.seldom(3, 2)
  def test_sigterm_to_one_of_two_at_eight_steps_a_dispatch(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    flags = (
      '--config.num_steps=400',
      '--config.log_every_steps=8',
      '--config.steps_per_dispatch=8',
      '--config.compute_dtype=float64',
      '--config.param_dtype=float64',
    )
    run = folder / 'run'
    with processes.train(folder, 'run', 2, 2, *flags) as group:
      group.until(processes.reached(run, 24))
      began = time.monotonic()
      group.send(1, signal.SIGTERM)
      self.assertEqual(group.wait(120), [42, 42], group.text(0)[-3000:])
      print(f'SIGTERM to process 1: both left after {time.monotonic() - began:.1f} s')
      told = group.text(0)
    (step,) = processes.steps_saved(run)
    self.assertEqual(step % 8, 0)
    self.assertBetween(step, 24, 399)
    self.assertIn(f'interrupted at step {step}, saved', told)
    self.assertEqual(group.text(1).count('interrupted'), 0)
    # On another number of processes, and as one that was never stopped.
    processes.finish(folder, 'run', 1, 4, *flags)
    self.assertIn(f'Going on from step {step} of 400', group.text(0))
    processes.finish(folder, 'straight', 1, 4, *flags)
    difference = processes.largest_difference(run, folder / 'straight')
    print(f'largest difference of a figure: {difference:.1e}')
    self.assertLess(difference, 1e-6)


if __name__ == '__main__':
  absltest.main()
