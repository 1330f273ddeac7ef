"""Sentences by name: what is declared is what is read."""

from absl.testing import absltest, parameterized
import numpy as np

from dlx.data.batches.buckets import Bucketed, bucket_sizes
from dlx.data.sets import grammar
from dlx.data.sets import sentences as lib
from dlx.data.sources import read
from dlx.data.text import vocabulary
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data


class GrammarTest(absltest.TestCase):
  def test_tokens_text_and_labels_belong_together(self):
    data = lib.sentences('grammar')
    vocab = data.vocabulary(None)
    self.assertLessEqual(len(vocab), data.vocabulary_size)
    for source in (data.train, data.validation, data.test):
      found = read(source).data
      wanted = grammar.reviews(source.split)
      texts = [vocab.decode(row) for row in found['tokens']]
      self.assertEqual(texts, [r.text for r in wanted])
      np.testing.assert_array_equal(found['label'], [r.label for r in wanted])
      if source.split != 'train':
        self.assertEqual(lib.texts_of(found['text']), [r.text for r in wanted])

  def test_declared_lengths_suit_the_buckets(self):
    data = lib.sentences('grammar')
    self.assertEqual(sum(bucket_sizes(data.length_counts, data.lengths)), 1600)
    Bucketed(
      data.train, data.length_counts, lengths=data.lengths, batch_size=16, seed=0
    ).load()

  def test_cut_and_rare(self):
    data = lib.sentences('grammar', max_length=4, min_count=10**6)
    loaded = read(data.test)
    self.assertEqual(loaded.data['tokens'].shape, (400, 4))
    self.assertEqual(set(loaded.data['tokens'].ravel()), {vocabulary.UNKNOWN, 0} - {0})
    self.assertEqual(loaded.origin['unknown_share'], 1.0)

  def test_refuses(self):
    with self.assertRaisesRegex(
      ConfigError, "dataset='mnist' holds labelled images, not labelled sent"
    ):
      lib.sentences('mnist')
    with self.assertRaisesRegex(ConfigError, 'phrases=True is not allowed: grammar'):
      lib.sentences('grammar', phrases=True)
    with self.assertRaisesRegex(ConfigError, 'min_count=0 is not allowed'):
      lib.sentences('grammar', min_count=0)


class FromTextsTest(absltest.TestCase):
  def test_in_memory(self):
    texts = {'train': ['a b', 'c'], 'validation': ['a a a'], 'test': ['c z']}
    labels = {'train': [0, 1], 'validation': [0], 'test': [1]}
    data = lib.from_texts('mine', texts, labels)
    self.assertEqual(data.length_counts, (1, 1))
    self.assertEqual((data.max_length, data.vocabulary_size), (3, 5))
    found = read(data.test)
    np.testing.assert_array_equal(found.data['tokens'], [[4, 1, 0]])
    self.assertEqual(found.origin['unknown_share'], 0.5)

  def test_a_label_that_is_no_class(self):
    texts = dict.fromkeys(('train', 'validation', 'test'), ['a', 'b'])
    data = lib.from_texts('mine', texts, dict.fromkeys(texts, [1, 2]))
    with self.assertRaisesRegex(DataError, 'mine/train: .* found 2 in row 1'):
      read(data.train)


class BytesTest(absltest.TestCase):
  def test_long_sentences_are_cut_between_letters(self):
    text = 'é' * 200  # Two bytes each.
    (found,) = lib.texts_of(lib.as_bytes(['x' + text], lib.TEXT_BYTES))
    self.assertEqual(found, 'x' + 'é' * 149)


class Sst2Test(parameterized.TestCase):
  def test_without_files_one_error(self):
    with self.assertRaises(DataError):
      read(lib.sentences('sst2').train, self.create_tempdir().full_path)

  @parameterized.parameters(False, True)
  def test_published_files_are_as_declared(self, phrases):
    folder = real_data.folder('sst2/glue_train.tsv', 'sst2/stsa.binary.test')
    data = lib.sentences('sst2', phrases=phrases)
    self.assertLen(data.vocabulary(folder), data.vocabulary_size)
    train = Bucketed(
      data.train, data.length_counts, lengths=data.lengths, batch_size=50, seed=0
    ).load(folder)
    self.assertEqual(train.origin['size'], 67349 if phrases else 6920)
    self.assertEqual(train.origin['unknown_share'], 0)
    test = read(data.test, folder)
    # The longest test sentence has 56 tokens: nothing is cut.
    self.assertEqual(vocabulary.lengths(test.data['tokens']).max(), 56)
    # 5.9 % and 6.4 % of the test words are in no training sentence or phrase.
    self.assertBetween(test.origin['unknown_share'], 0.04, 0.08)


if __name__ == '__main__':
  absltest.main()
