"""GPT: published parameter counts, causality by gradients, caches, initial scales."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.models.gpt import GPT

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 7)), jnp.int32)


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def small(**fields):
  return GPT(11, 8, **{**dict(num_layers=2, num_heads=2, width=16), **fields})


@functools.cache
def initial(model):
  return jax.jit(lambda k: model.init(k, TOKENS, train=False))(jax.random.key(0))


class GPTTest(parameterized.TestCase):
  @parameterized.named_parameters(
    # Radford et al. 2019, as released: 50257 * 768 + 1024 * 768 + 12 * 7087872 + 1536.
    ('gpt2', GPT(50257, 1024, 12, 12, 768), 124_439_808),
    # nanoGPT's for a CPU: no bias in maps and norms. It prints 0.80M, which leaves out
    # the 64 * 128 position embeddings: 795,904.
    ('nano', GPT(65, 64, 4, 4, 128, use_bias=False), 804_096),
    # Output map of its own, without bias: 65 * 128 more.
    ('untied', GPT(65, 64, use_bias=False, tie_embeddings=False), 812_416),
  )
  def test_parameter_counts(self, model, count):
    token = jnp.zeros((1, 8), jnp.int32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), token, train=False))
    self.assertEqual(size(shapes['params']), count)
    self.assertEqual(set(shapes), {'params'})

  def test_causality_by_gradients(self):
    # Tokens are not differentiable: the stream that they enter is, by an offset to the
    # position embeddings.
    model = small()
    variables = initial(model)

    def logits(position_TD):
      params = {**variables['params'], 'position_embedding': position_TD}
      return model.apply({'params': params}, TOKENS[:1], train=False)[0]

    slope = jax.jit(jax.jacobian(logits))(variables['params']['position_embedding'])
    slope_TT = np.abs(slope).max((1, 3))  # [logits of, position]; 7 tokens of 8.
    self.assertEqual(slope_TT.shape, (7, 8))
    np.testing.assert_array_equal(slope_TT[np.triu_indices(7, 1, 8)], 0)
    self.assertGreater(slope_TT[np.tril_indices(7, 0, 8)].min(), 0)

  @parameterized.parameters(1, 2)
  def test_cached_equals_uncached(self, unroll):
    model = small(unroll=unroll)
    variables = initial(model)
    want = jax.jit(functools.partial(model.apply, train=False))(variables, TOKENS)
    extend = jax.jit(functools.partial(model.apply, method='extend'))
    cache, parts = model.empty_cache(2), []
    for part in (TOKENS[:, :4], TOKENS[:, 4:5], TOKENS[:, 5:]):
      logits, cache = extend(variables, part, cache)
      parts.append(logits)
    # Logits are below 1: sums of 16 products behind two blocks.
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want, atol=1e-5)

  def test_initial_scales_and_loss(self):
    model = GPT(65, 8, num_layers=8, num_heads=2, width=64)
    params = initial(model)['params']
    blocks = params['transformer']['blocks']
    deviations = {
      'reads': (blocks['attention']['query']['kernel'], 0.02),
      'in': (blocks['mlp']['in']['kernel'], 0.02),
      'writes': (blocks['attention']['out']['kernel'], 0.02 / 4),  # sqrt(2 * 8) = 4.
      'out': (blocks['mlp']['out']['kernel'], 0.02 / 4),
      'tokens': (params['token']['embedding'], 0.02),
    }
    for name, (leaf, wanted) in deviations.items():
      # The deviation of n numbers has a relative error of 1 / sqrt(2 n).
      bound = 5 * wanted / np.sqrt(2 * leaf.size)
      self.assertAlmostEqual(float(leaf.std()), wanted, delta=bound, msg=name)
    logits = jax.jit(functools.partial(model.apply, train=False))(
      {'params': params}, TOKENS
    )
    # Products of a normalised vector of 64 with weights of 0.02: sd 0.16.
    self.assertLess(float(logits.std()), 0.25)

  def test_dtypes(self):
    model = small(dtype=jnp.bfloat16)
    variables = initial(model)
    self.assertEqual({x.dtype for x in jax.tree.leaves(variables)}, {np.dtype('f4')})
    logits = jax.eval_shape(lambda v: model.apply(v, TOKENS, train=False), variables)
    self.assertEqual((logits.shape, logits.dtype), ((2, 7, 11), np.dtype('f4')))
    self.assertEqual(model.empty_cache(3).key_BMHK.dtype, jnp.bfloat16)
    self.assertEqual(model.empty_cache(3).key_BMHK.shape, (2, 3, 8, 2, 8))

  def test_attention_rows_sum_to_one(self):
    model = small()
    weights = jax.jit(functools.partial(model.apply, method='attention'))(
      initial(model), TOKENS
    )
    self.assertEqual(weights.shape, (2, 2, 2, 7, 7))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)

  def test_too_many_tokens(self):
    model = small()
    with self.assertRaisesRegex(ValueError, '9 tokens are not allowed: .* context=8'):
      jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 9), int), train=False)
      )


if __name__ == '__main__':
  absltest.main()
