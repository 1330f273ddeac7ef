"""Tests for dlx/training/sharding.py: the rule on paper, then on eight devices."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import jax
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.errors import ConfigError
from dlx.training import sharding as lib

ROOT = pathlib.Path(__file__).parents[2]


class ParseMeshTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, 4, {'data': 4}),
    ('data=4', 4, {'data': 4}),
    ('data=4,tensor=2', 8, {'data': 4, 'tensor': 2}),
    ('fsdp=2, sequence=3', 6, {'fsdp': 2, 'sequence': 3}),
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
  )
  def test_refuses(self, text, devices, message):
    with self.assertRaisesRegex(ConfigError, message):
      lib.parse_mesh(text, devices)


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
    env = {
      **os.environ,
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'tests.training.eight_devices',
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
    self.assertEqual(found['rows'], [0, 0, 4])


if __name__ == '__main__':
  absltest.main()
