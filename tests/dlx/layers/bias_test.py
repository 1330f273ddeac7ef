"""Gradients of biases are summed in float32, whatever the layers compute in."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.bias import add_bias
from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense, DenseGeneral

LAYERS = {
  'dense': (Dense(3), nn.Dense(3)),
  'general': (DenseGeneral((2, 3)), nn.DenseGeneral((2, 3))),
  'conv': (Conv(3, (3, 3)), nn.Conv(3, (3, 3))),
}


class BiasTest(parameterized.TestCase):
  def test_sums_of_bfloat16_do_not_stop_at_256(self):
    # 256 + 1 is 256 in bfloat16.
    y, bias = jnp.zeros((1000, 3), jnp.bfloat16), jnp.zeros(3)
    total = lambda y, bias: add_bias(y, bias).astype(jnp.float32).sum()
    of_y, of_bias = jax.grad(total, argnums=(0, 1))(y, bias)
    self.assertEqual(add_bias(y, bias).dtype, jnp.bfloat16)
    self.assertEqual(of_y.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(of_bias, [1000] * 3)

  @parameterized.parameters(*LAYERS)
  def test_layers_of_bfloat16(self, name):
    layer, plain = (x.clone(dtype=jnp.bfloat16) for x in LAYERS[name])
    x = jnp.cos(jnp.arange(2.0 * 16 * 16 * 4)).reshape(2, 16, 16, 4)
    variables = layer.init(jax.random.key(0), x)
    jax.tree.map(
      np.testing.assert_array_equal, variables, plain.init(jax.random.key(0), x)
    )
    total = lambda v: layer.apply(v, x).astype(jnp.float32).sum()
    found = jax.grad(total)(variables)['params']['bias']
    np.testing.assert_array_equal(found, jnp.full(found.shape, 512))
    y = layer.apply(variables, x)
    self.assertEqual(y.dtype, jnp.bfloat16)
    # A bias of 0 is added in any dtype alike.
    np.testing.assert_array_equal(y, plain.apply(variables, x))

  @parameterized.parameters(*LAYERS)
  def test_others_are_flax_s(self, name):
    layer, plain = LAYERS[name]
    x = jnp.sin(jnp.arange(1.0 * 4 * 4 * 2)).reshape(1, 4, 4, 2)
    variables = layer.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda v: v + 0.25, variables)
    np.testing.assert_allclose(
      layer.apply(variables, x), plain.apply(variables, x), rtol=1e-5, atol=1e-6
    )
    half = x.astype(jnp.bfloat16)  # Without dtype: that of x and the parameters.
    self.assertEqual(layer.apply(variables, half).dtype, jnp.float32)
    without = layer.clone(use_bias=False, dtype=jnp.bfloat16)
    params = {'params': {'kernel': variables['params']['kernel']}}
    self.assertEqual(without.apply(params, x).dtype, jnp.bfloat16)


if __name__ == '__main__':
  absltest.main()
