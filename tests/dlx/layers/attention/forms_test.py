"""Forms of attention: the kernel's path is that of the weights, rings are the whole."""

import functools

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.attention.multihead import (
  MultiHeadAttention,
  dot_product_attention,
  empty_cache,
)
from dlx.layers.block_config import BlockConfig, Relative
from dlx.layers.decoder import DecoderBlock
from dlx.layers.transformer import Block

FORMS = {
  'rotary': {'rotary': 100.0},
  'alibi': {'alibi': True},
  'relative': {'relative': Relative(8, 16)},
  'window': {'window': 3},
  'qk_norm': {'qk_norm': True},
  'soft_cap': {'soft_cap': 2.0},
  'all': {
    'rotary': 100.0,
    'alibi': True,
    'relative': Relative(8, 16),
    'window': 3,
    'qk_norm': True,
    'soft_cap': 2.0,
    'num_kv_heads': 1,
  },
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8)), jnp.float32)


def module(**fields):
  """A layer, and parameters other than its initial ones, so that biases count."""
  layer = MultiHeadAttention(BlockConfig(width=8, num_heads=2, **fields))
  shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), X, train=False))
  rng = np.random.default_rng(1)
  draw = lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype)
  return layer, jax.tree.map(draw, shapes)


class FormsTest(parameterized.TestCase):
  @parameterized.product(form=sorted(FORMS), causal=(True, False))
  def test_the_kernel_is_the_path_of_weights(self, form, causal):
    layer, variables = module(causal=causal, **FORMS[form])

    def both(variables, x):
      def one(return_weights):
        def loss(variables, x):
          found = layer.apply(variables, x, train=False, return_weights=return_weights)
          return jnp.sin(found.x_BLD).sum(), found.x_BLD

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables, x)

      return one(False), one(True)

    fused, plain = jax.jit(both)(variables, X)
    # Three maps of 8 products, 9 keys; gradients of weights are sums over 18 tokens.
    chex.assert_trees_all_close(fused, plain, atol=3e-5)
    groups = FORMS[form].get('num_kv_heads')
    bare, same = module(causal=causal, num_kv_heads=groups)
    given = {name: variables['params'][name] for name in same['params']}
    other = jax.jit(functools.partial(bare.apply, train=False))({'params': given}, X)
    self.assertGreater(float(np.abs(other.x_BLD - fused[0][1]).max()), 1e-3)

  @parameterized.parameters(3, 5)
  def test_a_ring_of_the_window_is_the_whole(self, capacity):
    layer, variables = module(causal=True, **FORMS['all'])
    apply = jax.jit(functools.partial(layer.apply, train=False))
    want = apply(variables, X).x_BLD
    cache, parts, start = empty_cache(2, capacity, 1, 4, jnp.float32), [], 0
    for count in (1, 4, 1, 1, 2):
      found = apply(variables, X[:, start : start + count], cache=cache)
      cache, start = found.cache, start + count
      parts.append(found.x_BLD)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want, atol=1e-5)

  def test_causality_and_window_by_gradients(self):
    layer, variables = module(causal=True, window=3)
    of = lambda x: layer.apply(variables, x, train=False).x_BLD.sum((0, 2))
    slope = np.abs(jax.jit(jax.jacobian(of))(X)).max((1, 3))  # [query, key]
    seen = np.tril(np.ones((9, 9))) - np.tril(np.ones((9, 9)), -3)
    np.testing.assert_array_equal(slope > 0, seen > 0)

  def test_distances_alone_count(self):
    """The bias of a token that comes later is that of one that comes first."""
    layer, variables = module(alibi=True, relative=Relative(8, 16), rotary=100.0)
    apply = jax.jit(functools.partial(layer.apply, train=False))
    far = jnp.concatenate([X, X], 1)
    seen = np.kron(np.eye(2), np.ones((9, 9))) > 0  # Each half sees itself.
    found = apply(variables, far, mask_BHLM=jnp.asarray(seen)[None, None]).x_BLD
    np.testing.assert_allclose(found[:, 9:], found[:, :9], atol=1e-5)

  def test_float_masks_of_infinity_are_masks(self):
    rng = np.random.default_rng(2)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 4, 2, 8)), jnp.float32) for _ in 'qkv')
    mask = np.asarray(rng.random((1, 1, 4, 4)) < 0.6)
    mask[..., 2, :] = False  # A query without keys.
    bias = jnp.where(mask, 0.0, -jnp.inf)

    def out(bias, mask):
      loss = lambda q, k, v: jnp.sin(
        dot_product_attention(q, k, v, mask, bias_BHLM=bias)[0]
      ).sum()
      return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)

    found, want = jax.jit(lambda b, m: (out(b, None), out(None, m)))(bias, mask)
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_close(found, want, atol=1e-6)

  def test_soft_cap_then_bias_by_hand(self):
    # One head of width 1, scores 0 and 4: 2 tanh(2) = 1.928; the bias takes it away.
    column = lambda *xs: jnp.asarray(xs, jnp.float32).reshape(1, -1, 1, 1)
    bias = jnp.asarray([0, -2 * np.tanh(2) + np.log(3)], jnp.float32)
    _, weights = dot_product_attention(
      column(1), column(0, 4), column(0, 1), bias_BHLM=bias[None, None, None],
      soft_cap=2.0,
    )  # fmt: skip
    np.testing.assert_allclose(weights.ravel(), [0.25, 0.75], atol=1e-6)

  @parameterized.parameters('rotary', 'alibi', 'relative', 'window')
  def test_refuses_positions_of_a_memory(self, form):
    layer, variables = module(**FORMS[form])
    with self.assertRaisesRegex(ValueError, f'{form} with a memory is not allowed'):
      layer.apply(variables, X, X, train=False)

  def test_refuses_a_mask_of_a_ring(self):
    layer, variables = module(window=3)
    cache = empty_cache(2, 4, 2, 4, jnp.float32)
    with self.assertRaisesRegex(ValueError, 'mask or bias with a cache'):
      mask = jnp.ones((1, 1, 1, 4), bool)
      layer.apply(variables, X[:, :1], train=False, cache=cache, mask_BHLM=mask)


class BlockFormsTest(parameterized.TestCase):
  def test_post_norm_gives_normalised_tokens(self):
    block = Block(BlockConfig(width=8, num_heads=2, norm='post', mlp='swiglu'))
    params = jax.jit(block.init)(jax.random.key(0), X)
    y, _ = jax.jit(block.apply)(params, 50 * X)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)
    self.assertEqual(set(params['params']['mlp']), {'in', 'gate', 'out'})

  def test_decoder_block_of_every_form(self):
    """Positions are of the attention to itself alone; memories have none."""
    config = BlockConfig(
      width=8, num_heads=2, causal=True, norm='post', mlp='geglu', **FORMS['all']
    )
    block = DecoderBlock(config)
    memory = X[:, :5]
    init = lambda key: block.init(key, X, None, None, memory, None)
    params = jax.jit(init)(jax.random.key(0))['params']
    self.assertIn('relative_bias', params['attention'])
    self.assertNotIn('relative_bias', params['cross_attention'])
    self.assertIn('key_norm', params['cross_attention'])
    apply = lambda m: block.apply({'params': params}, X, None, None, m, None)[0]
    both = jax.jit(lambda m: (apply(m), apply(m[:, ::-1])))
    # The order of a memory does not count.
    np.testing.assert_allclose(*both(memory), atol=1e-5)


if __name__ == '__main__':
  absltest.main()
