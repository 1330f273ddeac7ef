"""launch.plan: what it refuses, what it says, and that every experiment can be planned.

Skips, saying how to get it, what needs a compiler that is not installed.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import json
import os
import pathlib

from absl.testing import absltest, parameterized
import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Config
from dlx.run import experiments_by_name, sharding
from launch import plan
from launch.planning import advice, bound, hardware, memory, page, program, sweep
from tests import turns
from tests.every_experiment import tiers

GIB = 2**30


def build(name, **fields):
  module = importlib.import_module(experiments_by_name.module_name(name))
  return module.build(module.Config(**fields))


def restore_settings_after(test):
  """Takes back, at the end of a test, what the launcher sets for its process."""
  test.enter_context(absltest.mock.patch.dict(os.environ))
  test.addCleanup(compilation_cache.reset_cache)


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True))
def test_is_traced_without_its_data(name):
  built = build(name)
  mesh = sharding.make_mesh('data=1', jax.devices()[:1])
  found = program.trace(built, mesh, 'tpu')
  assert (found.flops.total > 0) == (name not in tiers.FITTED)
  assert found.flops.open_loops == 0
  # Bytes of its arguments, of all kinds together, are those of the arguments.
  arguments = jax.tree.leaves(found.function.in_avals)
  size = lambda x: (
    8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize
  )
  assert sum(found.given.values()) == sum(x.size * size(x) for x in arguments)


class TraceTest(absltest.TestCase):
  def trace(self, name, **fields):
    mesh = sharding.make_mesh('data=1', jax.devices()[:1])
    return program.trace(build(name, **fields), mesh, 'tpu')

  def test_a_streamed_batch_is_an_argument_and_the_data_is_not(self):
    resident, streamed = self.trace('mlp'), self.trace('mlp', stream=True)
    rows = 4 * (64 + 4)  # uint8 images of 64 pixels and int32 labels.
    self.assertNotIn('data', streamed.given)
    self.assertEqual(self.trace('mlp', stream=True, batch_size=4).given['batch'], rows)
    self.assertEqual(streamed.flops, resident.flops)

  def test_data_whose_size_follows_from_its_labels_is_read(self):
    built = build('transfer')
    with self.assertRaises(ConfigError):
      built.train_data.array_shapes()
    self.assertEqual(
      self.trace('transfer').given['data'],
      sum(x.nbytes for x in jax.tree.leaves(built.train_data.load().data)),
    )


class HardwareTest(parameterized.TestCase):
  @parameterized.parameters(
    ('v5e:16x16', 1, ('v5e', 1, '16x16', 'tpu')),
    ('2xv5e:4x4', 1, ('v5e', 2, '4x4', 'tpu')),
    ('v4:2x2x1', 4, ('v4', 4, '2x2x1', 'tpu')),
    ('tpu7x:2x2x1', 1, ('tpu7x', 1, '2x2x1', 'tpu')),
    ('h200:8', 1, ('h200', 1, '8', 'cuda')),
    ('2xh100:8', 2, ('h100', 2, '8', 'cuda')),
  )
  def test_names(self, text, slices, wanted):
    found = hardware.parse(text, slices)
    self.assertEqual(
      (found.chip.name, found.slices, found.shape, found.platform), wanted
    )

  @parameterized.parameters(
    (None, 1),
    ('v5e', 1),
    ('v7:2x2', 1),
    ('v5e:2x', 1),
    ('h100:2x4', 1),
    ('2xv5e:2x2', 3),
  )
  def test_other_names_are_refused(self, text, slices):
    with self.assertRaisesRegex(ConfigError, 'must be'):
      hardware.parse(text, slices)

  def test_a_gpu_leaves_a_quarter_to_others(self):
    target = hardware.parse('h200:8')
    self.assertEqual(hardware.limit(target, {}), 141 * 10**9 * 3 // 4)
    fraction = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.5'}
    self.assertEqual(hardware.limit(target, fraction), 141 * 10**9 // 2)

  def test_target_of_an_h100(self):
    text = hardware.gpu_target(hardware.CHIPS['h100'])
    self.assertIn('device_memory_size: 80000000000', text)
    self.assertIn('memory_bandwidth: 3350000000000', text)
    self.assertNotIn('H200', text)


class MemoryTest(parameterized.TestCase):
  def test_bytes_on_one_device(self):
    mesh = jax.sharding.AbstractMesh((4, 2), ('fsdp', 'tensor'))
    on = lambda shape, dtype, *spec: jax.ShapeDtypeStruct(
      shape, dtype, sharding=jax.sharding.NamedSharding(mesh, P(*spec))
    )
    self.assertEqual(memory.on_device(on((8, 6), 'bfloat16', 'fsdp', 'tensor')), 12)
    self.assertEqual(memory.on_device([on((8, 6), 'float32'), on((), 'int32')]), 196)
    key = jax.eval_shape(lambda: jax.random.key(0))
    self.assertEqual(memory.on_device(on((), key.dtype)), 8)

  @parameterized.parameters(
    (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
      'temporaries (800.00G) exceeds available HBM (15.75G).',
      800.0,
      15.75,
      800.0,
    ),
    (
      'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
      'memory space hbm. Used 341.25G of 15.75G hbm. Exceeded hbm capacity by '
      '325.50G.\n\n'
      'Total hbm usage >= 341.50G:\n    reserved        256.00M\n'
      '    program         330.50G\n    arguments        10.75G',
      341.25,
      15.75,
      330.5,
    ),
  )
  def test_refusals_of_xla(self, text, used, limit, temporaries):
    found = memory.refused(RuntimeError(text))
    wanted = (used * GIB, limit * GIB, temporaries * GIB, text.splitlines()[0])
    self.assertEqual(found, wanted)

  @parameterized.parameters(
    'INTERNAL: something else',
    'RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 32.00M of 16.00M',
  )
  def test_other_errors_are_none(self, text):
    self.assertIsNone(memory.refused(RuntimeError(text)))


class BoundTest(absltest.TestCase):
  def test_the_slowest_part_decides(self):
    chip = hardware.CHIPS['v5e']
    work = bound.Work(flops=197e12, moved=819e9 / 2, inside=200e9 / 4, across=3.125e9)
    found = bound.seconds(work, chip)
    self.assertEqual(found, {'compute': 1, 'hbm': 0.5, 'interconnect': 1, 'all': 1})
    self.assertEqual(bound.limiter({'compute': 1, 'hbm': 2, 'all': 2}), 'hbm')
    self.assertEqual(bound.intensity(work), 2 * 197e12 / 819e9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithRemat(Config):
  remat: str = 'off'


class AdviceTest(absltest.TestCase):
  def edits(self, config, axes, temporaries, state=1.0, limit=16.0, **options):
    kinds = dict(parameters=state, optimiser=2 * state, ema=0, model_state=0, data=0)
    kinds = {k: v * GIB for k, v in {**kinds, 'temporaries': temporaries}.items()}
    return advice.edits(config, axes, kinds, int(limit * GIB), **options)

  def test_activations_that_are_too_large_are_cut_first(self):
    config = WithRemat(batch_size=64)
    found = self.edits(config, {'data': 8}, 36)
    self.assertTrue(all(edit.estimate <= 16 * GIB for edit in found))
    costs = [edit.cost for edit in found]
    self.assertEqual(costs, sorted(costs))
    first = found[0]
    self.assertNotIn('batch_size', first.fields)
    self.assertEqual(first.flags, '--config.micro_batches=4')

  def test_a_state_that_is_too_large_is_divided(self):
    found = self.edits(Config(batch_size=64), {'data': 8}, 20, state=5)
    self.assertEqual(found[0].flags, '--mesh=fsdp=8')
    found = self.edits(Config(batch_size=64), {'data': 8}, 20, state=5, slices=2)
    self.assertEqual(found[0].flags, '--mesh=data=2,fsdp=4')

  def test_tensor_only_where_there_is_a_table(self):
    meshes = lambda **options: {
      e.mesh for e in self.edits(Config(batch_size=64), {'data': 8}, 40, **options)
    }
    self.assertNotIn('fsdp=4,tensor=2', meshes())
    self.assertIn('fsdp=4,tensor=2', meshes(tensor=True))

  def test_every_edit_divides_the_rows_of_its_batch(self):
    for edit in self.edits(WithRemat(batch_size=48), {'data': 8}, 60, tensor=True):
      config = advice.applied(WithRemat(batch_size=48), edit)
      axes = sharding.parse_mesh(edit.mesh, 8)
      rows = axes.get('data', 1) * axes.get('fsdp', 1)
      self.assertEqual(config.batch_size // config.micro_batches % rows, 0)

  def test_a_policy_that_keeps_least_has_none_after_it(self):
    found = self.edits(WithRemat(batch_size=64, remat='full'), {'data': 8}, 40)
    self.assertFalse([edit for edit in found if 'remat' in edit.fields])


class SweepTest(parameterized.TestCase):
  def test_meshes(self):
    self.assertEqual(sweep.meshes(None, 8), ['data=8', 'fsdp=8'])
    self.assertEqual(
      sweep.meshes(None, 8, tensor=True),
      ['data=8', 'fsdp=8', 'fsdp=4,tensor=2', 'fsdp=2,tensor=4', 'tensor=8'],
    )
    self.assertEqual(sweep.meshes(None, 8, slices=2), ['data=8', 'data=2,fsdp=4'])
    self.assertEqual(sweep.meshes(' data=8 ; fsdp=8', 8), ['data=8', 'fsdp=8'])

  def test_batch_sizes(self):
    self.assertEqual(sweep.batch_sizes(None, 64), [32, 64, 128])
    self.assertEqual(sweep.batch_sizes(['64', '8'], 1), [8, 64])
    with self.assertRaisesRegex(ConfigError, '--batch_sizes=8,-1 is not allowed'):
      sweep.batch_sizes(['8', '-1'], 1)

  def test_best_first_and_what_does_not_fit_last(self):
    row = lambda size, seconds, fits=True, peak=1: dict(
      batch_size=size, fits=fits, peak_bytes_per_device=peak, evaluations={},
      bound_seconds={'compute': 0.0, **({'all': seconds} if seconds else {})},
    )  # fmt: skip
    rows = [row(8, 4.0), row(9, None, False, 7), row(9, None, False, 5), row(8, 2.0)]
    found = sweep.ranked(rows)
    self.assertEqual([r['examples_per_second'] for r in found], [4, 2, None, None])
    self.assertEqual([r['peak_bytes_per_device'] for r in found[2:]], [5, 7])


class LauncherTest(parameterized.TestCase):
  """The whole launcher, for machines that are not here."""

  def setUp(self):
    super().setUp()
    restore_settings_after(self)

  def run_plan(self, *args, platform='tpu'):
    """(exit status, what --out holds)."""
    if platform == 'tpu' and importlib.util.find_spec('libtpu') is None:
      self.skipTest("nothing is compiled for TPUs: pip install 'dlx[tpu]'")
    out = pathlib.Path(self.create_tempdir().full_path) / 'plan.json'
    status = plan.main(['plan', *args, f'--out={out}'])
    return status, json.loads(out.read_text())

  def test_cnn_on_four_chips(self):
    status, found = self.run_plan('--exp=cnn', '--topology=v5e:2x2')
    self.assertEqual((status, found['fits'], found['devices']), (0, True, 4))
    # XLA's own analysis, and what lies in memory besides.
    kinds, own = found['bytes_by_kind'], found['xla_memory']
    self.assertEqual(
      found['peak_bytes_per_device'],
      memory.needed(own) + kinds['evaluation_data'] + kinds['evaluation_programs'],
    )
    self.assertEqual(kinds['optimiser'], 2 * kinds['parameters'] + 8)  # Adam.
    self.assertEqual(kinds['data'], 1437 * (64 + 4))
    # All gradients are summed over the devices, in one step once.
    sums = found['collectives']['all-reduce']
    self.assertBetween(sums['bytes'], kinds['parameters'], 1.05 * kinds['parameters'])
    self.assertAlmostEqual(
      sums['sent_within_slice'], 2 * 3 / 4 * sums['bytes'], delta=8
    )
    # Without padding: a first layer has no gradient of its input.
    first = 2 * 64 * 32 * 22 * 22
    second = 2 * 64 * 64 * 32 * 10 * 10
    dense = 2 * 64 * (256 * 128 + 128 * 10)
    self.assertEqual(found['flops_per_step'], 2 * first + 3 * (second + dense))
    self.assertEqual(
      found['bound_seconds']['compute'], found['flops_per_step'] / 4 / 197e12
    )
    self.assertGreaterEqual(found['bytes_moved_per_device'], 6 * kinds['parameters'])
    self.assertIn('--topology=v5e:2x2', found['command'])

  @turns.seldom(2)
  def test_what_does_not_fit_is_refused_with_a_change_that_fits(self):
    args = ('--exp=mlp', '--config.features=40000,40000', '--config.batch_size=64')
    status, found = self.run_plan(*args, '--topology=v5e:2x2')
    self.assertEqual((status, found['fits']), (plan.DOES_NOT_FIT, False))
    parameters = 4 * (64 * 40000 + 40000**2 + 40000 * 10)
    self.assertGreater(found['bytes_by_kind']['parameters'], parameters)
    self.assertGreater(found['peak_bytes_per_device'], found['limit_bytes_per_device'])
    # The suggestion was compiled.
    last = found['advice'][-1]
    self.assertTrue(last['fits'])
    self.assertIn('fsdp=4', last['flags'])
    self.assertLess(last['peak_bytes_per_device'], found['limit_bytes_per_device'])

  def test_limits_are_those_of_the_compiler(self):
    if importlib.util.find_spec('libtpu') is None:
      self.skipTest("nothing is compiled for TPUs: pip install 'dlx[tpu]'")
    for text in ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'):
      target = hardware.parse(text)
      there = hardware.devices(target)
      mesh = sharding.make_mesh('data=1', there[:1])
      huge = jax.ShapeDtypeStruct((2**37,), jnp.float32)
      everywhere = sharding.replicated(mesh)
      lowered = jax.jit(lambda x: 2 * x + x.sum(), in_shardings=everywhere).lower(huge)
      with self.assertRaises(jax.errors.JaxRuntimeError) as caught:
        lowered.compile()
      found = memory.refused(caught.exception)
      # It says so in two digits; of v5p one version says 0.01 GiB more than another.
      self.assertAlmostEqual(
        found.limit / GIB, hardware.limit(target) / GIB, delta=0.011, msg=text
      )

  def test_sweep_on_two_slices(self):
    status, found = self.run_plan(
      '--exp=softmax_regression', '--topology=2xv5e:2x2', '--sweep',
      '--batch_sizes=64,12',
      '--meshes=data=8;data=2,fsdp=4', '--config.batch_size=8',
    )  # fmt: skip
    self.assertEqual(status, 0)
    self.assertLen(found['rows'], 2)
    self.assertLen(found['refused'], 2)  # 12 rows over 8 devices.
    rates = [row['examples_per_second'] for row in found['rows']]
    self.assertEqual(rates, sorted(rates, reverse=True))
    for row in found['rows']:
      sent = sum(sums['sent_across'] for sums in row['collectives'].values())
      self.assertGreater(sent, 0)

  def test_gpus(self):
    from kernels.static import h200

    try:
      h200.toolkit()
    except h200.NoCompiler as error:
      self.skipTest(f'nothing is compiled for GPUs: {error}')
    status, found = self.run_plan(
      '--exp=softmax_regression', '--topology=h200:4', platform='cuda'
    )
    self.assertEqual((status, found['devices']), (0, 4))
    self.assertGreater(found['collectives']['all-reduce']['sent_within_slice'], 0)

  @parameterized.parameters(
    (('--topology=v5e:1x1',), 'is not known to this libtpu'),
    (('--topology=v5e:2x2', '--mesh=data=3'), '--mesh=data=3 has 3 devices'),
    (('--topology=v5e:2x2', '--config.batch_size=7'), 'does not divide'),
    (('--topology=v5e:2x2', '--meshes=data=4'), 'with --sweep alone'),
    (('--topology=v5e:2x2', '--out=/nowhere/at/all.json'), 'is no folder'),
    ((), '--topology is missing'),
  )
  def test_bad_input_is_one_line(self, args, said):
    if importlib.util.find_spec('libtpu') is None:
      self.skipTest("nothing is compiled for TPUs: pip install 'dlx[tpu]'")
    with self.refused() as error:
      self.assertEqual(plan.main(['plan', '--exp=cnn', *args]), 2)
    self.assertIn(said, error())

  def test_a_missing_compiler_is_one_line(self):
    nothing = lambda name: None
    with absltest.mock.patch.object(importlib.util, 'find_spec', nothing):
      for topology, said in (
        ('v5e:2x2', r"pip install 'dlx\[tpu\]'"),
        ('h200:8', 'pip install --no-deps jax-cuda13-plugin'),
      ):
        with self.assertRaisesRegex(ConfigError, said):
          hardware.devices(hardware.parse(topology))

  @contextlib.contextmanager
  def refused(self):
    """Checks that one line comes on stderr, and gives a function that reads it."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
      yield stream.getvalue
    self.assertStartsWith(stream.getvalue(), 'error: ')
    self.assertEqual(stream.getvalue().count('\n'), 1)


class PageTest(absltest.TestCase):
  def test_units(self):
    self.assertEqual(page.gib(1023), '1023 B')
    self.assertEqual(page.gib(15.75 * GIB), '15.75 GiB')
    self.assertEqual(page.si(3.9e15), '3.9 P')
    self.assertEqual(page.si(np.float64(12.0)), '12')


if __name__ == '__main__':
  absltest.main()
