"""Tests for dlx/layers/mesh.py; with devices it is tested by every_mesh_test.py."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from dlx.layers import mesh as lib
from kernels import dispatch


def mesh_of(**axes):
  kinds = (AxisType.Auto,) * len(axes)
  return AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=kinds)


class AmbientTest(absltest.TestCase):
  def test_a_traced_function_sees_the_mesh_that_it_is_traced_under(self):
    seen = []

    def f(x):
      seen.append((lib.ambient(), lib.size('data', 'fsdp'), lib.size('tensor')))
      return x

    with lib.under(mesh_of(data=4, tensor=2)):
      jax.eval_shape(f, jnp.float32(0))
    jax.eval_shape(f, jnp.float32(0))
    (mesh, rows, heads), (none, *ones) = seen
    self.assertEqual(dict(mesh.shape), {'data': 4, 'tensor': 2})
    self.assertEqual((rows, heads), (4, 2))
    self.assertIsNone(none)
    self.assertEqual(ones, [1, 1])

  def test_one_device_is_no_mesh(self):
    with lib.under(mesh_of(data=1)):
      self.assertIsNone(lib.ambient())

  def test_kernels_know_a_device_that_is_not_here(self):
    for size in (1, 2):
      device = AbstractDevice(device_kind='TPU v5p', num_cores=1, platform='tpu')
      kinds = (AxisType.Auto,)
      mesh = AbstractMesh((size,), ('data',), kinds, abstract_device=device)
      with lib.under(mesh):
        self.assertEqual(dispatch.target(), device)
        self.assertEqual(dispatch.default_platform(), 'tpu')
        self.assertEqual(lib.ambient() is None, size == 1)
    self.assertEqual(dispatch.target(), jax.devices()[0])

  def test_inside_shard_map_there_is_none(self):
    seen = []

    def part(x):
      seen.append(lib.ambient())
      return x

    with lib.under(mesh_of(data=4)):
      jax.eval_shape(
        jax.shard_map(part, in_specs=P('data'), out_specs=P('data')), jnp.zeros(8)
      )
    self.assertEqual(seen, [None])

  def test_constrain_says_how_an_array_lies_and_is_nothing_without_a_mesh(self):
    spec = ('data', 'fsdp'), 'sequence', None
    x_BLD = jnp.zeros((8, 6, 3))
    self.assertIs(lib.constrain(x_BLD, *spec), x_BLD)
    with lib.under(mesh_of(data=4, sequence=2)):
      traced = jax.make_jaxpr(lambda x: lib.constrain(x, *spec))(x_BLD)
    [equation] = traced.jaxpr.eqns
    self.assertEqual(equation.params['sharding'].spec, P(('data',), 'sequence', None))


class FittingTest(parameterized.TestCase):
  @parameterized.parameters(
    (P('fsdp', 'tensor'), (8, 6), P('fsdp', 'tensor')),
    (P('fsdp', 'tensor'), (8, 65), P('fsdp', None)),  # 65 characters over two.
    (P('expert', 'tensor'), (8, 6), P(None, 'tensor')),
    (P(('data', 'fsdp')), (8, 3), P(('data', 'fsdp'))),
    (P(('data', 'fsdp')), (2, 3), P(('data',))),
    (P(('data', 'fsdp')), (4, 3), P(('data',))),  # Not both: 4 is no multiple of 8.
    (P(('data', 'fsdp')), (3,), P(None)),
    (P(None, None, 'tensor'), (3, 3, 4), P(None, None, 'tensor')),
    (P(), (3,), P()),
  )
  def test_axes_that_are_absent_or_do_not_divide_are_left_out(self, spec, shape, want):
    self.assertEqual(
      lib.fitting(spec, shape, {'data': 2, 'fsdp': 4, 'tensor': 2}), want
    )

  def test_more_entries_than_dimensions_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'more than the 1 dimensions'):
      lib.fitting(P(None, 'data'), (4,), {'data': 2})


if __name__ == '__main__':
  absltest.main()
