"""Normalisations: by hand, against flax, derivatives of every order."""

from typing import Any

from absl.testing import absltest, parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.normalisation import (
  BatchNorm,
  GroupNorm,
  LayerNorm,
  batch_norm,
  group_norm,
)
from kernels.onednn import batch_norm as batch_norm_calls

RNG = np.random.default_rng(0)
EPSILON = 1e-5
EPS = float(np.finfo(np.float32).eps)


def arrays(*shape, dtype=np.float64):
  rng = np.random.default_rng(sum(shape))
  x = 3 + 2 * rng.normal(size=shape)
  scale, bias = rng.normal(size=(2, shape[-1]))
  return [v.astype(dtype) for v in (x, 1 + 0.3 * scale, bias)]


def plain(x, scale, bias, epsilon):
  """From the definition, for autodiff."""
  axes = tuple(range(x.ndim - 1))
  mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
  wide = lambda v: v.reshape(mean.shape)
  y = (x - mean) / jnp.sqrt(var + epsilon) * wide(scale) + wide(bias)
  return y, mean.reshape(-1), var.reshape(-1)


def far_from_zero(shape, mean, deviation, axis):
  """Numbers, float32, and what has mean 0 and deviation 1 along the axis, float64."""
  x = np.random.default_rng(1).normal(mean, deviation, shape).astype(np.float32)
  wide = x.astype(np.float64)
  centred = wide - wide.mean(axis, keepdims=True)
  return jnp.asarray(x), centred / wide.std(axis, keepdims=True)


class BatchNormTest(parameterized.TestCase):
  def test_by_hand(self):
    x = jnp.array([[1.0, 5.0], [3.0, 5.0]])
    y, mean, var = batch_norm(x, jnp.array([2.0, 7.0]), jnp.array([0.5, -1.0]), 3.0)
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(var, [1, 0])
    # (1 - 2) / sqrt(1 + 3) * 2 + 0.5, and 0 / sqrt(3) * 7 - 1.
    np.testing.assert_allclose(y, [[-0.5, -1], [1.5, -1]], rtol=1e-6)

  @parameterized.parameters((7, 3), (2, 3, 4, 5), (4, 1))
  def test_derivatives_are_those_of_the_definition(self, *shape):
    weights = [RNG.normal(size=s) for s in (shape, shape[-1:], shape[-1:])]

    def total(function):
      def value(x, scale, bias):
        # The mean and the variance are outputs too, and nothing is linear in y.
        found = function(jnp.tanh(x), scale, bias, EPSILON)
        return sum((jnp.sin(v) * w).sum() for v, w in zip(found, weights, strict=True))

      first = jax.grad(value, argnums=(0, 1, 2))
      square = lambda *args: sum((g**2).sum() for g in first(*args))
      return lambda *args: (first(*args), jax.grad(square, argnums=(0, 1, 2))(*args))

    with jax.enable_x64(True):
      args = arrays(*shape)
      ours, wanted = jax.jit(total(batch_norm))(*args), jax.jit(total(plain))(*args)
    # float64; 1 / sqrt(var + epsilon) and its powers are at most some hundreds here.
    chex.assert_trees_all_close(ours, wanted, rtol=1e-9, atol=1e-9)

  def test_finite_differences(self):
    with jax.enable_x64(True):
      x, scale, bias = arrays(5, 2)
      w = RNG.normal(size=x.shape)
      loss = lambda x: (batch_norm(x, scale, bias, EPSILON)[0] * w).sum()
      found = jax.grad(loss)(x)
      for i in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-5
        slope = (loss(x + step) - loss(x - step)) / 2e-5
        np.testing.assert_allclose(found[i], slope, rtol=1e-6, atol=1e-8)

  @parameterized.product(train=(True, False), affine=(True, False))
  def test_layer_equals_that_of_flax(self, train, affine):
    x, scale, bias = arrays(6, 5, 5, 3, dtype=np.float32)
    fields = {'momentum': 0.8, 'epsilon': 1e-3, 'use_scale': affine, 'use_bias': affine}
    ours, theirs = BatchNorm(not train, **fields), nn.BatchNorm(not train, **fields)
    variables = {
      'params': {'scale': scale, 'bias': bias} if affine else {},
      'batch_stats': {'mean': bias, 'var': scale**2},
    }
    made = ours.init(jax.random.key(0), x)
    chex.assert_trees_all_equal_shapes_and_dtypes(
      made, theirs.init(jax.random.key(0), x)
    )
    np.testing.assert_array_equal(made['batch_stats']['var'], 1)  # No step yet.
    found, wanted = (
      layer.apply(variables, x, mutable=['batch_stats']) for layer in (ours, theirs)
    )
    # float32, values of order 1 from inputs of order 10.
    chex.assert_trees_all_close(found, wanted, rtol=2e-5, atol=2e-5)

  @parameterized.parameters(jnp.bfloat16, jnp.float16)
  def test_narrow_inputs_are_summed_in_float32(self, dtype):
    x = jnp.full((4096, 2), 1 / 3, dtype).at[0, 0].set(5)
    layer = BatchNorm(False, dtype=dtype)
    y, new = layer.init_with_output(jax.random.key(0), x)
    self.assertEqual(y.dtype, dtype)
    self.assertEqual(new['batch_stats']['mean'].dtype, jnp.float32)
    _, mean, var = batch_norm(x, jnp.ones(2, dtype), jnp.zeros(2, dtype), EPSILON)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, exact.var(0), atol=1e-6)
    grads = jax.grad(lambda *v: batch_norm(*v, EPSILON)[0].astype(jnp.float32).sum())(
      x, jnp.ones(2, dtype), jnp.zeros(2, dtype)
    )
    self.assertEqual(grads.dtype, dtype)

  def test_constant_channels_stay_finite(self):
    x, ones = jnp.full((8, 1), 1e4), jnp.ones(1)
    loss = lambda x: (batch_norm(x, ones, ones, EPSILON)[0] ** 2).sum()
    value, slope = jax.value_and_grad(loss)(x)
    self.assertTrue(np.isfinite(value))
    self.assertTrue(np.isfinite(slope).all())

  @parameterized.parameters((100.0, 0.1), (2000.0, 1.0))
  def test_a_large_mean_costs_no_accuracy(self, mean, deviation):
    """As mean of squares less squared mean, the error was 0.8 and more."""
    x, exact = far_from_zero((64, 3), mean, deviation, axis=0)
    ones, zeros = jnp.ones(3), jnp.zeros(3)
    for found in (
      batch_norm(x, ones, zeros, 0.0),
      batch_norm_calls.plain_forward(
        batch_norm_calls.Form(0.0, 1.0), x, x[:0], ones, zeros
      ),
    ):
      np.testing.assert_allclose(found[0], exact, atol=2e-3)
      wide = np.asarray(x, np.float64)
      np.testing.assert_allclose(found[1], wide.mean(0), rtol=8 * EPS)
      np.testing.assert_allclose(found[2], wide.var(0), rtol=1e-3)

  def test_one_value_a_channel_is_refused(self):
    layer, one = BatchNorm(False), jnp.ones((1, 3))
    variables = layer.init(jax.random.key(0), one)  # Not yet: shapes alone matter.
    with self.assertRaisesRegex(ConfigError, '1 value a channel .* at least 2'):
      layer.apply(variables, one, mutable=['batch_stats'])
    BatchNorm(True).apply(variables, one)
    layer.apply(variables, jnp.ones((1, 2, 1, 3)), mutable=['batch_stats'])


class LayerNormTest(parameterized.TestCase):
  @parameterized.parameters((100.0, 0.1), (2000.0, 1.0))
  def test_a_large_mean_costs_no_accuracy(self, mean, deviation):
    x, exact = far_from_zero((4, 64), mean, deviation, axis=1)
    layer = LayerNorm(epsilon=0.0, use_bias=False, use_scale=False)
    np.testing.assert_allclose(layer.apply({}, x), exact, atol=2e-3)

  def test_one_feature_is_refused(self):
    with self.assertRaisesRegex(ConfigError, '1 feature .* at least 2'):
      LayerNorm().init(jax.random.key(0), jnp.ones((4, 1)))


class GroupNormTest(parameterized.TestCase):
  @parameterized.parameters((100.0, 0.1), (2000.0, 1.0))
  def test_a_large_mean_costs_no_accuracy(self, mean, deviation):
    x, exact = far_from_zero((2, 64, 1), mean, deviation, axis=1)
    y = group_norm(x, jnp.ones((1, 1)), jnp.zeros((1, 1)), 1, epsilon=0.0)
    np.testing.assert_allclose(y, exact, atol=2e-3)

  def test_one_value_a_group_is_refused(self):
    slope, bias = jnp.ones((1, 8)), jnp.zeros((1, 8))
    with self.assertRaisesRegex(ConfigError, '1 value a group .* at least 2'):
      group_norm(jnp.ones((4, 1, 1, 8)), slope, bias, 8)
    group_norm(jnp.ones((4, 1, 1, 8)), slope, bias, 4)

  def test_by_hand(self):
    # Two groups of two channels: (1, 3, 5, 7) and (2, 2, 2, 2).
    x = jnp.array([[[1.0, 3.0, 2.0, 2.0], [5.0, 7.0, 2.0, 2.0]]])
    slope, bias = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([[0.0, 1.0, 5.0, 6.0]])
    found = group_norm(x, slope, bias, 2, epsilon=4.0)
    # Mean 4, deviation sqrt(5 + 4) = 3; then mean 2, deviation 2 of nothing.
    np.testing.assert_allclose(
      found, [[[-1, 1 - 2 / 3, 5, 6], [1 / 3, 3, 5, 6]]], rtol=1e-6, atol=1e-7
    )
    silu = group_norm(x, slope, bias, 2, epsilon=4.0, silu=True)
    np.testing.assert_allclose(silu, found / (1 + np.exp(-found)), rtol=1e-6)

  @parameterized.product(own=(False, True), silu=(False, True))
  def test_derivatives_are_those_of_flax_and_autodiff(self, own, silu):
    def wanted(x, slope, bias):
      one = {'scale': jnp.ones(6), 'bias': jnp.zeros(6)}
      z = nn.GroupNorm(3, epsilon=EPSILON).apply({'params': one}, x)
      rows = lambda v: v.reshape(v.shape[0], 1, 1, -1)
      z = z * rows(slope) + rows(bias)
      return nn.silu(z) if silu else z

    ours = lambda *args: group_norm(*args, 3, EPSILON, silu)

    def total(function):
      value = lambda *args: jnp.sin(function(*args)).sum()
      first = jax.grad(value, argnums=(0, 1, 2))
      square = lambda *args: sum((g**2).sum() for g in first(*args))
      return lambda *args: (
        function(*args),
        first(*args),
        jax.grad(square, argnums=(0, 1, 2))(*args),
      )

    with jax.enable_x64(True):
      x = arrays(2, 3, 4, 6)[0]
      sets = RNG.normal(size=(2, 2 if own else 1, 6))
      args = (jnp.asarray(x), jnp.asarray(sets[0]), jnp.asarray(sets[1]))
      found = jax.jit(total(ours))(*args), jax.jit(total(wanted))(*args)
    # float64, as above.
    chex.assert_trees_all_close(*found, rtol=1e-9, atol=1e-9)

  def test_the_layer_has_flax_s_parameters_and_values(self):
    x = jnp.asarray(arrays(2, 5, 8, dtype=np.float32)[0])
    theirs, ours = nn.GroupNorm(4), GroupNorm(4)
    variables = theirs.init(jax.random.key(0), x)
    chex.assert_trees_all_equal(variables, ours.init(jax.random.key(0), x))
    scale, bias = jnp.linspace(0.5, 2, 8), jnp.linspace(-1, 1, 8)
    variables = {'params': {'scale': scale, 'bias': bias}}
    y: Any = theirs.apply(variables, x)
    np.testing.assert_allclose(ours.apply(variables, x), y, rtol=1e-5, atol=1e-5)
    moved = jnp.linspace(-0.5, 0.5, 16).reshape(2, 8)
    np.testing.assert_allclose(
      ours.apply(variables, x, moved, 2 * moved),
      y * (1 + moved[:, None]) + 2 * moved[:, None],
      rtol=1e-5,
      atol=1e-5,
    )

  def test_half_precision_normalises_in_float32(self):
    x = jnp.asarray(100 + arrays(2, 50, 8, dtype=np.float32)[0], jnp.bfloat16)
    variables = {'params': {'scale': jnp.ones(8), 'bias': jnp.zeros(8)}}
    found = GroupNorm(2, dtype=jnp.bfloat16).apply(variables, x)
    self.assertEqual(found.dtype, jnp.bfloat16)
    wanted = GroupNorm(2).apply(variables, x.astype(jnp.float32))
    # Rounded once, to 8 bits, at values of at most 4.
    np.testing.assert_allclose(np.float32(found), wanted, atol=4 * 2**-8)


if __name__ == '__main__':
  absltest.main()
