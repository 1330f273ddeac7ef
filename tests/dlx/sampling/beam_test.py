"""Beam search: against enumeration, against greedy decoding, rows, order, errors."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.sampling import beam_search, generate

END, SIZE, LENGTH = 2, 4, 4
RNG = np.random.default_rng(0)
# Logits of the next token depend on all tokens before it, through a sum.
TABLE_SV = RNG.normal(size=(64, SIZE)).astype(np.float32)


def step(tokens_BT, cache):
  """The cache is a number a row, of the tokens so far in their order."""
  logits = []
  for i in range(tokens_BT.shape[1]):
    cache = (3 * cache + tokens_BT[:, i] + 1) % 64
    logits.append(jnp.asarray(TABLE_SV)[cache])
  return jnp.stack(logits, 1), cache


def take(cache, rows):
  return cache[rows]


def search(prompt_BP, *, beams, num_tokens=LENGTH, length_penalty=0.6, end=END):
  prompt_BP = jnp.asarray(prompt_BP)
  cache = jnp.zeros(len(prompt_BP), jnp.int32)
  return jax.jit(
    lambda p: beam_search(
      step, take, cache, p, num_tokens, beams=beams, end=end, fill=-7,
      length_penalty=length_penalty,
    )
  )(prompt_BP)  # fmt: skip


def log_probability(prompt, tokens):
  """Of the tokens after a prompt, in float64."""
  state, total = 0, 0.0
  for i, token in enumerate([*prompt, *tokens]):
    if i >= len(prompt):
      logits = TABLE_SV[state].astype(np.float64)
      total += logits[token] - np.log(np.exp(logits).sum())
    state = (3 * state + token + 1) % 64
  return total


def every_sequence():
  """All that end within LENGTH tokens."""
  others = [k for k in range(SIZE) if k != END]
  for n in range(LENGTH):
    for start in itertools.product(others, repeat=n):
      yield (*start, END)


def best(prompt, length_penalty):
  """Scores of all sequences that end, the highest first."""
  scored = [
    (log_probability(prompt, x) / ((5 + len(x)) / 6) ** length_penalty, x)
    for x in every_sequence()
  ]
  return sorted(scored, reverse=True)


class BeamTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.6, 3.0)
  def test_a_wide_beam_finds_what_enumeration_finds(self, length_penalty):
    prompts = [[0, 1], [3, 3]]
    # Of the last token there are 27 * 4 continuations, all of which count.
    found = search(prompts, beams=108, length_penalty=length_penalty)
    for b, prompt in enumerate(prompts):
      wanted = best(prompt, length_penalty)
      self.assertLen(wanted, 40)
      np.testing.assert_allclose(
        found.scores_BK[b, :40], [score for score, _ in wanted], rtol=1e-5
      )
      rows = [(*x, *(-7,) * (LENGTH - len(x))) for _, x in wanted]
      np.testing.assert_array_equal(found.tokens_BKT[b, :40], rows)

  @parameterized.parameters(1, 2, 3)
  def test_scores_are_those_of_the_tokens(self, beams):
    """A cache that is not taken along with its sequence gives others."""
    prompts = [[k, j] for k in range(SIZE) for j in range(SIZE)]
    found = search(prompts, beams=beams, num_tokens=6)
    for prompt, rows, scores in zip(prompts, found.tokens_BKT, found.scores_BK):
      for row, score in zip(np.asarray(rows), scores):
        tokens = row[row != -7]
        wanted = log_probability(prompt, tokens) / ((5 + len(tokens)) / 6) ** 0.6
        np.testing.assert_allclose(score, wanted, rtol=1e-5)

  @parameterized.parameters(0.0, 6.0)  # The second would like longer ones.
  def test_a_beam_of_one_is_greedy(self, length_penalty):
    prompts = jnp.asarray([[k, j] for k in range(SIZE) for j in range(SIZE)])
    cache = jnp.zeros(len(prompts), jnp.int32)
    greedy_BT = jax.jit(
      lambda p: generate(
        step, cache, p, 12, jax.random.key(0), context=20, temperature=0
      )
    )(prompts)
    found = search(prompts, beams=1, num_tokens=12, length_penalty=length_penalty)
    ends = 0
    for row, wanted in zip(found.tokens_BKT[:, 0], np.array(greedy_BT)):
      at = np.flatnonzero(wanted == END)
      if at.size:
        wanted[at[0] + 1 :] = -7
        ends += 1
      np.testing.assert_array_equal(row, wanted)
    self.assertBetween(ends, 1, len(prompts) - 1)  # Both kinds are there.

  def test_more_beams_are_no_worse_without_a_penalty(self):
    prompts = [[k, j] for k in range(SIZE) for j in range(SIZE)]
    greedy, wide = (
      search(prompts, beams=k, num_tokens=8, length_penalty=0.0) for k in (1, 8)
    )
    ended = np.asarray((greedy.tokens_BKT[:, 0] == END).any(1))
    gain = np.asarray(wide.scores_BK[:, 0] - greedy.scores_BK[:, 0])
    self.assertGreaterEqual(gain[ended].min(), -1e-5)
    self.assertGreater(gain[ended].max(), 0.01)

  def test_a_row_does_not_depend_on_the_others(self):
    prompts = [[k, j] for k in range(SIZE) for j in range(SIZE)]
    together = search(prompts, beams=3, num_tokens=8)
    for i in (0, 5, 11):
      alone = search([prompts[i]], beams=3, num_tokens=8)
      np.testing.assert_array_equal(alone.tokens_BKT[0], together.tokens_BKT[i])
      np.testing.assert_array_equal(alone.scores_BK[0], together.scores_BK[i])

  def test_what_ended_stands_before_what_was_cut_off(self):
    found = search([[0, 1], [1, 0], [3, 2]], beams=3, num_tokens=3)
    ended_BK = np.asarray((found.tokens_BKT == END).any(2))
    self.assertTrue((np.diff(ended_BK.astype(int), axis=1) <= 0).all())
    self.assertTrue(ended_BK.any() and not ended_BK.all())

  def test_fewer_sequences_than_beams(self):
    found = search([[0]], beams=6, num_tokens=1)
    np.testing.assert_array_equal(
      np.isfinite(found.scores_BK[0]), [True] * 4 + [False] * 2
    )
    np.testing.assert_array_equal(found.tokens_BKT[0, 4:], [[-7], [-7]])
    self.assertEqual(found.tokens_BKT[0, 0, 0], END)
    self.assertCountEqual(found.tokens_BKT[0, :4, 0].tolist(), range(SIZE))

  def test_nan_gives_no_token_in_its_row_alone(self):
    def broken(tokens_BT, cache):
      logits, cache = step(tokens_BT, cache)
      return logits.at[0].set(jnp.nan), cache

    found = beam_search(
      broken, take, jnp.zeros(2, jnp.int32), jnp.ones((2, 1), int), 3, beams=1, end=END
    )
    self.assertTrue((found.tokens_BKT[0] == -1).all())
    self.assertTrue(np.isnan(found.scores_BK[0]).all())
    self.assertTrue((found.tokens_BKT[1] >= 0).all())

  @parameterized.parameters(
    ({'beams': 0}, 'beams=0 is not allowed: must be at least 1.'),
    ({'beams': 1, 'num_tokens': 0}, 'num_tokens=0 is not allowed: must be at least 1.'),
    ({'beams': 1, 'length_penalty': -1.0}, 'length_penalty=-1.0 is not allowed'),
    ({'beams': 1, 'end': 4}, 'end=4 is not allowed: must be one of the 4 tokens'),
  )
  def test_refuses(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      search([[0]], **fields)


if __name__ == '__main__':
  absltest.main()
