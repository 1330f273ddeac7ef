"""GPT: published parameter counts, causality by gradients, caches, initial scales."""

import functools
import math

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT, attention_flops_per_token, flops_per_token
from dlx.sampling.autoregressive import generate
from dlx.tasks.language_modelling import next_token_loss

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 7)), jnp.int32)


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def gpt(vocabulary_size, context, num_layers, num_heads, width, **fields):
  """A model from the fields of its own and those of its blocks."""
  own = {name: fields.pop(name) for name in list(fields) if hasattr(GPT, name)}
  block = BlockConfig(width=width, num_heads=num_heads, **fields)
  return GPT(vocabulary_size, context, num_layers, block, **own)


def small(**fields):
  return gpt(11, 8, **{**dict(num_layers=2, num_heads=2, width=16), **fields})


def nano(**fields):
  return gpt(65, 64, 4, 4, 128, use_bias=False, **fields)


@functools.cache
def initial(model):
  return jax.jit(lambda k: model.init(k, TOKENS, train=False))(jax.random.key(0))


def _products(jaxpr):
  """Operations of all products, bodies of loops as often as they run."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      total += (
        2 * equation.outvars[0].aval.size * math.prod(shape[d] for d in contracted)
      )
    times = equation.params.get('length', 1)
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      if hasattr(inner, 'jaxpr'):
        total += times * _products(inner.jaxpr)
      elif hasattr(inner, 'eqns'):
        total += times * _products(inner)
  return total


class GPTTest(parameterized.TestCase):
  @parameterized.named_parameters(
    # Radford et al. 2019, as released: 50257 * 768 + 1024 * 768 + 12 * 7087872 + 1536.
    ('gpt2', gpt(50257, 1024, 12, 12, 768), 124_439_808),
    # nanoGPT's for a CPU: no bias in maps and norms. It prints 0.80M, which leaves out
    # the 64 * 128 position embeddings: 795,904.
    ('nano', nano(), 804_096),
    # Two of four heads of keys: 2 * 4 * 128 * 64 less. No table of positions.
    ('grouped', nano(num_kv_heads=2), 804_096 - 4 * 128 * 128),
    ('rotary', nano(positions='rotary'), 804_096 - 64 * 128),
    # 65 characters in 96 rows.
    ('padded', nano(pad_vocabulary_to=32), 804_096 + 31 * 128),
    # Output map of its own, without bias: 65 * 128 more.
    ('untied', nano(tie_embeddings=False), 812_416),
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

  @parameterized.parameters(
    {'unroll': 1},
    {'unroll': 2},
    {'positions': 'rotary', 'num_kv_heads': 1, 'pad_vocabulary_to': 8},
  )
  def test_cached_equals_uncached(self, **fields):
    model = small(**fields)
    variables = initial(model)
    want = jax.jit(functools.partial(model.apply, train=False))(variables, TOKENS)
    extend = jax.jit(functools.partial(model.apply, method='extend'))
    cache, parts = model.empty_cache(2), []
    for part in (TOKENS[:, :4], TOKENS[:, 4:5], TOKENS[:, 5:]):
      logits, cache = extend(variables, part, cache)
      parts.append(logits)
    # Logits are below 1: sums of 16 products behind two blocks.
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want, atol=1e-5)

  def test_a_padded_vocabulary_changes_neither_loss_nor_gradients_nor_samples(self):
    plain, padded = small(), small(pad_vocabulary_to=8)
    params = initial(plain)['params']
    rows = params['token']['embedding']
    # Rows that would be the likeliest of all, were they not masked.
    more = 10 * jnp.ones((5, 16)) * jnp.sign(params['norm']['bias'] + 1)[None]
    wide = {**params, 'token': {'embedding': jnp.concatenate([rows, more])}}
    target = jnp.roll(TOKENS, -1, 1)

    def loss(params, model):
      logits = model.apply({'params': params}, TOKENS, train=False)
      of_target = {'target': target, 'input': TOKENS}
      return next_token_loss(logits, of_target).sum()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (want, slopes), (got, padded_slopes) = both(params, plain), both(wide, padded)
    # Sums of 14 losses near log 11.
    self.assertAlmostEqual(float(got), float(want), delta=1e-5)
    table = padded_slopes['token']['embedding']
    np.testing.assert_array_equal(table[11:], 0)
    padded_slopes['token']['embedding'] = table[:11]
    chex.assert_trees_all_close(padded_slopes, slopes, atol=1e-5)

    logits = padded.apply({'params': wide}, TOKENS, train=False)
    self.assertEqual(logits.shape, (2, 7, 16))
    np.testing.assert_array_equal(logits[..., 11:], -np.inf)
    step = lambda token_BT, cache: padded.apply(
      {'params': wide}, token_BT, cache, method='extend'
    )
    for choice in ({'temperature': 50.0}, {'temperature': 0}, {'top_k': 11}):
      new = generate(
        step, padded.empty_cache(2), TOKENS, 40, jax.random.key(0), context=8, **choice
      )
      self.assertLess(int(new.max()), 11)

  def test_rotary_positions_tell_tokens_apart(self):
    # One layer without positions sees a set of tokens before the last one.
    model = small(positions='rotary', init_scale=0.5, num_layers=1)
    text = jnp.asarray([[1, 2, 3, 4, 5], [4, 2, 3, 1, 5]])  # Two tokens swapped.
    apply = jax.jit(functools.partial(model.apply, train=False))
    last = apply(initial(model), text)[:, -1]
    self.assertGreater(np.abs(last[0] - last[1]).max(), 1e-3)
    self.assertNotIn('position_embedding', initial(model)['params'])

  def test_refuses_other_positions(self):
    with self.assertRaisesRegex(ValueError, 'positions=sine .* one of learned, sinus'):
      jax.eval_shape(
        lambda: small(positions='sine').init(jax.random.key(0), TOKENS, train=False)
      )

  @parameterized.parameters({}, {'num_kv_heads': 1, 'pad_vocabulary_to': 8})
  def test_operations_are_those_of_the_products(self, **fields):
    # Two for each entry of each product of the program, three times (backward twice),
    # with all pairs of tokens: weights of attention are asked for.
    model = small(**fields)
    variables = initial(model)
    traced = jax.make_jaxpr(functools.partial(model.apply, method='attention'))
    total = _products(traced(variables, TOKENS).jaxpr)
    heads = fields.get('num_kv_heads', 2)
    # A token: maps of 16 x 16 and keys and values of 16 x 8 a head; an MLP of 16 x 64;
    # scores and values of 7 keys by 16; 11 or 16 logits.
    layer = 2 * 16 * 16 + 2 * 16 * 8 * heads + 2 * 16 * 64 + 2 * 7 * 16
    rows = 16 if fields else 11
    self.assertEqual(total, 2 * 14 * (2 * layer + rows * 16))
    self.assertEqual(3 * total, 14 * flops_per_token(model, 7))
    self.assertEqual(attention_flops_per_token(model, 7), 6 * 2 * 2 * 7 * 16)

  def test_initial_scales_and_loss(self):
    model = gpt(65, 8, num_layers=8, num_heads=2, width=64)
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
    self.assertEqual(model.empty_cache(3).key_BMGK.dtype, jnp.bfloat16)
    self.assertEqual(model.empty_cache(3).key_BMGK.shape, (2, 3, 8, 2, 8))

  def test_attention_rows_sum_to_one(self):
    model = small()
    weights = jax.jit(functools.partial(model.apply, method='attention'))(
      initial(model), TOKENS
    )
    self.assertEqual(weights.shape, (2, 2, 2, 7, 7))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)

  def test_tokens_out_of_range_are_nan(self):
    """-1 is not the last row, nor a row that only fills the vocabulary up a token."""
    model = small(pad_vocabulary_to=8)  # 11 tokens in 16 rows.
    tokens = jnp.asarray([[1, 10], [1, 11], [1, -1]], jnp.int8)
    logits = model.apply(initial(model), tokens, train=False)[:, -1, :11]
    np.testing.assert_array_equal(np.isnan(logits).any(1), [False, True, True])

  def test_too_many_tokens(self):
    model = small()
    with self.assertRaisesRegex(ValueError, '9 tokens are not allowed: .* context=8'):
      jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 9), int), train=False)
      )


if __name__ == '__main__':
  absltest.main()
