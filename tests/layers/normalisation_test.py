"""Batch normalisation: by hand, against flax, derivatives of every order."""

from absl.testing import absltest, parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.normalisation import BatchNorm, batch_norm

RNG = np.random.default_rng(0)
EPSILON = 1e-5


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


if __name__ == '__main__':
  absltest.main()
