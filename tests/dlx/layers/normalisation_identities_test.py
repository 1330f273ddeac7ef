"""Instance and RMS norm; identities among all norms; all of them against torch."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers.normalisation import (
  BatchNorm,
  GroupNorm,
  InstanceNorm,
  LayerNorm,
  RMSNorm,
)
from tests.dlx.layers.normalisation_test import EPS, EPSILON, arrays, far_from_zero


class InstanceNormTest(parameterized.TestCase):
  def test_by_hand(self):
    # Channels (1, 5) and (2, 4) of the first example, (0, 2) and (3, 9) of the second.
    x = jnp.array([[[1.0, 2.0], [5.0, 4.0]], [[0.0, 3.0], [2.0, 9.0]]])
    found = InstanceNorm(epsilon=0.0, use_affine=False).apply({}, x)
    np.testing.assert_allclose(found, [[[-1, -1], [1, 1]]] * 2, rtol=1e-6)
    variables = {'params': {'scale': jnp.array([2.0, 3.0]), 'bias': jnp.ones(2)}}
    found = InstanceNorm(epsilon=5.0).apply(variables, x)
    # Deviations sqrt(4 + 5), sqrt(1 + 5); sqrt(1 + 5), sqrt(9 + 5).
    wanted = np.array([[4 / 3, 3 / 6**0.5], [2 / 6**0.5, 9 / 14**0.5]])
    np.testing.assert_allclose(found[:, 1], 1 + wanted, rtol=1e-6)
    np.testing.assert_allclose(found[:, 0], 1 - wanted, rtol=1e-5)

  @parameterized.parameters((100.0, 0.1), (2000.0, 1.0))
  def test_a_large_mean_costs_no_accuracy(self, mean, deviation):
    x, exact = far_from_zero((2, 64, 3), mean, deviation, axis=1)
    y = InstanceNorm(epsilon=0.0, use_affine=False).apply({}, x)
    np.testing.assert_allclose(y, exact, atol=2e-3)

  def test_one_position_and_constant_maps(self):
    layer = InstanceNorm(use_affine=False)
    with self.assertRaisesRegex(ConfigError, '1 value a group .* larger maps'):
      layer.apply({}, jnp.ones((4, 1, 1, 8)))
    square = lambda x: jnp.square(jnp.asarray(layer.apply({}, x))).sum()
    slope = jax.grad(square)(jnp.full((1, 4, 2), 7.0))
    np.testing.assert_array_equal(slope, 0)

  def test_half_precision_normalises_in_float32(self):
    x = jnp.asarray(100 + arrays(2, 50, 8, dtype=np.float32)[0], jnp.bfloat16)
    found = InstanceNorm(use_affine=False).apply({}, x)
    self.assertEqual(found.dtype, jnp.bfloat16)
    wanted = InstanceNorm(use_affine=False).apply({}, x.astype(jnp.float32))
    # Rounded once, to 8 bits, at values of at most 4.
    np.testing.assert_allclose(np.float32(found), wanted, atol=4 * 2**-8)


class IdentitiesTest(absltest.TestCase):
  """What each is of the others (L9)."""

  def setUp(self):
    super().setUp()
    self.x = jnp.asarray(arrays(2, 4, 3, 6, dtype=np.float32)[0])
    scale = jax.random.normal(jax.random.key(0), (6,))
    self.scale = {'params': {'scale': scale}}
    self.variables = {'params': {'scale': scale, 'bias': jnp.arange(6.0)}}

  def values(self, layer, x):
    return jax.jit(lambda x: layer.apply(self.variables, x))(x)

  def test_one_group_of_a_vector_is_layer_norm(self):
    x = self.x.reshape(-1, 6)
    found = self.values(GroupNorm(1, epsilon=1e-5), x)
    wanted = self.values(LayerNorm(epsilon=1e-5), x)
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS, atol=16 * EPS)

  def test_one_group_of_a_map_is_layer_norm_over_all_of_it(self):
    plain = {'params': {'scale': jnp.ones(6), 'bias': jnp.zeros(6)}}
    found = GroupNorm(1, epsilon=1e-5).apply(plain, self.x)
    flat = LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False)
    wanted: Any = flat.apply({}, self.x.reshape(2, -1))
    np.testing.assert_allclose(found, wanted.reshape(self.x.shape), atol=16 * EPS)

  def test_a_group_a_channel_is_instance_norm(self):
    found = self.values(GroupNorm(6, epsilon=1e-5), self.x)
    wanted = self.values(InstanceNorm(epsilon=1e-5), self.x)
    np.testing.assert_array_equal(found, wanted)

  def test_instance_norm_of_one_example_is_batch_norm(self):
    x, running = self.x[:1], {'mean': jnp.zeros(6), 'var': jnp.ones(6)}
    variables = {**self.variables, 'batch_stats': running}
    wanted, _ = BatchNorm(False).apply(variables, x, mutable=['batch_stats'])
    found = self.values(InstanceNorm(), x)
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS, atol=16 * EPS)

  def test_rms_norm_of_mean_0_is_layer_norm(self):
    x = self.x.reshape(-1, 6)
    x -= x.mean(1, keepdims=True)
    found = RMSNorm(epsilon=1e-5).apply(self.scale, x)
    wanted = LayerNorm(epsilon=1e-5, use_bias=False).apply(self.scale, x)
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS, atol=16 * EPS)


class RMSNormTest(absltest.TestCase):
  def test_by_hand(self):
    # The root of (9 + 16) / 2; what is 0 stays.
    scale = {'params': {'scale': jnp.array([2.0, 1.0])}}
    found = RMSNorm(epsilon=0.0).apply(scale, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(found, np.array([6, 4]) / 12.5**0.5, rtol=4 * EPS)
    np.testing.assert_array_equal(RMSNorm(epsilon=4.0).apply(scale, jnp.zeros(2)), 0)

  def test_half_precision_is_summed_in_float32(self):
    # 300^2 overflows float16.
    layer = RMSNorm(use_scale=False, dtype=jnp.float16)
    found = layer.apply({}, jnp.full((1, 8), 300, jnp.float16))
    np.testing.assert_array_equal(found, np.ones((1, 8), np.float16))


class TorchTest(parameterized.TestCase):
  @parameterized.product(
    kind=('instance', 'group', 'layer', 'rms'), shape=((3, 5, 4, 6), (2, 7, 6))
  )
  def test_values_and_gradients(self, kind, shape):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    f, rng = torch.nn.functional, np.random.default_rng(0)
    x, out = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    x = 3 + 2 * x
    given = {
      name: torch.tensor(v, requires_grad=True)
      for name, v in (('scale', scale), ('bias', bias), ('x', x))
    }
    affine = {'weight': given['scale'], 'bias': given['bias'], 'eps': EPSILON}
    first = given['x'].movedim(-1, 1)  # Torch has channels there.
    if kind == 'instance':
      layer, wanted = InstanceNorm(epsilon=EPSILON), f.instance_norm(first, **affine)
    elif kind == 'group':
      layer, wanted = GroupNorm(2, epsilon=EPSILON), f.group_norm(first, 2, **affine)
    elif kind == 'layer':
      layer = LayerNorm(epsilon=EPSILON)
      wanted = f.layer_norm(given['x'], (6,), **affine)
    else:
      layer = RMSNorm(epsilon=EPSILON)
      wanted = f.rms_norm(given['x'], (6,), given['scale'], EPSILON)
    if kind in ('instance', 'group'):
      wanted = wanted.movedim(1, -1)
    (wanted * torch.tensor(out)).sum().backward()
    params = {'scale': scale} if kind == 'rms' else {'scale': scale, 'bias': bias}
    call = lambda params, x: layer.apply({'params': params}, x)
    total = lambda *args: (call(*args) * out).sum()
    # float32: sums of at most 60 products of numbers of at most some units.
    tight = {'rtol': 64 * EPS, 'atol': 128 * EPS}
    found = jax.jit(call)(params, x)
    np.testing.assert_allclose(found, wanted.detach().numpy(), **tight)
    slopes, slope = jax.jit(jax.grad(total, (0, 1)))(params, x)
    for name, found in {**slopes, 'x': slope}.items():
      np.testing.assert_allclose(found, given[name].grad.numpy(), **tight)


if __name__ == '__main__':
  absltest.main()
