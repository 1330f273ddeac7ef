"""The grammar: a pure function of the seed, balanced, and deaf to bags of words."""

import collections

from absl.testing import absltest

from dlx.data.sets import grammar as lib
from dlx.data.text.vocabulary import tokenise

REVIEWS = {split: lib.reviews(split) for split in lib.SIZES}


def opinion(text: str) -> int:
  """The label by the rules of the grammar, read off the words."""
  words = text.split()
  main = words
  if words[0] == 'although':
    main = words[words.index(',') + 1 :]
  elif 'although' in words:
    main = words[: words.index('although')]
  elif 'but' in words:
    main = words[words.index('but') + 1 :]
  denied = {'not', 'never', 'hardly', 'nobody', 'no'} & set(main)
  (adjective,) = set(main) & {*lib.GOOD, *lib.BAD}
  return int((adjective in lib.GOOD) != bool(denied))


class GrammarTest(absltest.TestCase):
  def test_sizes_labels_and_lengths(self):
    for split, size in lib.SIZES.items():
      found = REVIEWS[split]
      self.assertLen(found, size)
      self.assertEqual(sum(r.label for r in found), size // 2)
      self.assertLessEqual(max(len(r.text.split()) for r in found), lib.MAX_TOKENS)

  def test_no_sentence_twice(self):
    texts = [r.text for found in REVIEWS.values() for r in found]
    self.assertLen(set(texts), len(texts))

  def test_pure_function_of_the_seed(self):
    lib.reviews.cache_clear()
    self.assertEqual(lib.reviews('train'), REVIEWS['train'])
    self.assertNotEqual(lib.reviews('train', 1), REVIEWS['train'])
    with self.assertRaisesRegex(ValueError, 'must be one of train'):
      lib.reviews('dev')

  def test_labels_follow_the_rules(self):
    for found in REVIEWS.values():
      for review in found:
        self.assertEqual(opinion(review.text), review.label, review.text)

  def test_words_are_those_declared(self):
    used = {w for found in REVIEWS.values() for r in found for w in tokenise(r.text)}
    self.assertEqual(used, lib.words())

  def test_the_best_bag_of_words_fails(self):
    # Fitted on the test sentences themselves, words of a class and negations alone:
    # the majority label of each bag of (good, bad, negations).
    bags = collections.defaultdict(list)
    for review in REVIEWS['train']:
      words = review.text.split()
      good = sum(w in lib.GOOD for w in words)
      bad = sum(w in lib.BAD for w in words)
      denied = sum(w in ('not', 'never', 'hardly', 'nobody', 'no') for w in words)
      bags[good, bad, denied].append(review.label)
    right = sum(max(sum(b), len(b) - sum(b)) for b in bags.values())
    # One clause in three is alone, and there a bag can tell.
    self.assertLess(right / len(REVIEWS['train']), 0.75)


if __name__ == '__main__':
  absltest.main()
