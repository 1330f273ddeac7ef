"""Attention: by hand, causality by gradients, caches, then jax.nn and flax."""

import functools

from absl.testing import absltest, parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.attention.multihead import (
  MultiHeadAttention,
  append,
  causal_mask,
  dot_product_attention,
  empty_cache,
)
from dlx.layers.block_config import BlockConfig

# Outputs are means of values of size 1 to 3; scores are sums of 8 products and pass an
# exponential: a few roundings of 2^-24 each, times the size.
TOLERANCE = 2e-6


def normal(*shape, seed=0, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def qkv(queries=5, keys=5, heads=2, batch=3, dtype=jnp.float32):
  width = 8
  return (
    normal(batch, queries, heads, width, seed=0, dtype=dtype),
    normal(batch, keys, heads, width, seed=1, dtype=dtype),
    normal(batch, keys, heads, width, seed=2, dtype=dtype),
  )


class DotProductAttentionTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_two_tokens_by_hand(self, causal):
    # One head of width 1: the scale is 1. Scores 1 * (0, log 3) and 2 * (0, log 3):
    # weights (1, 3) / 4 and (1, 9) / 10 of the values 0 and 4.
    column = lambda *xs: jnp.asarray(xs, jnp.float32).reshape(1, 2, 1, 1)
    mask = causal_mask(2, 2) if causal else None
    out, weights = dot_product_attention(
      column(1, 2), column(0, np.log(3)), column(0, 4), mask
    )
    first = [1, 0] if causal else [0.25, 0.75]
    np.testing.assert_allclose(weights[0, 0], [first, [0.1, 0.9]], atol=1e-6)
    np.testing.assert_allclose(out.ravel(), [0 if causal else 3, 3.6], atol=4e-6)

  def test_scale_is_the_root_of_the_width(self):
    # Width 4, scores 4 * log 3 * 1/2 = 2 log 3 against 0: weights 9 and 1.
    ones, zeros = jnp.ones((1, 1, 1, 4)), jnp.zeros((1, 1, 1, 4))
    k = jnp.concatenate([ones, zeros], 1)
    _, weights = dot_product_attention(np.log(3) * ones, k, k)
    np.testing.assert_allclose(weights.ravel(), [0.9, 0.1], atol=1e-6)

  def test_no_score_lies_below_what_is_masked(self):
    """Real scores of -1e10: what a query may not look at still weighs nothing."""
    column = lambda *xs: jnp.asarray(xs, jnp.float32).reshape(1, -1, 1, 1)
    mask = jnp.array([True, True, False])[None, None, None]
    _, weights = dot_product_attention(
      column(1e5), column(-1e5, -1e5, 3.0), column(1, 2, 3), mask
    )
    np.testing.assert_array_equal(weights.ravel(), [0.5, 0.5, 0])

  @parameterized.parameters((False, False, 7), (True, False, 7), (True, True, 5))
  def test_equals_jax_nn_in_values_and_gradients(self, causal, masked, keys):
    q, k, v = qkv(keys=keys)
    mask = None
    if masked:  # One mask a batch row; every query sees key 0.
      mask = np.random.default_rng(3).random((3, 1, 5, keys)) < 0.6
      mask[..., 0] = True
    ours = mask
    if causal:
      ours = causal_mask(5, keys) if mask is None else causal_mask(5, keys) & mask

    def mine(q, k, v):
      return dot_product_attention(q, k, v, ours)[0]

    def theirs(q, k, v):
      return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)

    @functools.partial(jax.jit, static_argnums=0)
    def both(f, q, k, v):
      slope = jax.grad(lambda *a: jnp.sin(f(*a)).sum(), (0, 1, 2))
      return f(q, k, v), slope(q, k, v)

    # Gradients of keys add up over 5 queries.
    chex.assert_trees_all_close(
      both(mine, q, k, v), both(theirs, q, k, v), atol=5 * TOLERANCE
    )

  def test_weights_are_distributions_over_what_is_seen(self):
    q, k, v = qkv()
    mask = causal_mask(5, 5)
    _, weights = dot_product_attention(q, 100 * k, v, mask)  # Near one-hot.
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.where(mask, 0, weights), 0)

  def test_a_query_that_sees_nothing_gets_the_mean_and_finite_gradients(self):
    q, k, v = qkv()
    mask = jnp.zeros((1, 1, 1, 5), bool)
    f = jax.jit(lambda q, k, v: dot_product_attention(q, k, v, mask)[0])
    mean = jnp.broadcast_to(v.mean(1, keepdims=True), v.shape)
    np.testing.assert_allclose(f(q, k, v), mean, atol=TOLERANCE)
    grads = jax.grad(lambda *a: f(*a).sum(), (0, 1, 2))(q, k, v)
    chex.assert_tree_all_finite(grads)

  def test_softmax_is_float32_for_narrow_inputs(self):
    q, k, v = qkv(dtype=jnp.bfloat16)
    out, weights = dot_product_attention(q, k, v)
    self.assertEqual((out.dtype, weights.dtype), (jnp.bfloat16, jnp.float32))
    # In bfloat16 rows would miss 1 by up to 5 * 2^-9.
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)

  def test_keys_may_be_permuted(self):
    q, k, v = qkv()
    order = np.random.default_rng(4).permutation(5)
    a, _ = dot_product_attention(q, k, v)
    b, _ = dot_product_attention(q, k[:, order], v[:, order])
    np.testing.assert_allclose(a, b, atol=TOLERANCE)

  def test_grouped_queries_are_heads_of_keys_repeated(self):
    q, k, v = qkv(heads=4)
    k, v = k[:, :, :2], v[:, :, :2]
    mask = causal_mask(5, 5)
    got = dot_product_attention(q, k, v, mask)
    # Head h of the queries reads head h // 2: 0 0 1 1.
    want = dot_product_attention(q, *(jnp.repeat(x, 2, axis=2) for x in (k, v)), mask)
    chex.assert_trees_all_close(got, want, atol=TOLERANCE)
    with self.assertRaisesRegex(ValueError, '3 heads of keys .* divide 4 heads'):
      dot_product_attention(q, q[:, :, :3], q[:, :, :3])

  def test_dropout_keeps_the_mean(self):
    # All weights 1/100, values 1: an output is kept / (100 * 0.75), kept out of 100.
    ones = jnp.ones((2000, 1, 1, 1))
    many = jnp.ones((2000, 100, 1, 1))
    out, weights = dot_product_attention(
      ones, many, many, dropout=0.25, dropout_key=jax.random.key(0)
    )
    np.testing.assert_allclose(weights, 0.01, rtol=1e-6)
    # sd of one output: sqrt(0.25 / 0.75 / 100) = 0.058; of the mean of 2000: 0.0013.
    self.assertAlmostEqual(float(out.mean()), 1, delta=5 * 0.0013)
    self.assertAlmostEqual(float(out.std()), 0.058, delta=0.005)


def attention(num_heads, **fields):
  # The width is that of the stream, whatever the config says.
  return MultiHeadAttention(BlockConfig(width=8, num_heads=num_heads, **fields))


def attend(module, variables, *args, train=False, return_weights=False, **kwargs):
  apply = functools.partial(module.apply, train=train, return_weights=return_weights)
  return jax.jit(apply)(variables, *args, **kwargs)


class MultiHeadAttentionTest(parameterized.TestCase):
  def init(self, **fields):
    module = attention(2, **fields)
    x = normal(3, 6, 8)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    # Biases start at 0: other numbers, or they are not tested.
    rng = np.random.default_rng(6)
    draw = lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype)
    return module, jax.tree.map(draw, shapes), x

  @parameterized.product(use_bias=(True, False), masked=(False, True))
  def test_equals_flax(self, use_bias, masked):
    module, variables, x = self.init(use_bias=use_bias)
    theirs = nn.MultiHeadDotProductAttention(2, use_bias=use_bias)
    memory = normal(3, 4, 8, seed=5)
    mask = None
    if masked:
      mask = np.random.default_rng(3).random((3, 2, 6, 4)) < 0.6
      mask[..., 0] = True
    got = attend(module, variables, x, memory, mask_BHLM=mask)
    apply = jax.jit(theirs.apply)
    want = apply(variables, x, memory, mask=mask)
    # Three maps of 8 products before the softmax and one after it.
    np.testing.assert_allclose(got.x_BLD, want, atol=1e-5)
    self.assertIsNone(got.cache)
    self.assertIsNone(got.weights_BHLM)
    itself = attend(module, variables, x).x_BLD
    np.testing.assert_allclose(itself, apply(variables, x), atol=1e-5)

  def test_parameters_by_hand(self):
    _, variables, _ = self.init()
    size = sum(x.size for x in jax.tree.leaves(variables))
    self.assertEqual(size, 4 * (8 * 8 + 8))

  @parameterized.parameters(False, True)
  def test_causality_by_gradients(self, causal):
    module, variables, x = self.init(causal=causal)
    slope = jax.jit(
      jax.jacobian(lambda x: attend(module, variables, x).x_BLD.sum((0, 2)))
    )(x)
    later = np.triu(np.abs(slope).max((1, 3)), 1)  # [query, key]
    self.assertEqual(later.max() == 0, causal)
    seen = np.abs(slope).max((1, 3))[np.tril_indices(6)]
    self.assertGreater(seen.min(), 0)

  @parameterized.parameters([[6]], [[1] * 6], [[2, 3, 1]])
  def test_cached_equals_uncached(self, cuts):
    module, variables, x = self.init(causal=True)
    want = attend(module, variables, x, return_weights=True)
    cache, parts = empty_cache(3, 9, 2, 4, jnp.float32), []
    step = jax.jit(
      lambda x, cache: module.apply(variables, x, train=False, cache=cache)
    )
    for part in np.split(x, np.cumsum(cuts)[:-1], 1):
      found = step(part, cache)
      cache = found.cache
      parts.append(found.x_BLD)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want.x_BLD, atol=1e-5)
    self.assertEqual(int(cache.length), 6)
    np.testing.assert_array_equal(cache.key_BMGK[:, 6:], 0)  # Room not used.
    self.assertEqual(want.weights_BHLM.shape, (3, 2, 6, 6))

  @parameterized.product(
    kv_heads=(1, 2, 4), rotary=(None, 10_000.0), return_weights=(False, True)
  )
  def test_grouped_and_rotary_cached_equals_uncached(
    self, kv_heads, rotary, return_weights
  ):
    module = attention(4, num_kv_heads=kv_heads, rotary=rotary, causal=True)
    x = normal(3, 6, 16)
    variables = jax.jit(lambda k: module.init(k, x, train=False))(jax.random.key(0))
    params = variables['params']
    self.assertEqual(params['query']['kernel'].shape, (16, 4, 4))
    self.assertEqual(params['key']['kernel'].shape, (16, kv_heads, 4))
    want = attend(module, variables, x, return_weights=return_weights)
    cache, parts = empty_cache(3, 9, kv_heads, 4, jnp.float32), []
    step = jax.jit(
      lambda x, cache: module.apply(variables, x, train=False, cache=cache)
    )
    for part in np.split(x, [3, 4], 1):
      found = step(part, cache)
      cache = found.cache
      parts.append(found.x_BLD)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want.x_BLD, atol=1e-5)

  def test_one_head_of_keys_for_each_of_queries_is_the_plain_layer(self):
    x = normal(3, 6, 16)
    plain = attention(4, causal=True)
    grouped = attention(4, num_kv_heads=2, causal=True)
    few = jax.jit(lambda k: grouped.init(k, x, train=False))(jax.random.key(0))
    # Heads of keys and values, each written twice, make the plain layer of the grouped.
    many = {
      name: {
        part: jnp.repeat(y, 2, axis=-2) if name in ('key', 'value') else y
        for part, y in leaves.items()
      }
      for name, leaves in few['params'].items()
    }
    np.testing.assert_allclose(
      attend(grouped, few, x).x_BLD, attend(plain, {'params': many}, x).x_BLD, atol=1e-5
    )

  @parameterized.parameters(
    (dict(num_kv_heads=3), 'num_kv_heads=3 .* divisor of num_heads=4'),
    (dict(num_kv_heads=0), 'num_kv_heads=0'),
  )
  def test_refuses_heads_of_keys(self, fields, message):
    with self.assertRaisesRegex(ValueError, message):
      attention(4, **fields).init(jax.random.key(0), normal(1, 2, 8), train=False)

  def test_rotary_positions_are_for_one_sequence(self):
    module = attention(2, rotary=10_000.0)
    with self.assertRaisesRegex(ValueError, 'rotary with a memory'):
      module.init(jax.random.key(0), normal(1, 2, 8), normal(1, 3, 8), train=False)

  def test_append_continues_at_length(self):
    cache = empty_cache(1, 4, 1, 1, jnp.float32)
    row = lambda *xs: jnp.asarray(xs, jnp.float32).reshape(1, -1, 1, 1)
    cache = append(append(cache, row(1, 2), row(5, 6)), row(3), row(7))
    self.assertEqual(cache.key_BMGK.ravel().tolist(), [1, 2, 3, 0])
    self.assertEqual(cache.value_BMGK.ravel().tolist(), [5, 6, 7, 0])
    self.assertEqual(int(cache.length), 3)

  def test_dropout_in_training_alone(self):
    module, variables, x = self.init(dropout=0.5)
    plain = attend(module, variables, x).x_BLD
    drop = lambda i: (
      attend(
        module, variables, x, train=True, rngs={'dropout': jax.random.key(i)}
      ).x_BLD
    )
    self.assertGreater(np.abs(drop(0) - plain).max(), 1e-2)
    self.assertGreater(np.abs(drop(0) - drop(1)).max(), 1e-2)

  @parameterized.parameters(2, 1)
  def test_dropped_weights_are_a_share_and_scale_the_others(self, kv_heads):
    # Values 1 in every token: an output is the sum of the weights that stay, by 1/3.
    # Scores 0: each of 64 weights is 1/64; 64 * 8 * 2 outputs in 16 entries of a head.
    module = attention(
      2, num_kv_heads=kv_heads, dropout=0.25, use_bias=False, causal=False
    )
    x = jnp.ones((8, 64, 4))
    eye = jnp.eye(4).reshape(4, 2, 2)
    zero = jnp.zeros((4, kv_heads, 2))
    params = {
      'query': {'kernel': 0 * eye},
      'key': {'kernel': zero},
      'value': {'kernel': zero + 0.25},
      'out': {'kernel': eye.swapaxes(0, 1).swapaxes(1, 2)},
    }
    key = {'dropout': jax.random.key(3)}
    y = attend(module, {'params': params}, x, train=True, rngs=key).x_BLD
    kept = np.asarray(y)[..., ::2] * 0.75 * 64  # Whole numbers, of both heads.
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    # Means of 64 coins of 3/4, over 1024 rows: deviations 3.46 and 3.46 / 32.
    self.assertAlmostEqual(float(kept.mean()), 48, delta=5 * 3.46 / 32)
    self.assertAlmostEqual(float(kept.std()), 3.46, delta=0.4)
    # Rows, heads and examples drop weights of their own.
    self.assertGreater(len(np.unique(kept, axis=0)), 1)
    self.assertGreater(np.abs(kept[..., 0] - kept[..., 1]).max(), 1)

  def test_refuses_a_width_that_heads_do_not_divide(self):
    with self.assertRaisesRegex(ValueError, 'num_heads=3 .* divisor of the width 8'):
      attention(3).init(jax.random.key(0), normal(1, 2, 8), train=False)


if __name__ == '__main__':
  absltest.main()
