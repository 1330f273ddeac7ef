"""The Transformer: what sees what, padding, caches, beams, counts, a padded table."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig
from dlx.models.encoder_decoder import EncoderDecoder, flops_per_pair, take
from dlx.sampling import beam_search, generate
from dlx.state import leaves_by_path

SIZE = 11
BLOCK = BlockConfig(width=8, num_heads=2, mlp_ratio=2)
SOURCE = jnp.asarray([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
INPUT = jnp.asarray([[0, 7, 8, 2], [0, 3, 5, 9]])
PAIR = {'source': SOURCE, 'input': INPUT}
TOLERANCE = 2e-5  # Two layers of sums of up to 16 products of size 1.


@functools.cache
def made(**fields):
  model = EncoderDecoder(SIZE, 2, BLOCK, **fields)
  init = jax.jit(lambda k: model.init(k, PAIR, train=False))
  return model, init(jax.random.key(0))


@functools.cache
def logits_of():
  model, variables = made()
  return jax.jit(lambda pair: model.apply(variables, pair, train=False))


def padded(pair, more):
  return {**pair, 'source': jnp.pad(pair['source'], ((0, 0), (0, more)))}


class EncoderDecoderTest(parameterized.TestCase):
  def test_causality_by_gradients(self):
    """Of the embedded tokens, by a table for each side of which one row is moved."""
    model, variables = made()

    def logits(x_BTD, position):
      # The decoder alone: the stream is what gradients are taken of.
      apply = functools.partial(model.apply, variables)

      def decode(module, x_BTD):
        memory_BSD, real_BS = module.encode(SOURCE)
        return module.decoder(
          x_BTD, memory_BSD, train=False, mask_BHTM=real_BS[:, None, None]
        ).x_BTD

      return apply(x_BTD, method=decode)[0, position].sum()

    x_BTD = jax.random.normal(jax.random.key(1), (2, 4, 8))
    slopes = jax.jit(jax.grad(logits))
    for position in range(4):
      seen = np.abs(slopes(x_BTD, position)[0]).max(1) > 0
      np.testing.assert_array_equal(seen, np.arange(4) <= position)

  def test_later_tokens_change_no_logits_before_them(self):
    other = {**PAIR, 'input': INPUT.at[:, 2].set(6)}
    a, b = logits_of()(PAIR), logits_of()(other)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    self.assertGreater(np.abs(a[:, 2:] - b[:, 2:]).min(axis=(0, 2)).max(), 1e-4)

  def test_padding_changes_nothing(self):
    wide = logits_of()(padded(PAIR, 3))
    np.testing.assert_allclose(wide, logits_of()(PAIR), atol=TOLERANCE)
    alone = {'source': SOURCE[1:, :3], 'input': INPUT[1:]}
    np.testing.assert_allclose(
      logits_of()(alone)[0], logits_of()(PAIR)[1], atol=TOLERANCE
    )

  def test_the_order_of_the_source_matters(self):
    other = {**PAIR, 'source': SOURCE.at[0].set(SOURCE[0, ::-1])}
    far = np.abs(logits_of()(other)[0] - logits_of()(PAIR)[0])
    self.assertGreater(far.max(), 1e-2)

  def test_cached_equals_uncached(self):
    model, variables = made()
    apply = functools.partial(model.apply, variables)
    start = jax.jit(lambda source: apply(source, 4, method='start'))
    extend = jax.jit(lambda token, state: apply(token, state, method='extend'))
    logits, state = extend(INPUT[:, :2], start(SOURCE))
    parts = [logits]
    for i in (2, 3):
      logits, state = extend(INPUT[:, i : i + 1], state)
      parts.append(logits)
    found = jnp.concatenate(parts, 1)
    np.testing.assert_allclose(found, logits_of()(PAIR), atol=TOLERANCE)

  def test_a_beam_of_one_is_greedy_and_beams_score_their_tokens(self):
    model, variables = made()
    apply = functools.partial(model.apply, variables)
    step = lambda token, state: apply(token, state, method='extend')
    begin, steps, end = jnp.zeros((2, 1), jnp.int32), 6, 10

    @jax.jit
    def run(source):
      start = apply(source, steps, method='start')
      greedy = generate(
        step, start, begin, steps, jax.random.key(0), context=9, temperature=0
      )
      search = lambda k: beam_search(
        step, take, start, begin, steps, beams=k, end=end, length_penalty=0.0
      )
      return greedy, search(1), search(3)

    greedy, one, three = run(SOURCE)
    for row, wanted in zip(np.asarray(one.tokens_BKT[:, 0]), np.asarray(greedy)):
      length = (list(wanted).index(end) + 1) if end in wanted else steps
      np.testing.assert_array_equal(row[:length], wanted[:length])
    # Of what was found, the whole forward pass says the same log-probability.
    for b in range(2):
      for tokens, score in zip(three.tokens_BKT[b], three.scores_BK[b]):
        pair = {
          'source': SOURCE[b : b + 1],
          'input': jnp.concatenate([jnp.zeros(1, int), tokens[:-1]])[None],
        }
        log_TV = jax.nn.log_softmax(logits_of()(pair)[0])
        row = np.asarray(tokens)
        length = (list(row).index(end) + 1) if end in row else steps
        wanted = log_TV[np.arange(length), row[:length]].sum()
        np.testing.assert_allclose(score, wanted, rtol=1e-4)

  def test_tokens_out_of_range_are_nan_in_their_row_alone(self):
    found = logits_of()({**PAIR, 'source': SOURCE.at[0, 0].set(SIZE)})
    self.assertTrue(np.isnan(found[0]).all())
    self.assertTrue(np.isfinite(found[1]).all())

  def test_a_padded_vocabulary_changes_no_logits(self):
    model, variables = made(pad_vocabulary_to=8)
    table = variables['params']['token']['embedding']
    self.assertEqual(table.shape, (16, 8))
    cut = {**variables['params'], 'token': {'embedding': table[:SIZE]}}
    plain, _ = made()
    apply = lambda m, v: jax.jit(lambda v: m.apply(v, PAIR, train=False))(v)
    wide = apply(model, variables)
    self.assertTrue((wide[..., SIZE:] == -jnp.inf).all())
    narrow = apply(plain, {'params': cut})
    np.testing.assert_allclose(wide[..., :SIZE], narrow, atol=TOLERANCE)

  def test_cross_attention_is_of_the_real_source(self):
    model, variables = made()
    apply = jax.jit(lambda v: model.apply(v, PAIR, method='cross_attention'))
    weights = apply(variables)
    self.assertEqual(weights.shape, (2, 2, 2, 4, 5))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    self.assertEqual(float(weights[:, 1, :, :, 3:].max()), 0)

  def test_parameters_of_the_base_model(self):
    model = EncoderDecoder(37000, 6, BlockConfig(width=512, num_heads=8))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), PAIR, train=False))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    attention, mlp, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2560, 1024
    layers = 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)
    self.assertEqual(count, layers + 2 * norm + 37000 * 512)
    self.assertEqual(count, 63_084_544)

  def test_operations_are_those_of_the_products(self):
    model, variables = made()
    kernels = leaves_by_path(variables['params'])
    of = lambda side, *names: sum(
      x.size
      for path, x in kernels.items()
      if path.startswith(side) and path.endswith('kernel')
      and any(f'/{name}' in path for name in names)
    )  # fmt: skip
    cross = of('decoder', 'cross_attention/key', 'cross_attention/value')
    source = of('encoder', '') + cross
    target = of('decoder', '') - cross + SIZE * 8
    looks = 12 * 2 * 8 * (5 * 5 + 4 * 4 + 4 * 5)
    self.assertEqual(flops_per_pair(model, 5, 4), 6 * (5 * source + 4 * target) + looks)

  def test_first_loss_is_near_that_of_a_guess(self):
    logits = np.asarray(logits_of()(PAIR))
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    self.assertBetween(-log.mean(), np.log(SIZE), np.log(SIZE) + 1.5)

  @parameterized.parameters('bfloat16', 'float16')
  def test_dtypes(self, dtype):
    block = BlockConfig(width=8, num_heads=2, dtype=dtype)
    model = EncoderDecoder(SIZE, 1, block)
    found, variables = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), PAIR, train=False)
    )
    self.assertEqual(found.dtype, jnp.float32)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(variables)}, {np.dtype('float32')}
    )


if __name__ == '__main__':
  absltest.main()
