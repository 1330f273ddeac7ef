"""Generation: a counting model by hand, GPT without a cache, the draws themselves."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT
from dlx.sampling.autoregressive import choose, generate


def counting(context, vocabulary=10):
  """A model whose next token is (tokens held + last token) mod V, for certain.

  The cache is the number of tokens held; past `context` everything is -1.
  """

  def step(token_BT, held):
    place_T = held + 1 + jnp.arange(token_BT.shape[1])
    next_BT = (place_T[None] + token_BT) % vocabulary
    logits = 100.0 * jax.nn.one_hot(next_BT, vocabulary)
    return jnp.where((place_T <= context)[None, :, None], logits, jnp.nan), place_T[-1]

  return step, jnp.zeros((), jnp.int32)


class GenerateTest(parameterized.TestCase):
  @parameterized.parameters((1, 1), (2, 3), (2, 5), (6, 1), (6, 2), (2, 6), (3, 23))
  def test_counting_by_hand(self, length, num_tokens):
    context, key = 6, jax.random.key(0)
    step, cache = counting(context)
    prompt = jnp.asarray([range(1, length + 1), [7] * length])
    found = jax.jit(
      lambda prompt: generate(step, cache, prompt, num_tokens, key, context=context)
    )(prompt)
    self.assertEqual((found.shape, found.dtype), ((2, num_tokens), np.int32))
    for row, start in zip(np.asarray(found), np.asarray(prompt)):
      # A window of 6 that is full, and has given its 7th token, starts again with 3.
      last, held, want = int(start[-1]), length, []
      for _ in range(num_tokens):
        if held > context:
          held = context // 2
        last = (held + last) % 10
        want.append(last)
        held += 1
      self.assertEqual(row.tolist(), want)

  @parameterized.parameters(
    (0.0, {'top_k': 5}), (2.0, {'top_k': 6, 'top_p': 0.95, 'min_p': 0.1})
  )
  def test_cached_gpt_equals_uncached(self, temperature, limits):
    model = GPT(11, 8, 2, BlockConfig(width=16, num_heads=2), init_scale=0.5)
    prompt = jnp.asarray([[1, 2, 3], [9, 8, 7]])
    variables = jax.jit(lambda k: model.init(k, prompt, train=False))(jax.random.key(0))
    key = jax.random.key(1)
    draw = jax.jit(functools.partial(choose, temperature=temperature, **limits))
    found = jax.jit(
      lambda v: generate(
        lambda t, c: model.apply(v, t, c, method='extend'),
        model.empty_cache(2),
        prompt,
        15,
        key,
        context=8,
        temperature=temperature,
        **limits,
      )
    )(variables)
    # Without a cache: the whole window goes through the model for each token. Padding
    # behind it changes nothing, since the model is causal.
    full = jax.jit(functools.partial(model.apply, train=False))
    text, held = prompt, 3
    for i in range(15):
      held = 4 if held > 8 else held
      window = jnp.pad(text[:, -held:], ((0, 0), (0, 8 - held)))
      logits = full(variables, window)[:, held - 1]
      token = draw(jax.random.fold_in(key, i), logits)
      text, held = jnp.concatenate([text, token[:, None]], 1), held + 1
    self.assertEqual(found.tolist(), text[:, 3:].tolist())
    self.assertGreater(len(set(np.asarray(found).ravel())), 3)

  @parameterized.parameters(
    ((2, 0), 3, 'A prompt of 0 tokens'),
    ((2, 7), 3, 'A prompt of 7 tokens is not allowed: must be 1 to context=6'),
    ((2, 3), 0, 'num_tokens=0 is not allowed'),
  )
  def test_refuses(self, shape, num_tokens, message):
    step, cache = counting(6)
    prompt = jnp.zeros(shape, jnp.int32)
    with self.assertRaisesRegex(ConfigError, message):
      generate(step, cache, prompt, num_tokens, jax.random.key(0), context=6)


class ChooseTest(parameterized.TestCase):
  @parameterized.parameters(
    (1.0, {}, [1, 2, 3, 4]),
    (0.5, {}, [1, 4, 9, 16]),  # Probabilities squared.
    (1.0, dict(top_k=2), [0, 0, 3, 4]),
    (1.0, dict(top_k=1), [0, 0, 0, 1]),
    # Of 0.4, 0.3, 0.2 and 0.1 the fewest that come to top_p.
    (1.0, dict(top_p=0.39), [0, 0, 0, 1]),
    (1.0, dict(top_p=0.41), [0, 0, 3, 4]),
    (1.0, dict(top_p=0.69), [0, 0, 3, 4]),
    (1.0, dict(top_p=0.71), [0, 2, 3, 4]),
    (1.0, dict(top_p=1.0, min_p=0.0), [1, 2, 3, 4]),
    # 16/30 and 9/30: of the sharper ones two are enough for 0.8, of the others not.
    (0.5, dict(top_p=0.8), [0, 0, 9, 16]),
    (1.0, dict(top_p=0.8), [0, 2, 3, 4]),
    # After top_k, of 4/7 and 3/7: the first alone comes to 0.5.
    (1.0, dict(top_k=2, top_p=0.5), [0, 0, 0, 1]),
    # At least so many times 0.4.
    (1.0, dict(min_p=0.49), [0, 2, 3, 4]),
    (1.0, dict(min_p=0.51), [0, 0, 3, 4]),
    (1.0, dict(min_p=1.0), [0, 0, 0, 1]),
    (0.5, dict(min_p=0.49), [0, 0, 9, 16]),  # 9/16 and 4/16 of the likeliest.
  )
  def test_frequencies(self, temperature, options, wanted):
    n = 20000
    logits = jnp.broadcast_to(jnp.log(jnp.asarray([1.0, 2, 3, 4])), (n, 4))
    draw = functools.partial(choose, temperature=temperature, **options)
    counts = np.bincount(jax.jit(draw)(jax.random.key(0), logits), minlength=4)
    share = np.asarray(wanted) / sum(wanted)
    bound = 5 * np.sqrt(share * (1 - share) / n)
    np.testing.assert_array_less(np.abs(counts / n - share), bound + 1e-9)

  def test_greedy_takes_the_first_of_equals(self):
    logits = jnp.asarray([[0, 2, 2], [5, 1, 5.0]])
    found = choose(jax.random.key(0), logits, temperature=0)
    self.assertEqual((found.tolist(), found.dtype), ([1, 0], np.int32))

  def test_a_row_does_not_depend_on_the_batch(self):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 50)), jnp.float32)
    key = jax.random.key(0)
    found = choose(key, logits)
    self.assertEqual(choose(key, logits[:3]).tolist(), found[:3].tolist())
    self.assertGreater(len(set(np.asarray(choose(key, 0 * logits)).tolist())), 4)

  @parameterized.parameters(0, 1.0)
  def test_nan_draws_no_token(self, temperature):
    """As of a prompt out of range; the tokens after it stay out of range too."""
    logits = jnp.array([[0.0, jnp.nan, 1.0], [-jnp.inf, -jnp.inf, 0.0]])
    drawn = choose(jax.random.key(0), logits, temperature=temperature)
    np.testing.assert_array_equal(drawn, [-1, 2])

  @parameterized.parameters(np.float32, np.int64, jnp.float32)
  def test_temperature_zero_of_any_kind(self, kind):
    """Divided by, every positive logit would be infinite and the first one drawn."""
    logits = jnp.array([[0.1, 3.0, 1.0], [-1.0, 0.2, 5.0]])
    draw = lambda t: choose(jax.random.key(0), logits, temperature=t)
    np.testing.assert_array_equal(draw(kind(0)), [1, 2])
    np.testing.assert_array_equal(jax.jit(draw)(kind(0)), [1, 2])

  def test_a_key_and_a_temperature_a_row(self):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 50)), jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(6, dtype=jnp.uint32))
    hot = jnp.asarray([1.0, 0.5, 0.0, 2.0, 0.0, 1.0])
    found = jax.jit(lambda t: choose(keys, logits, temperature=t, top_k=7))(hot)
    for i, temperature in enumerate(hot.tolist()):
      if temperature == 0:
        self.assertEqual(int(found[i]), int(logits[i].argmax()))
        continue
      best = jax.lax.top_k(logits[i], 7)[0][-1]
      kept = jnp.where(logits[i] < best, -jnp.inf, logits[i] / temperature)
      self.assertEqual(int(found[i]), int(jax.random.categorical(keys[i], kept)))
    self.assertEqual(
      choose(keys[2:4], logits[2:4], temperature=hot[2:4], top_k=7).tolist(),
      found[2:4].tolist(),
    )

  def test_temperature_may_be_traced(self):
    logits = jnp.asarray([[1.0, 2.0, 3.0]])
    key = jax.random.key(0)
    found = jax.jit(lambda t: choose(key, logits, temperature=t))(0.7)
    self.assertEqual(found.tolist(), choose(key, logits, temperature=0.7).tolist())

  @parameterized.parameters(dict(top_p=0.3), dict(min_p=1.0))
  def test_ties_with_the_last_are_kept(self, **options):
    logits = jnp.broadcast_to(jnp.asarray([1.0, 3, 3, 2]), (64, 4))
    found = choose(jax.random.key(0), logits, **options)
    self.assertEqual(set(found.tolist()), {1, 2})

  @parameterized.parameters(
    *(('temperature', -1.0), ('top_k', 0), ('top_k', 5)),
    *(('top_p', 0), ('top_p', 1.1), ('top_p', float('nan'))),
    *(('min_p', -0.1), ('min_p', 1.1)),
  )
  def test_refuses(self, name, value):
    with self.assertRaisesRegex(ConfigError, f'{name}={value} is not allowed: must be'):
      choose(jax.random.key(0), jnp.zeros((1, 4)), **{name: value})
    if name != 'temperature':  # Also where nothing is drawn.
      with self.assertRaises(ConfigError):
        choose(jax.random.key(0), jnp.zeros((1, 4)), temperature=0, **{name: value})


if __name__ == '__main__':
  absltest.main()
