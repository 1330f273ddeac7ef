"""Tests for dlx/run/describe.py, by numbers worked out by hand."""

import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.dataset import Source
from dlx.errors import ConfigError
from dlx.experiment import Eval, Experiment
from dlx.run import describe as lib
from dlx.run import sharding
from dlx.state import Mean, create
from tests import simulated

ROOT = pathlib.Path(__file__).parents[3]


def read(data_dir):
  raise AssertionError(f'read data from {data_dir}')


def source(split, size):
  shapes = {'x': jax.ShapeDtypeStruct((3,), np.float32)}
  return Source('toy', split, shapes, size, read)


def toy(train_size=100, batch_size=8):
  """A table of 6 x 4 that a rule spreads, a bias, and their moments in bfloat16."""

  def init(key):
    params = {'table': jnp.zeros((6, 4)), 'bias': jnp.zeros(5)}
    moments = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    return create(params, {'mu': moments}, key, model_state={'count': jnp.int32(0)})

  def train_step(state, batch):
    return state._replace(step=state.step + 1), {'loss': Mean(batch['x'].sum(), 1.0)}

  def step(state, batch):
    del state
    return {'loss': Mean(batch['x'].sum(), batch['weight'].sum())}

  test = Eval(step, InOrder(source('test', 10), 8))
  return Experiment(
    init=init,
    train_step=train_step,
    train_data=Shuffled(source('train', train_size), batch_size, 0),
    evals={'test': test, 'again': test},
    placement=((r'table$', P('tensor', 'fsdp')),),
  )


def mesh(**axes):
  kinds = (AxisType.Auto,) * len(axes)
  return AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=kinds)


class DescribeTest(parameterized.TestCase):
  def test_counts_and_bytes_worked_out_by_hand(self):
    found = lib.describe(toy(), mesh(fsdp=2, tensor=2))
    leaves = {x.path: x for x in found.leaves}
    # 24 numbers of 4 bytes, a quarter on each device.
    self.assertEqual(
      leaves['params/table'],
      ('params/table', (6, 4), 'float32', 24, ('tensor', 'fsdp'), 96, 24),
    )
    self.assertEqual(
      leaves['params/bias'], ('params/bias', (5,), 'float32', 5, (), 20, 20)
    )
    self.assertEqual(found.totals['parameters'], (2, 29, 116, 44))
    self.assertEqual(found.totals['optimiser state'], (2, 29, 58, 22))
    self.assertEqual(found.totals['model state'], (1, 1, 4, 4))
    self.assertNotIn('averaged parameters', found.totals)
    # step, evaluated: 4 bytes; stop: 1; a key of two words: 8.
    self.assertEqual(found.totals['step, key and flags'], (4, 5, 17, 17))
    self.assertEqual(found.totals['all'], (9, 64, 195, 87))
    # Every device has all rows: 100 of 3 numbers, and 10.
    self.assertEqual(found.resident['train'], (1, 300, 1200, 1200))
    self.assertEqual(found.resident['test'], (1, 30, 120, 120))
    self.assertNotIn('again', found.resident)  # The same arrays.
    self.assertEqual(found.mesh, {'fsdp': 2, 'tensor': 2})
    self.assertEqual((found.devices[1], found.slices), (4, 1))

  def test_placement_and_bytes_are_those_of_the_run(self):
    here = sharding.make_mesh('data=1', jax.devices()[:1])
    found = lib.describe(toy(), here)
    state = jax.eval_shape(toy().init, jax.random.key(0))
    self.assertEqual(found.totals['all'].bytes, found.totals['all'].bytes_per_device)
    self.assertLen(found.leaves, len(jax.tree.leaves(state)))

  def test_data_of_unknown_size_is_no_error(self):
    found = lib.describe(toy(train_size=None), mesh(fsdp=2, tensor=2))
    self.assertIsNone(found.resident['train'])
    self.assertIn('?: known once the data was read', lib.as_text(found))

  def test_a_batch_that_does_not_divide_is_refused(self):
    with self.assertRaisesRegex(ConfigError, 'A batch of 5 rows does not divide'):
      lib.describe(toy(batch_size=5), mesh(fsdp=2, tensor=2))

  def test_text(self):
    lines = lib.as_text(lib.describe(toy(), mesh(fsdp=2, tensor=2))).splitlines()
    self.assertStartsWith(lines[0], 'mesh: fsdp=2, tensor=2 (4 x device)')
    rows = [line.split() for line in lines]
    wanted = 'table 6 x 4 float32 24 tensor, fsdp 96 B 24 B'
    self.assertIn(wanted.split(), rows)
    self.assertIn('bias 5 float32 5 everywhere 20 B 20 B'.split(), rows)
    self.assertIn('parameters 2 29 116 B 44 B'.split(), rows)
    self.assertIn('data: train 1 300 1.2 KiB 1.2 KiB'.split(), rows)

  @parameterized.parameters(
    (0, '0 B'),
    (1023, '1023 B'),
    (1536, '1.5 KiB'),
    (200 * 2**10, '200 KiB'),
    (2**30, '1.0 GiB'),
    (5 * 2**40, '5.0 TiB'),
  )
  def test_bytes(self, n, text):
    self.assertEqual(lib.in_bytes(n), text)

  def test_placement_text(self):
    self.assertEqual(lib.placement_text((None, ('data', 'fsdp'))), '-, data+fsdp')
    self.assertEqual(lib.placement_text(()), 'everywhere')


class LauncherTest(absltest.TestCase):
  def test_describe_prints_and_leaves_nothing(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    env = {**simulated.environment(8), 'PYTHONPATH': str(ROOT), 'JAX_LOG_COMPILES': '1'}
    command = [sys.executable, '-m', 'launch.train', '--exp=cnn', '--describe']
    command += ['--mesh=data=-1,fsdp=4', '--config.dataset=mnist', '--data_dir=nowhere']
    done = subprocess.run(
      command, env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    self.assertStartsWith(done.stdout, 'mesh: data=2, fsdp=4 (8 x cpu)\n')
    self.assertRegex(
      done.stdout, r'hidden/kernel +3136 x 128 .* fsdp +1.5 MiB +392 KiB'
    )
    self.assertEqual(list(folder.iterdir()), [])
    self.assertNotIn('Compiling', done.stderr)


if __name__ == '__main__':
  absltest.main()
