"""Sentences of `attention_toy` by their definition; what the model tells of a look."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.figures.text import attended_words
from dlx.layers.block_config import BlockConfig
from dlx.models.token_reader import TokenReader
from experiments.transformers import attention_toy as lib

KINDS = {noun: kind for kind, nouns in lib.NOUNS.items() for noun in nouns.split()}
SAME = {noun: i for nouns in lib.NOUNS.values() for i, noun in enumerate(nouns.split())}


class SentencesTest(absltest.TestCase):
  def test_the_pronoun_agrees_with_one_noun_alone_and_pairs_are_held_out(self):
    for test in (False, True):
      keys = jax.random.split(jax.random.key(0), 300)
      rows = jax.jit(jax.vmap(lambda key, t=test: lib.draw(key, test=t)))(keys)
      lengths, answers = set(), set()
      for token, noun, label in zip(*map(np.asarray, (
        rows['tokens'], rows['noun'], rows['label']))):  # fmt: skip
        words = lib.VOCABULARY.decode(token).split()
        np.testing.assert_array_equal(token[len(words) :], lib.PAD)
        nouns = [w for w in words if w in KINDS]
        (pronoun,) = [w for w in words if w in lib.PRONOUNS]
        self.assertEqual([n for n in nouns if KINDS[n] == pronoun], [words[noun]])
        self.assertEqual(lib.NAMES[label], words[noun])
        self.assertIn('were' if pronoun == 'they' else 'was', words)
        held_out = (SAME[nouns[0]] + SAME[nouns[1]]) % 4 == 0
        self.assertEqual(held_out, test)
        if not test and len(nouns) == 3:
          for a, b in ((0, 2), (1, 2)):
            self.assertNotEqual((SAME[nouns[a]] + SAME[nouns[b]]) % 4, 0)
        lengths.add(len(words))
        answers.add(nouns.index(words[noun]))
      self.assertEqual(lengths, set(range(9, 16)))
      self.assertEqual(answers, {0, 1, 2})

  def test_examples_are_known_words(self):
    for row, sentence in zip(lib.encoded(lib.EXAMPLES), lib.EXAMPLES, strict=True):
      self.assertEqual(lib.VOCABULARY.decode(row), sentence)

  def test_refuses_a_width(self):
    with self.assertRaisesRegex(ConfigError, 'config.width=9 .* must be even, 4 or'):
      lib.Config(width=9)


class TokenReaderTest(absltest.TestCase):
  def test_padding_changes_nothing_and_other_tokens_are_no_number(self):
    block = BlockConfig(width=8, num_heads=2)
    model = TokenReader(6, 3, (4, 5), 2, block)
    token = jnp.asarray([[1, 2, 5, 4, 0, 0], [1, 2, 3, 1, 0, 0], [1, 9, 4, 1, 0, 0]])
    init = lambda key: model.init(key, token, train=False)
    params = jax.jit(init)(jax.random.key(0))
    apply = jax.jit(lambda token: model.apply(params, token, train=False))
    long, short = apply(token), apply(token[:, :4])
    # The first of those that are asked; where there is none, the first token.
    np.testing.assert_array_equal(long.place_B, [2, 0, 2])
    np.testing.assert_array_equal(long.weights_BHT[:2, :, 4:], 0)
    np.testing.assert_allclose(long.weights_BHT[:2].sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(long.logits_BK[:2], short.logits_BK[:2], atol=1e-5)
    self.assertTrue(np.isnan(long.logits_BK[2]).all())


class FigureTest(absltest.TestCase):
  def test_a_box_for_each_word_and_a_number_for_each_large_weight(self):
    sentences = [['a', 'b', 'it'], ['c', 'it']]
    weights = [[0.9, 0.06, 0.04], [1.0, 0.0, 0.0]]
    figure = attended_words(weights, sentences, [2, 1])
    texts = [t.get_text() for t in figure.axes[0].texts]
    self.assertEqual(texts, ['a', '0.90', 'b', '0.06', 'it', 'c', '1.00', 'it'])
    self.assertLen(figure.axes[0].patches, 5)
    with self.assertRaisesRegex(ValueError, r'shape \(2, 3\) and 1 places for 2'):
      attended_words(weights, sentences, [2])


if __name__ == '__main__':
  absltest.main()
