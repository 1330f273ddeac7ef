"""Layers of no rows, constant inputs, a rate next to 1, keys that are all masked.

Infinities and nan: the tests of each layer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import dropout, normalisation
from dlx.layers.attention.multihead import dot_product_attention
from dlx.layers.drop_norm import DropNorm
from dlx.layers.split_linear import SplitLinear
from dlx.layers.upsampling import ConvTranspose2x

ON = {'rate': 0.5, 'deterministic': False}
NORMS = {
  'batch_norm': normalisation.BatchNorm(use_running_average=False),
  'layer_norm': normalisation.LayerNorm(),
  'group_norm': normalisation.GroupNorm(2),
  'instance_norm': normalisation.InstanceNorm(),
  'drop_norm': DropNorm(0.5, deterministic=True),
}
OTHERS = {
  'kept_statistics': normalisation.BatchNorm(use_running_average=True),
  'rms_norm': normalisation.RMSNorm(),
  'drop_norm': DropNorm(**ON),
  'spatial': dropout.SpatialDropout(**ON),
  'path': dropout.DropPath(**ON),
  'alpha': dropout.AlphaDropout(**ON),
  'connect': dropout.DropConnect(4, **ON),
  'split_linear': SplitLinear(4, 2),
  'up': ConvTranspose2x(4),
}


def applied(layers, x):
  """(outputs, slopes by the input) of each layer with its first parameters."""

  def one(layer, x):
    rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    variables = layer.init(rngs, jnp.ones((2, *x.shape[1:])))
    return layer.apply(variables, x, rngs=rngs, mutable=['batch_stats'])[0]

  def all_(x):
    slope = lambda layer: jax.grad(lambda x: one(layer, x).sum())(x)
    return {name: (one(layer, x), slope(layer)) for name, layer in layers.items()}

  return jax.device_get(jax.jit(all_)(x))


def test_a_batch_without_rows_gives_none():
  layers = {**NORMS, **OTHERS}
  del layers['batch_norm']
  for name, (y, slope) in applied(layers, jnp.zeros((0, 2, 3, 4))).items():
    assert y.shape == ((0, 4, 6, 4) if name == 'up' else (0, 2, 3, 4)), name
    assert slope.shape == (0, 2, 3, 4), name


def test_no_rows_have_no_statistics():
  with pytest.raises(ConfigError, match='A norm over 0 value a channel'):
    applied({'batch_norm': NORMS['batch_norm']}, jnp.zeros((0, 2, 3, 4)))


@pytest.mark.parametrize('value', [0.0, 7.0])
def test_a_constant_input_has_the_bias_for_its_norm(value):
  for name, (y, slope) in applied(NORMS, jnp.full((2, 2, 3, 4), value)).items():
    np.testing.assert_array_equal(y, 0, err_msg=name)  # Sums of 7 are exact.
    assert np.isfinite(slope).all(), name


def test_the_root_mean_square_of_zeros_is_taken_for_that_of_epsilon():
  y, slope = applied({'rms': OTHERS['rms_norm']}, jnp.zeros((2, 4)))['rms']
  np.testing.assert_array_equal(y, 0)
  np.testing.assert_allclose(slope, 1e3, rtol=1e-5)  # 1 / sqrt(1e-6).


def test_a_rate_next_to_1_is_finite():
  x, rate = jnp.linspace(-1, 1, 64), 1 - 2.0**-24
  for call in (dropout.drop, dropout.alpha_drop):
    y = np.asarray(call(jax.random.key(0), x, rate))
    assert np.isfinite(y).all(), call
    assert len(np.unique(y)) == 1, call  # All 64 are dropped, whatever the key.


def test_a_query_whose_keys_are_all_masked_sees_them_all_alike():
  q = k = jnp.arange(6.0).reshape(1, 3, 1, 2)
  mask = jnp.array([[True] * 3, [False] * 3, [True, False, False]])[None, None]
  y, weights = dot_product_attention(q, k, k, mask)
  np.testing.assert_allclose(weights[0, 0, 1], 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(y[0, 1, 0], [2, 3], rtol=1e-6)
  slope = jax.grad(lambda q: dot_product_attention(q, k, k, mask)[0].sum())(q)
  assert np.isfinite(slope).all()
  np.testing.assert_array_equal(slope[0, 1], 0)
