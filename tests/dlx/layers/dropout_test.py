"""What dropout leaves in the mean, in evaluation, by stream; torch where it has it."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import dropout
from dlx.layers.drop_norm import DropNorm
from dlx.layers.dropout import AlphaDropout, DropConnect, DropPath, SpatialDropout
from dlx.layers.normalisation import LayerNorm
from dlx.layers.split_linear import SplitLinear

EPS = float(np.finfo(np.float32).eps)
LAYERS = (SpatialDropout, DropPath, AlphaDropout)


def keys(seed=0):
  return {'dropout': jax.random.key(seed)}


def alpha_low(rate):
  """What alpha dropout gives for a dropped entry: section 3 of arXiv:1706.02515."""
  low = -1.7580993408473766
  return ((1 - rate) * (1 + rate * low**2)) ** -0.5 * (low - rate * low)


class DropTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.1, 0.5, 0.9)
  def test_the_mean_is_kept(self, rate):
    x = jnp.full(40000, 3.0)
    found = np.asarray(dropout.drop(jax.random.key(0), x, rate), np.float64)
    kept = found != 0
    np.testing.assert_allclose(found[kept], 3 / (1 - rate), rtol=2 * EPS)
    # Four deviations of a share of 40000.
    deviation = np.sqrt(rate * (1 - rate) / 40000)
    np.testing.assert_allclose(kept.mean(), 1 - rate, atol=4 * deviation)

  def test_it_is_flax_s_dropout(self):
    layer, x = nn.Dropout(0.3, deterministic=False), jnp.arange(1.0, 101)
    flax = np.asarray(layer.apply({}, x, rngs=keys()))
    ours = np.asarray(dropout.drop(jax.random.key(0), x, 0.3))
    for found in (flax, ours):
      np.testing.assert_allclose(found[found != 0], (x / 0.7)[found != 0], rtol=2 * EPS)

  def test_the_gradient_is_the_mask(self):
    x = jnp.arange(1.0, 65)
    call = lambda x: dropout.drop(jax.random.key(1), x, 0.25)
    np.testing.assert_allclose(jax.grad(lambda x: call(x).sum())(x) * x, call(x))

  def test_dropped_infinities_are_gone(self):
    x = jnp.full(64, jnp.inf)
    found = dropout.drop(jax.random.key(0), x, 0.5)
    self.assertEqual(set(np.asarray(found)), {0.0, np.inf})

  def test_spatial_drops_whole_channels_and_path_whole_examples(self):
    x = jnp.ones((8, 3, 3, 16))
    found = SpatialDropout(0.5, deterministic=False).apply({}, x, rngs=keys())
    found = np.asarray(found)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], x.shape))
    self.assertEqual(set(found[0, 0, 0]), {0.0, 2.0})
    self.assertFalse(np.array_equal(found[0], found[1]))
    found = np.asarray(DropPath(0.75, deterministic=False).apply({}, x, rngs=keys()))
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1, :1], x.shape))
    self.assertEqual(set(found[:, 0, 0, 0]), {0.0, 4.0})

  @parameterized.parameters(0.05, 0.2, 0.5)
  def test_alpha_keeps_mean_and_variance(self, rate):
    x = jax.random.normal(jax.random.key(0), (200000,))
    x = (x - x.mean()) / x.std()
    found = np.asarray(dropout.alpha_drop(jax.random.key(1), x, rate), np.float64)
    # The largest deviation of a value from the mean is below 7, its square below 50:
    # four deviations of a mean of 200000 of these, at their most uneven.
    np.testing.assert_allclose(found.mean(), 0, atol=4 * 1 / np.sqrt(200000))
    fourth = ((found - found.mean()) ** 4).mean()
    np.testing.assert_allclose(found.var(), 1, atol=4 * np.sqrt(fourth / 200000))
    # What is dropped has one value, the lower end of SELU, mapped as all others.
    share = np.isclose(found, alpha_low(rate), rtol=1e-5).mean()
    np.testing.assert_allclose(share, rate, atol=4 * np.sqrt(rate / 200000) + 1e-4)

  def test_alpha_is_torch_s(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    theirs = torch.nn.functional.alpha_dropout(torch.tensor(x), 0.3, True).numpy()
    ours = np.asarray(dropout.alpha_drop(jax.random.key(0), jnp.asarray(x), 0.3))
    low = alpha_low(0.3)
    both = (np.abs(theirs - low) > 1e-3) & (np.abs(ours - low) > 1e-3)
    self.assertGreater(both.sum(), 1000)
    np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-5, atol=1e-5)
    for found in (ours, theirs):
      self.assertTrue((np.abs(found - low) < 1e-5).any())

  @parameterized.parameters(*LAYERS)
  def test_off_in_evaluation_and_at_rate_0(self, layer):
    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    # Needs no random stream.
    np.testing.assert_array_equal(layer(0.5, deterministic=True).apply({}, x), x)
    found = layer(0.0, deterministic=False).apply({}, x, rngs=keys())
    np.testing.assert_array_equal(found, x)

  @parameterized.product(layer=LAYERS, dtype=(jnp.bfloat16, jnp.float16))
  def test_the_dtype_stays(self, layer, dtype):
    x = jnp.ones((4, 3, 5), dtype)
    found = layer(0.5, deterministic=False).apply({}, x, rngs=keys())
    self.assertEqual(found.dtype, dtype)

  def test_streams_by_name(self):
    x = jnp.ones((64, 1))
    layer = DropPath(0.5, deterministic=False, stream='paths')
    of = lambda **streams: np.asarray(
      layer.apply({}, x, rngs={k: jax.random.key(v) for k, v in streams.items()})
    )
    one = of(paths=0, dropout=0)
    np.testing.assert_array_equal(of(paths=0, dropout=1), one)
    self.assertFalse(np.array_equal(of(paths=1, dropout=0), one))
    with self.assertRaises(Exception):  # noqa: B017
      of(dropout=0)

  def test_a_traced_rate(self):
    x, key = jnp.ones(1000), jax.random.key(0)
    swept = jax.vmap(lambda rate: dropout.drop(key, x, rate))(jnp.array([0.2, 0.7]))
    for found, rate in zip(swept, (0.2, 0.7), strict=True):
      np.testing.assert_allclose(found, dropout.drop(key, x, rate), rtol=4 * EPS)

  @parameterized.parameters(-0.1, 1.0, float('nan'))
  def test_other_rates_are_refused(self, rate):
    for call in (dropout.drop, dropout.drop_path, dropout.alpha_drop):
      with self.assertRaisesRegex(ConfigError, r'rate=.* must be in \[0, 1\)'):
        call(jax.random.key(0), jnp.ones((2, 2)), rate)

  def test_rates_of_paths(self):
    np.testing.assert_allclose(dropout.path_rates(4, 0.2), [0.05, 0.1, 0.15, 0.2])


class DropConnectTest(absltest.TestCase):
  def test_evaluation_is_dense(self):
    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    layer, dense = DropConnect(6, 0.5, deterministic=True), nn.Dense(6)
    variables = layer.init(jax.random.key(1), x)
    wanted = dense.init(jax.random.key(1), x)
    self.assertEqual(
      jax.tree.map(jnp.shape, variables), jax.tree.map(jnp.shape, wanted)
    )
    np.testing.assert_allclose(
      layer.apply(variables, x), dense.apply(variables, x), rtol=8 * EPS, atol=8 * EPS
    )

  def test_weights_are_dropped_and_biases_are_not(self):
    layer = DropConnect(300, 0.5, deterministic=False)
    params = {'kernel': jnp.ones((2, 300)), 'bias': jnp.full(300, 5.0)}
    found = np.asarray(layer.apply({'params': params}, jnp.ones((2, 2)), rngs=keys()))
    # Of each unit two weights, each 0 or 2; one draw for the batch.
    self.assertEqual(set(found[0]), {5.0, 7.0, 9.0})
    np.testing.assert_array_equal(found[0], found[1])

  def test_the_mean_over_draws_is_dense(self):
    x = jax.random.normal(jax.random.key(0), (3, 8))
    layer, dense = DropConnect(4, 0.3, deterministic=False), nn.Dense(4)
    variables = dense.init(jax.random.key(1), x)
    run = lambda key: jnp.asarray(layer.apply(variables, x, rngs={'dropout': key}))
    draws = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 4000))
    off = draws.mean(0) - dense.apply(variables, x)
    deviation = draws.std(0) / np.sqrt(4000)
    # Of 12 numbers; five deviations.
    self.assertTrue((np.abs(off) < 5 * deviation).all())


class DropNormTest(absltest.TestCase):
  def test_evaluation_is_layer_norm(self):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 7))
    layer = DropNorm(0.5, deterministic=True)
    variables = layer.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda v: v + jnp.arange(7.0), variables)
    wanted = LayerNorm(epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(
      layer.apply(variables, x), wanted, rtol=8 * EPS, atol=16 * EPS
    )

  def test_kept_units_have_mean_0_and_variance_1(self):
    x = 100 + 5 * jax.random.normal(jax.random.key(0), (6, 64))
    layer = DropNorm(0.25, deterministic=False, epsilon=0.0)
    found = np.asarray(layer.init_with_output(
      {'params': jax.random.key(0), **keys()}, x)[0], np.float64)  # fmt: skip
    for row, source in zip(found, np.asarray(x, np.float64), strict=True):
      kept = row != 0
      self.assertBetween(kept.mean(), 0.5, 0.95)
      centred = source[kept] - source[kept].mean()
      wanted = centred / centred.std() / 0.75
      np.testing.assert_allclose(row[kept], wanted, atol=1e-4)

  def test_one_unit_or_none_kept_is_finite(self):
    x = jnp.arange(6.0).reshape(3, 2)
    layer = DropNorm(0.9, deterministic=False)
    variables = {'params': {'scale': jnp.ones(2), 'bias': jnp.ones(2)}}
    run = lambda x: jnp.asarray(layer.apply(variables, x, rngs=keys()))
    value, slope = jax.value_and_grad(lambda x: run(x).sum())(x)
    self.assertTrue(np.isfinite(value))
    self.assertTrue(np.isfinite(slope).all())

  def test_one_kept_unit_is_its_own_mean(self):
    x = jnp.arange(64.0).reshape(32, 2)
    variables = {'params': {'scale': jnp.ones(2), 'bias': jnp.full(2, 3.0)}}
    layer = DropNorm(0.5, deterministic=False)
    found = np.asarray(layer.apply(variables, x, rngs=keys()))
    # The bias over the share that is kept; of two units it is 4 and 8.
    alone = found[(found != 0).sum(1) == 1]
    self.assertGreater(len(alone), 8)
    np.testing.assert_array_equal(alone.sum(1), 6)

  def test_half_precision_is_summed_in_float32(self):
    x = (100 + jax.random.normal(jax.random.key(0), (2, 64))).astype(jnp.bfloat16)
    layer = DropNorm(0.5, deterministic=False)
    run = lambda x: layer.init_with_output({'params': jax.random.key(0), **keys()}, x)[
      0
    ]
    self.assertEqual(run(x).dtype, jnp.bfloat16)
    wanted = run(x.astype(jnp.float32))
    # Rounded once, at values of at most 8.
    np.testing.assert_allclose(np.float32(run(x)), wanted, atol=8 * 2**-8)


class SplitLinearTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 4)
  def test_equals_the_block_diagonal_matrix(self, parts):
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    layer = SplitLinear(12, parts)
    variables = layer.init(jax.random.key(1), x)
    shared = variables['params']['shared']
    sizes = {name: v.size for name, v in shared.items()}
    self.assertEqual(sizes, {'kernel': 8 * 12 // parts**2, 'bias': 12 // parts})
    bias = jnp.arange(12.0 // parts)
    variables = {'params': {'shared': {**shared, 'bias': bias}}}
    whole = jax.scipy.linalg.block_diag(*[shared['kernel']] * parts)
    dense = {'params': {'kernel': whole, 'bias': jnp.tile(bias, parts)}}
    call = lambda layer: lambda v, x: layer.apply(v, x)
    wanted = jax.jit(call(nn.Dense(12)))(dense, x)
    np.testing.assert_allclose(
      jax.jit(call(layer))(variables, x), wanted, rtol=8 * EPS, atol=16 * EPS
    )
    # And the gradient of its kernel is the sum of those of the blocks.
    total = lambda layer: lambda v: jnp.sin(layer.apply(v, x)).sum()
    found = jax.grad(total(layer))(variables)['params']['shared']['kernel']
    slope = jax.grad(total(nn.Dense(12)))(dense)['params']['kernel']
    blocks = slope.reshape(parts, 8 // parts, parts, 12 // parts)
    wanted = sum(blocks[i, :, i] for i in range(parts))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=64 * EPS)

  @parameterized.parameters((3, 12, '8 inputs'), (4, 6, '6 features'), (0, 4, 'inputs'))
  def test_what_does_not_divide_is_refused(self, parts, features, told):
    with self.assertRaisesRegex(ConfigError, f'parts={parts} .*{told}.* divisor'):
      SplitLinear(features, parts).init(jax.random.key(0), jnp.ones((2, 8)))


if __name__ == '__main__':
  absltest.main()
