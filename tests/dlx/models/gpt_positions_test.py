"""GPT by position scheme: cached text is the whole, also past the context."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig, Relative
from dlx.models.gpt import GPT, POSITIONS, flops_per_token

CONTEXT = 6
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 13)), jnp.int32)


def gpt(positions, **fields):
  block = BlockConfig(width=16, num_heads=2, unroll=2, **fields)
  return GPT(11, CONTEXT, 2, block, positions, init_scale=0.3)


class GPTPositionsTest(parameterized.TestCase):
  @parameterized.product(positions=POSITIONS, window=(None, 4))
  def test_cached_equals_uncached_also_past_the_context(self, positions, window):
    model = gpt(positions, window=window, relative=Relative(4, 8))
    past = positions != 'learned'
    text = TOKENS if past else TOKENS[:, :CONTEXT]
    length = text.shape[1]
    init = lambda key: model.init(key, text[:, :CONTEXT], train=False)
    variables = jax.jit(init)(jax.random.key(0))
    want = jax.jit(functools.partial(model.apply, train=False))(variables, text)
    cache = model.empty_cache(2, length)
    self.assertEqual(cache.key_BMGK.shape[2], window or length)
    extend = jax.jit(functools.partial(model.apply, method='extend'))
    parts, start = [], 0
    while start < length:
      count = 5 if start == 0 else 1
      logits, cache = extend(variables, text[:, start : start + count], cache)
      parts.append(logits)
      start += count
    # Logits of size 1: sums of 16 products behind two blocks.
    np.testing.assert_allclose(jnp.concatenate(parts, 1), want, atol=1e-5)

  @parameterized.parameters(*POSITIONS)
  def test_tells_an_order_and_sees_nothing_later(self, positions):
    model = gpt(positions)
    text = jnp.asarray([[1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [1, 2, 3, 4, 6]])
    init = lambda key: model.init(key, text, train=False)
    variables = jax.jit(init)(jax.random.key(0))
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, text)
    self.assertGreater(np.abs(logits[0, -1] - logits[1, -1]).max(), 1e-4)
    np.testing.assert_allclose(logits[0, :-1], logits[2, :-1], atol=1e-6)

  def test_operations_of_gates_and_windows(self):
    of = lambda **fields: flops_per_token(gpt('none', **fields), 12)
    # 6 operations a weight: a third map of 16 x 64 in each of two layers.
    self.assertEqual(of(mlp='swiglu') - of(), 6 * 2 * 16 * 64)
    # 12 a layer, unit and key: 4 keys in place of 12.
    self.assertEqual(of() - of(window=4), 12 * 2 * 16 * 8)


if __name__ == '__main__':
  absltest.main()
