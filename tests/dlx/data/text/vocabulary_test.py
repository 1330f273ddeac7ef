"""Vocabulary: round trip, unknown words, counts, padding."""

from absl.testing import absltest, parameterized
import numpy as np

from dlx.data.text import vocabulary as lib
from dlx.errors import ConfigError

TEXTS = ('The cat sat', 'the dog sat .', 'A cat')


class VocabTest(parameterized.TestCase):
  def test_words_by_count_then_by_their_characters(self):
    # cat, sat and the: 2 each; '.' (46) stands before letters.
    wanted = ('<pad>', '<unk>', 'cat', 'sat', 'the', '.', 'a', 'dog')
    self.assertEqual(lib.build(TEXTS).words, wanted)
    self.assertEqual(lib.build(reversed(TEXTS)).words, wanted)

  def test_round_trip(self):
    vocab = lib.build(TEXTS)
    for text in TEXTS:
      self.assertEqual(vocab.decode(vocab.encode(text)), text.lower())
      padded = lib.collate([vocab.encode(text)], 9)[0]
      self.assertEqual(vocab.decode(padded), text.lower())

  def test_unknown_words(self):
    vocab = lib.build(TEXTS)
    self.assertEqual(vocab.encode('the BIRD sat'), [4, lib.UNKNOWN, 3])
    self.assertEqual(vocab.decode(vocab.encode('the bird')), 'the <unk>')
    # A text can name no special word, and no text is without a token.
    self.assertEqual(vocab.encode('<pad> <unk>'), [lib.UNKNOWN] * 2)
    self.assertEqual(vocab.encode('  '), [lib.UNKNOWN])
    self.assertNotIn('<pad>', lib.build(['<pad> x']).words[2:])

  def test_marks_are_words_of_their_own(self):
    text = "It's so-so, \u201cGood\u201d... \u597d\u5427 na\u00efve\U0001f600 a_b"
    wanted = "it's so - so , \u201c good \u201d . . . \u597d \u5427 na\u00efve"
    wanted = [*wanted.split(), '\U0001f600', 'a', '_', 'b']
    self.assertEqual(lib.tokenise(text, marks=True), wanted)
    hindi = '\u0939\u093f\u0928\u094d\u0926\u0940'  # Vowel signs are no letters.
    self.assertEqual(lib.tokenise(hindi, marks=True), [hindi])
    vocab = lib.build(['good, good'], marks=True)
    self.assertEqual(vocab.words[2:], ('good', ','))
    self.assertEqual(vocab.encode('Good,good'), [2, 3, 2])
    self.assertEqual(lib.build(['good, good']).encode('Good,good'), [lib.UNKNOWN])

  def test_where_a_text_ends(self):
    text = 'so, so good'
    ends = [text[: lib.end(text, n)] for n in (1, 2, 3, 4, 5)]
    self.assertEqual(ends, ['so', 'so,', 'so, so', text, text])

  def test_rare_words_are_unknown(self):
    vocab = lib.build(TEXTS, min_count=2)
    self.assertEqual(vocab.words[2:], ('cat', 'sat', 'the'))
    self.assertEqual(vocab.encode('a cat'), [lib.UNKNOWN, 2])
    with self.assertRaisesRegex(ConfigError, 'min_count=0 is not allowed'):
      lib.build(TEXTS, min_count=0)

  @parameterized.parameters((('a', 'b'),), (('<pad>', '<unk>', 'a', 'a'),))
  def test_impossible_words_are_refused(self, words):
    with self.assertRaisesRegex(ConfigError, 'distinct words'):
      lib.Vocab(words)


class CollateTest(absltest.TestCase):
  def test_fills_up_and_cuts(self):
    tokens = lib.collate([[5], [6, 7, 8, 9]], 3)
    np.testing.assert_array_equal(tokens, [[5, 0, 0], [6, 7, 8]])
    self.assertEqual(tokens.dtype, np.int32)
    np.testing.assert_array_equal(lib.lengths(tokens), [1, 3])


if __name__ == '__main__':
  absltest.main()
