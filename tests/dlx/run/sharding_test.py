"""Tests for dlx/run/sharding.py: the rule on paper, then on eight devices."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import types

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax

from dlx import optim
from dlx.errors import ConfigError
from dlx.run import sharding as lib
from dlx.state import create, leaves_by_path
from dlx.train.members import vectorize
from tests import simulated
from tests.dlx.train import supervised_test

ROOT = pathlib.Path(__file__).parents[3]


class ParseMeshTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, 4, {'data': 4}),
    ('data=4', 4, {'data': 4}),
    ('data=4,tensor=2', 8, {'data': 4, 'tensor': 2}),
    ('fsdp=2, sequence=3', 6, {'fsdp': 2, 'sequence': 3}),
    ('data=-1,tensor=4', 32, {'data': 8, 'tensor': 4}),
    ('fsdp=2,expert=-1', 8, {'fsdp': 2, 'expert': 4}),
    ('data=-1,fsdp=8', 8, {'data': 1, 'fsdp': 8}),
  )
  def test_reads(self, text, devices, wanted):
    self.assertEqual(lib.parse_mesh(text, devices), wanted)

  @parameterized.parameters(
    ('data=3', 8, 'has 3 devices, but this run has 8'),
    ('model=8', 8, "'model=8' is not allowed"),
    ('data', 8, "'data' is not allowed"),
    ('data=0', 8, "'data=0' is not allowed"),
    ('data=x', 8, 'e.g. data=4,tensor=2'),
    ('data=2,data=4', 8, "'data=4' is not allowed: .* at most once"),
    ('data=-2', 8, "'data=-2' is not allowed: .* or -1 for what is left"),
    ('data=-1,fsdp=-1', 8, 'what is left of the devices, is for one axis'),
    ('data=-1,tensor=3', 8, 'leaves data no size: 8 devices are no multiple of 3'),
  )
  def test_refuses(self, text, devices, message):
    with self.assertRaisesRegex(ConfigError, message):
      lib.parse_mesh(text, devices)


@dataclasses.dataclass(frozen=True)
class Device:
  """Enough of a device for a mesh."""

  id: int
  slice_index: int
  process_index: int = 0
  platform: str = 'cpu'
  device_kind: str = 'cpu'


class SlicesTest(parameterized.TestCase):
  def mesh(self, text, *slices):
    """By axis: the (slice, device) at each place, for devices in a mixed order."""
    devices = [Device(i, s) for i, s in enumerate(slices)]
    mesh = lib.make_mesh(text, devices)
    return mesh, np.vectorize(lambda d: d.slice_index)(mesh.devices)

  def test_a_line_of_data_goes_through_all_slices_and_the_others_stay_in_one(self):
    mesh, slice_DFT = self.mesh('data=4,fsdp=2,tensor=2', *[0, 1] * 8)
    self.assertEqual(dict(mesh.shape), {'data': 4, 'fsdp': 2, 'tensor': 2})
    # data = (slice, data inside of it); all of a slice along fsdp and tensor.
    wanted_D = np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(
      slice_DFT, np.broadcast_to(wanted_D[:, None, None], (4, 2, 2))
    )
    self.assertLen({d.id for d in mesh.devices.ravel()}, 16)

  def test_the_default_is_data_over_all_slices(self):
    _, slice_D = self.mesh(None, 1, 1, 0, 0)
    self.assertEqual(slice_D.tolist(), [0, 0, 1, 1])

  def test_slices_that_data_has_no_place_for_go_to_fsdp(self):
    _, slice_DF = self.mesh('data=2,fsdp=4', *[0, 1, 2, 3] * 2)
    self.assertEqual(slice_DF.tolist(), [[0, 0, 1, 1], [2, 2, 3, 3]])

  def test_slices_of_two_sizes_are_refused(self):
    with self.assertRaisesRegex(ConfigError, 'Slices of 3, 1 devices are not allowed'):
      self.mesh('data=4', 0, 0, 0, 1)


class PlacementTest(parameterized.TestCase):
  def spec(self, shape, path='params/Dense_0/kernel', rules=(), **axes):
    mesh = jax.sharding.AbstractMesh(tuple(axes.values()), tuple(axes))
    return lib.spec_of(path, shape, mesh, rules).spec

  def test_largest_divisible_dimension_lies_along_fsdp(self):
    self.assertEqual(self.spec((256, 512), fsdp=8), P(None, 'fsdp'))
    self.assertEqual(self.spec((512, 256), fsdp=8), P('fsdp'))
    self.assertEqual(self.spec((513, 256), fsdp=8), P(None, 'fsdp'))
    self.assertEqual(self.spec((513, 255), fsdp=8), P())

  def test_small_leaves_and_meshes_without_fsdp_replicate(self):
    self.assertEqual(self.spec((64, 64), fsdp=8), P())
    self.assertEqual(self.spec((512, 512), data=8), P())

  def test_the_first_matching_pattern_wins_and_absent_axes_are_left_out(self):
    rules = ((r'Dense_0/kernel$', P(None, 'tensor')), (r'.*', P('fsdp')))
    self.assertEqual(
      self.spec((512, 512), rules=rules, fsdp=2, tensor=4), P(None, 'tensor')
    )
    self.assertEqual(self.spec((512, 512), rules=rules, fsdp=8), P(None, None))
    self.assertEqual(self.spec((512, 512), 'params/x', rules, fsdp=8), P('fsdp'))

  def test_axes_that_do_not_divide_are_left_out(self):
    rules = ((r'embedding$', P('tensor', 'fsdp')),)
    spec = lambda *shape: self.spec(
      shape, 'params/embedding', rules, data=2, fsdp=2, tensor=2
    )
    self.assertEqual(spec(256, 64), P('tensor', 'fsdp'))
    self.assertEqual(spec(65, 64), P(None, 'fsdp'))
    self.assertEqual(spec(65, 63), P(None, None))

  def test_a_rule_is_not_for_leaves_of_fewer_dimensions(self):
    rules = ((r'kernel$', P('tensor', 'fsdp')), (r'kernel$', P('tensor')))
    found = self.spec((64,), 'opt_state/v_row/kernel', rules, fsdp=2, tensor=2)
    self.assertEqual(found, P('tensor'))
    self.assertEqual(self.spec((), 'opt_state/kernel', rules, fsdp=2, tensor=2), P())

  def test_moments_and_averages_lie_as_their_parameters(self):
    params = {
      'big': {'kernel': jnp.zeros((256, 512))},  # By the size rule.
      'odd': {'kernel': jnp.zeros((513, 255))},
      'small': {'bias': jnp.zeros(8)},
      'layers': {'up': {'kernel': jnp.zeros((3, 64, 256))}},  # By the rules.
    }
    rules = ((r'layers/.*kernel$', P(None, 'fsdp', 'tensor')), (r'bias$', P('tensor')))
    parts = {'a': optax.lion(1e-3), 'b': optax.adam(1e-3)}
    labels = {'big': 'a', 'odd': 'a', 'small': 'b', 'layers': 'b'}
    # And how many leaves follow each parameter: its moments, its average and itself.
    optimisers = (
      (optim.adamw(1e-3), 4, 4),
      (optax.sgd(1e-2, momentum=0.9), 3, 3),
      (optax.multi_transform(parts, labels), 3, 4),
    )
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ('data', 'fsdp', 'tensor'))
    for tx, of_big, of_layers in optimisers:
      tx = optim.clip(tx, norm=1.0, value=None)
      state = jax.eval_shape(
        lambda tx=tx: create(params, tx.init(params), jax.random.key(0), ema=params)
      )
      placed = leaves_by_path(lib.state_shardings(mesh, state, rules))
      followers = collections.Counter()
      for path in leaves_by_path(params):
        for other in placed:
          if other.endswith(f'/{path}'):
            self.assertEqual(placed[other].spec, placed[f'params/{path}'].spec, other)
            followers[path] += 1
      self.assertEqual(followers['big/kernel'], of_big)
      self.assertEqual(followers['layers/up/kernel'], of_layers)
      self.assertEqual(placed['params/big/kernel'].spec, P(None, 'fsdp'))
      self.assertEqual(placed['params/odd/kernel'].spec, P())
      self.assertEqual(placed['params/small/bias'].spec, P('tensor'))
      self.assertEqual(placed['ema/layers/up/kernel'].spec, P(None, 'fsdp', 'tensor'))

  def test_members_keep_the_rules_of_one_behind_their_own_axis(self):
    config, experiment = supervised_test.make()
    del config
    experiment = experiment._replace(placement=((r'Dense_0/kernel$', P('tensor')),))
    many = vectorize(experiment, 2)
    mesh = jax.sharding.AbstractMesh((2,), ('tensor',))
    state = jax.eval_shape(many.init, jax.random.key(0))
    placed = leaves_by_path(lib.state_shardings(mesh, state, many.placement))
    self.assertEqual(placed['params/Dense_0/kernel'].spec, P(None, 'tensor'))

  def test_batches_divide_by_rows_and_further_axes_where_they_fit(self):
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ('data', 'fsdp', 'sequence'))
    spec = P(('data', 'fsdp'), 'sequence')
    tokens = lambda *shape: types.SimpleNamespace(
      shapes=({'token': jax.ShapeDtypeStruct(shape, np.int32)},),
      placement={'token': spec},
    )
    find = lambda *shape: lib.batch_shardings(mesh, tokens(*shape))['token'].spec
    self.assertEqual(find(8, 64), spec)
    self.assertEqual(find(8, 65), P(('data', 'fsdp'), None))
    with self.assertRaisesRegex(ConfigError, 'A batch of 6 rows does not divide .* 4'):
      find(6, 64)

  def test_rows_of_this_process_and_their_way_to_the_devices(self):
    mesh = lib.make_mesh()
    shapes = {'x': jax.ShapeDtypeStruct((6, 2), np.float32)}
    shardings = {'x': lib.on_mesh(mesh, P(('data', 'fsdp')))}
    rows = lib.rows_of_process(shardings['x'], (6, 2))
    self.assertEqual(rows, slice(0, 6))
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    placed = lib.put_batch({'x': x}, shardings, shapes, rows)
    np.testing.assert_array_equal(placed['x'], x)


class EightDevicesTest(absltest.TestCase):
  """One process for all, since it has to start JAX with eight devices."""

  def test_loss_and_parameters_equal_one_device(self):
    env = {**simulated.environment(8), 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'tests.dlx.run.eight_devices',
        self.create_tempdir().full_path,
      ],
      env=env,
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    self.assertEqual(found['devices'], 8)
    # Ten steps of 0.1 in float64 (eps 2.2e-16), gradients of order 1 from sums of 16
    # and batch statistics divided by deviations of order 0.1.
    for name in ('data', 'fsdp', 'both', 'idle'):
      self.assertLess(found[name], 10 * 0.1 * 16 * 100 * 2.2e-16, name)
      self.assertLess(found[f'{name}_loss'], 1e-12, name)
    self.assertGreater(found['moved'], 1e-2)
    self.assertLess(found['elsewhere'], 1e-12)
    self.assertIn('fsdp', found['fsdp_spec'])
    self.assertEqual(found['counted'], 50.0)
    self.assertIn('--mesh=data=3 has 3 devices, but this run has 8', found['bad_mesh'])
    self.assertIn('A batch of 12 rows does not divide over the 8', found['odd_batch'])
    # Also of an evaluation at once, before anything is written.
    message, written = found['odd_evaluation']
    self.assertIn('A batch of 12 rows does not divide over the 8', message)
    self.assertFalse(written)
    self.assertEqual(found['rows'], [0, 0, 4])
    self.assertLess(found['convolution'], 1e-13)  # Sums of 16 products of order 1.


if __name__ == '__main__':
  absltest.main()
