"""Transformer: one scan equals a loop, remat, caches, dropout, the mask of decay."""

import functools
import math

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx import optim
from dlx.layers.attention.multihead import empty_cache
from dlx.layers.block_config import BlockConfig
from dlx.layers.transformer import (
  Block,
  FeedForward,
  Transformer,
  gelu,
  matrices,
  stacked_cache,
)

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
FIELDS = dict(width=8, num_heads=2, mlp_ratio=2, causal=True)
# Three blocks of sums of up to 16 products of size 1, in another order.
TOLERANCE = 2e-5


def init(num_layers=3, **fields):
  model = Transformer(num_layers, BlockConfig(**{**FIELDS, **fields}))
  return model, jax.jit(lambda k: model.init(k, X, train=False))(jax.random.key(0))


def apply(model, *args, train=False, return_weights=False, **kwargs):
  f = functools.partial(model.apply, train=train, return_weights=return_weights)
  return jax.jit(f)(*args, **kwargs)


class FeedForwardTest(parameterized.TestCase):
  @parameterized.parameters(np.float32, jnp.bfloat16)
  def test_gelu_is_that_of_the_distribution_function(self, dtype):
    x = jnp.linspace(-6, 6, 97).astype(dtype)
    wide = np.asarray(x, np.float64)
    phi = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    density = np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    eps = float(jnp.finfo(dtype).eps)
    found = np.asarray(gelu(x), np.float64)
    np.testing.assert_allclose(found, wide * phi, rtol=4 * eps, atol=12 * eps)
    slope = np.asarray(jax.vmap(jax.grad(gelu))(x), np.float64)
    np.testing.assert_allclose(slope, phi + wide * density, rtol=4 * eps, atol=12 * eps)

  @parameterized.parameters(
    (True, 0.8413447, -0.1586553),  # Phi(1), -Phi(-1)
    (False, 0.8411920, -0.1588080),
  )
  def test_gelu_by_hand(self, exact, at_one, at_minus_one):
    one = jnp.ones((1, 1))
    params = {'in': {'kernel': one}, 'out': {'kernel': one}}
    config = BlockConfig(
      width=1, num_heads=1, mlp_ratio=1, use_bias=False, exact_gelu=exact
    )
    module = FeedForward(config)
    y = module.apply({'params': params}, jnp.asarray([[[1.0], [-1.0]]]), train=False)
    np.testing.assert_allclose(y.ravel(), [at_one, at_minus_one], atol=1e-6)


class TransformerTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 3, 99)
  def test_scan_equals_a_python_loop(self, unroll):
    model, variables = init(unroll=unroll)
    stacked = variables['params']['blocks']

    def loop(params, x):
      for i in range(3):
        one = jax.tree.map(lambda p, i=i: p[i], params)
        x, _ = Block(BlockConfig(**FIELDS)).apply({'params': one}, x)
      return x

    def scan(params, x):
      return model.apply({'params': {'blocks': params}}, x, train=False).x_BLD

    def both(f):
      slope = jax.grad(lambda p: jnp.sin(f(p, X)).sum())
      return jax.jit(lambda p: (f(p, X), slope(p)))(stacked)

    # Gradients add up over 10 tokens.
    chex.assert_trees_all_close(both(scan), both(loop), atol=10 * TOLERANCE)

  def test_layers_start_from_keys_of_their_own(self):
    _, variables = init()
    kernel = variables['params']['blocks']['mlp']['in']['kernel']
    self.assertEqual(kernel.shape, (3, 8, 16))
    self.assertGreater(np.abs(kernel[0] - kernel[1]).max(), 0.1)

  def test_unroll_changes_no_parameter(self):
    chex.assert_trees_all_equal(init(unroll=1)[1], init(unroll=3)[1])

  @parameterized.parameters(1, 3)
  def test_remat_gives_equal_gradients_and_computes_twice(self, unroll):
    def gradient(**fields):
      model, variables = init(**fields)

      def loss(v):
        return jnp.sin(model.apply(v, X, train=False).x_BLD).sum()

      text = str(jax.make_jaxpr(jax.grad(loss))(variables))
      return jax.jit(jax.grad(loss))(variables), text.count(' erf ') + text.count(
        ' erfc '
      )

    plain, once = gradient()
    remat, twice = gradient(remat='full', unroll=unroll)
    chex.assert_trees_all_close(plain, remat, atol=TOLERANCE)
    self.assertGreater(twice, once)

  def test_remat_keeps_what_it_says(self):
    # Of a block: nothing but its input; or what its maps give besides; or all.
    kept = {}
    for remat in ('full', 'dots', 'off'):
      model, variables = init(remat=remat)
      loss = lambda v, m=model: jnp.sin(m.apply(v, X, train=False).x_BLD).sum()
      saved = jax.make_jaxpr(lambda v, f=loss: jax.vjp(f, v)[1])(variables).out_avals
      # Of three layers and ten tokens, as [3, 2, 5, ...] or [3, 10, ...].
      of_tokens = [x for x in saved if x.shape[1:3] == (2, 5) or x.shape[1:2] == (10,)]
      kept[remat] = sum(x.size // 30 for x in of_tokens)
    rows = X.shape[-1]
    self.assertEqual(kept['full'], rows)
    # Queries, keys, values, what they become, 16 hidden units; of the last map nothing.
    self.assertEqual(kept['dots'], rows + 4 * rows + 16)
    self.assertGreater(kept['off'], kept['dots'])

  def test_remat_saves_memory_of_the_compiled_program(self):
    # 8 layers, 8 x 64 tokens of width 64: 33.3, 12.3 and 4.7 MB (CPU, jax 0.10.2),
    # 36.6, 13.0 and 5.4 MB (0.11.2, November 2026); at least 40 % less is asked.
    x_BLD = jax.ShapeDtypeStruct((8, 64, 64), jnp.float32)
    needed = {}
    for remat in ('off', 'dots', 'full'):
      config = BlockConfig(width=64, num_heads=4, causal=True, remat=remat)
      model = Transformer(8, config)
      start = functools.partial(model.init, train=False)
      variables = jax.eval_shape(start, jax.random.key(0), x_BLD)
      loss = lambda v, x, m=model: (m.apply(v, x, train=True).x_BLD ** 2).sum()
      compiled = jax.jit(jax.grad(loss, (0, 1))).lower(variables, x_BLD).compile()
      needed[remat] = compiled.memory_analysis().temp_size_in_bytes
    self.assertLess(needed['dots'], 0.6 * needed['off'])
    self.assertLess(needed['full'], 0.6 * needed['dots'])

  def test_refuses_another_remat(self):
    with self.assertRaisesRegex(ValueError, 'remat=all .* one of off, dots, full'):
      init(remat='all')

  @parameterized.parameters((1, 'off'), (3, 'full'))
  def test_cached_equals_uncached(self, unroll, remat):
    model, variables = init(unroll=unroll, remat=remat)
    want = apply(model, variables, X, train=False)
    self.assertIsNone(want.cache)
    cache, parts = stacked_cache(empty_cache(2, 7, 2, 4, jnp.float32), 3), []
    step = jax.jit(functools.partial(model.apply, train=False))
    for part in (X[:, :3], X[:, 3:4], X[:, 4:]):
      found = step(variables, part, cache=cache)
      chex.assert_trees_all_equal_shapes_and_dtypes(found.cache, cache)
      cache = found.cache
      parts.append(found.x_BLD)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want.x_BLD, atol=TOLERANCE)
    np.testing.assert_array_equal(cache.length, [5, 5, 5])

  def test_attention_weights_of_every_layer(self):
    model, variables = init()
    found = apply(model, variables, X, train=False, return_weights=True)
    chex.assert_shape(found.weights_NBHLM, (3, 2, 2, 5, 5))
    np.testing.assert_allclose(found.weights_NBHLM.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.triu(found.weights_NBHLM, 1), 0)

  def test_dropout_differs_from_layer_to_layer_and_is_off_in_evaluation(self):
    # Two layers with equal weights: equal masks would drop the same entries.
    model, variables = init(num_layers=2, dropout=0.5)
    plain = Transformer(2, BlockConfig(**FIELDS))
    np.testing.assert_array_equal(
      apply(model, variables, X, train=False).x_BLD,
      apply(plain, variables, X, train=False).x_BLD,
    )
    # Only the feed-forward branch of a layer writes, and its bias alone: ones.
    zeros = jax.tree.map(jnp.zeros_like, variables)
    bias = zeros['params']['blocks']['mlp']['out']['bias']
    zeros['params']['blocks']['mlp']['out']['bias'] = jnp.ones_like(bias)
    x = apply(
      model, zeros, 0 * X, train=True, rngs={'dropout': jax.random.key(0)}
    ).x_BLD
    # Each layer adds 0 or 2: sums of 2 show that masks differ.
    self.assertEqual(set(np.unique(x)), {0.0, 2.0, 4.0})

  def test_narrow_compute(self):
    model, variables = init(dtype=jnp.bfloat16)
    self.assertEqual({x.dtype for x in jax.tree.leaves(variables)}, {jnp.dtype('f4')})
    found = apply(
      model, variables, X.astype(jnp.bfloat16), train=False, return_weights=True
    )
    self.assertEqual(found.x_BLD.dtype, jnp.bfloat16)
    self.assertEqual(found.weights_NBHLM.dtype, jnp.float32)

  def test_decay_is_for_matrices(self):
    model = Transformer(3, BlockConfig(**FIELDS))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, train=False))
    table = jax.ShapeDtypeStruct((3, 8), jnp.float32)
    params = {
      'token': {'embedding': table},
      'position_embedding': table,
      'transformer': shapes['params'],
    }
    paths = {
      jax.tree_util.keystr(path, simple=True, separator='/').split('blocks/')[-1]: v
      for path, v in jax.tree_util.tree_leaves_with_path(matrices(params))
    }
    attention = [f'attention/{n}' for n in ('query', 'key', 'value', 'out')]
    decayed = {f'{n}/kernel' for n in (*attention, 'mlp/in', 'mlp/out')}
    decayed |= {'token/embedding', 'position_embedding'}
    self.assertEqual({path for path, v in paths.items() if v}, decayed)
    # The rule by rank would decay the stacked biases and scales.
    ranks = jax.tree.leaves(optim.decay_mask(params))
    self.assertNotEqual(ranks, jax.tree.leaves(matrices(params)))


if __name__ == '__main__':
  absltest.main()
