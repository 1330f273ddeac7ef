"""Sentences of a grammar: by hand, what is declared of them, agreement everywhere."""

import pytest

from dlx.data.sets import phrases
from dlx.data.sets.translation import texts, translation
from dlx.data.sources import read
from dlx.data.text.vocabulary import PAD, UNKNOWN, tokenise

place = lambda words, found: [x[0] for x in words].index(found)


def test_by_hand():
  man, dog = place(phrases.NOUNS, 'man'), place(phrases.NOUNS, 'dog')
  old, small = place(phrases.ADJECTIVES, 'old'), place(phrases.ADJECTIVES, 'small')
  subject = phrases.phrase('the', old, man, False)
  thing = phrases.phrase('a', small, dog, True)
  made = lambda **fields: phrases.sentence(
    subject, place(phrases.VERBS, 'sees'), thing, **fields
  )
  assert made() == (
    'The old man sees a small dog.',
    'Der alte Mann sieht einen kleinen Hund.',
  )
  assert made(perfect=True, adverb=0) == (
    'The old man has seen a small dog today.',
    'Der alte Mann hat heute einen kleinen Hund gesehen.',
  )
  assert made(perfect=True, adverb=0, first=True) == (
    'Today the old man has seen a small dog.',
    'Heute hat der alte Mann einen kleinen Hund gesehen.',
  )
  girl = place(phrases.NOUNS, 'girl')
  assert phrases.phrase('a', old, girl, False)[1] == 'ein altes Mädchen'
  assert phrases.phrase('a', None, place(phrases.NOUNS, 'cat'), True)[1] == 'eine Katze'


def test_sets_are_as_declared():
  data, seen = translation('phrases'), set()
  assert (data.unit, data.names, data.lengths) == ('word', ('en', 'de'), (10, 11))
  longest, widths = [0, 0], [0, 0]
  for source in (data.train, data.validation, data.test):
    every = phrases.read(source.split).data
    sides = every['source'], every['target']
    assert len(set(sides[0])) == phrases.SIZES[source.split]
    assert seen.isdisjoint(sides[0])
    seen.update(sides[0])
    for i, side in enumerate(sides):
      longest[i] = max(longest[i], *(len(tokenise(x, True)) for x in side))
      widths[i] = max(widths[i], *(len(x.encode()) for x in side))
  assert (tuple(longest), tuple(widths)) == (phrases.LONGEST, phrases.WIDTHS)
  words = data.vocabulary(None)
  assert len(words) == phrases.NUM_TOKENS == data.end
  found = read(data.test).data
  assert not any((found[side] == UNKNOWN).any() for side in found)
  first = words.decode([t for t in found['target'][0] if t not in (PAD, data.end)])
  text = bytes(read(texts('phrases', 'test')).data['target'][0]).rstrip(b'\0').decode()
  assert first == ' '.join(tokenise(text, True))


def test_another_split_is_refused():
  with pytest.raises(ValueError, match='phrases/dev: must be one of'):
    phrases.read('dev')


if __name__ == '__main__':
  pytest.main([__file__])
