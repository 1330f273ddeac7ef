"""Pairs of texts by name: strings, captions, own sets; ends, cuts, words, texts."""

import numpy as np
import pytest

from dlx.data.batches.buckets import lengths_of_least_padding
from dlx.data.prepare import pairs
from dlx.data.sets import strings
from dlx.data.sets.facts import check
from dlx.data.sets.sentences import texts_of
from dlx.data.sets.translation import texts, translation
from dlx.data.sources import read
from dlx.data.text.padded import Padded
from dlx.data.text.vocabulary import PAD, UNKNOWN
from dlx.errors import ConfigError
from tests.dlx.data import real_data
from tests.dlx.data.text import tokenizer_files


def decoded(data, tokens_NT):
  words = data.vocabulary(None)
  return [words.decode([t for t in row if t != data.end]) for row in tokens_NT]


@pytest.mark.parametrize('task', ['reverse', 'sort'])
def test_strings_by_their_definition(task):
  data, seen = translation(task), set()
  assert (data.lengths, data.end, data.vocabulary_size) == ((10, 11), 63, 64)
  for source in (data.test, data.validation, data.train):
    found = read(source).data
    given, wanted = (decoded(data, found[side]) for side in ('source', 'target'))
    right = sorted if task == 'sort' else reversed
    assert wanted == [''.join(right(x)) for x in given]
    # No row stands in two splits, or twice.
    assert len(given) == strings.SIZES[source.split] == len(set(given))
    assert seen.isdisjoint(given)
    seen.update(given)
    ends_N = (found['target'] == data.end).sum(1)
    assert (ends_N == 1).all() and (found['source'] != data.end).all()
  lengths = np.array([len(x) for x in given])
  assert set(lengths) == set(range(1, 11))
  # Counts of three and more: with a deviation of 75, but few of one and two there are.
  counts = np.bincount(lengths)
  assert np.ptp(counts[3:]) < 600 and counts[1] < counts[2] < counts[3]
  assert set(''.join(given)) == set(strings.SYMBOLS)


def test_order_of_sort_is_that_of_the_tokens():
  data = translation('sort')
  words = data.vocabulary(None)
  assert words.decode(sorted(words.encode('bA9a0Z'))) == '09AZab'
  assert isinstance(words, Padded) and len(words) == data.end


def test_longer_ones_are_cut_and_have_no_end_then():
  data, whole = translation('reverse', max_length=5), translation('reverse')
  assert data.lengths == (5, 5)
  cut, full = (read(x.test).data for x in (data, whole))
  np.testing.assert_array_equal(cut['source'], full['source'][:, :5])
  np.testing.assert_array_equal(cut['target'], full['target'][:, :5])
  long_N = full['source'][:, 4] != PAD
  assert not (cut['target'][long_N] == data.end).any()
  assert (cut['target'][~long_N] == data.end).any(1).all()


def written(tmp_path, monkeypatch, rows):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  lines = ''.join(f'{en}\t{de}\n' for en, de in rows)
  (tmp_path / 'own.tsv').write_text(f'en\tde\n{lines}')
  return str(tmp_path / 'own.tsv')


PAIRS = [(f'The {k} dogs.', f'Die {k} Hunde.') for k in range(40)]


def test_own_sets_have_one_vocabulary_of_words(tmp_path, monkeypatch):
  file = written(tmp_path, monkeypatch, PAIRS)
  pairs.prepare([file], 'own')
  data = translation('own')
  assert (data.unit, data.names, data.lengths) == ('word', ('en', 'de'), (4, 5))
  found = read(data.train).data
  assert decoded(data, found['source'][:1])[0].startswith('the ')
  assert decoded(data, found['target'][:1])[0].endswith(' hunde .')
  # The numbers and the mark stand on both sides and are one word each.
  numbers, marks = found['source'][:, 1], found['source'][:, 3]
  np.testing.assert_array_equal(numbers, found['target'][:, 1])
  np.testing.assert_array_equal(marks, found['target'][:, 3])
  words = data.vocabulary(None)
  assert len(words) < data.end < 2 * len(words)
  assert max(found['target'].max(), found['source'].max()) == data.end
  # Words of training alone are known.
  test = read(data.test)
  assert (test.data['source'][:, 1] == UNKNOWN).all()
  assert test.origin['unknown_share_source'] == pytest.approx(0.25)


def test_few_words_are_the_most_frequent(tmp_path, monkeypatch):
  file = written(tmp_path, monkeypatch, PAIRS)
  pairs.prepare([file], 'own')
  data = translation('own', num_words=3)
  assert data.vocabulary(None).words == ('<pad>', '<unk>', '.', 'die', 'dogs')
  assert (data.end, data.vocabulary_size) == (5, 6)
  assert read(data.train).data['target'].max() == data.end


def test_texts_are_as_written(tmp_path, monkeypatch):
  file = written(tmp_path, monkeypatch, PAIRS)
  pairs.prepare([file], 'own')
  found = read(texts('own', 'test')).data
  both = list(zip(texts_of(found['text']), texts_of(found['target'])))
  assert set(both) <= set(PAIRS) and len(both) == 8
  found = read(texts('reverse', 'test')).data
  assert texts_of(found['target'][:1])[0] == texts_of(found['text'][:1])[0][::-1]


def test_byte_pairs_of_both_sides_stand_in_the_card(tmp_path, monkeypatch):
  file = written(tmp_path, monkeypatch, PAIRS)
  made = pairs.prepare([file], 'own', tokens='bpe', vocab_size=270)
  merges = made.card.facts['merges']
  assert 5 < len(merges) <= 14
  data = translation('own')
  assert (data.unit, data.end) == ('token', 256 + len(merges))
  found = read(data.train).data
  # Nothing is lost: capitals, spaces and what training lacked.
  both = zip(decoded(data, found['source']), decoded(data, found['target']))
  assert set(both) <= set(PAIRS)
  words = data.vocabulary(None)
  assert words.decode([*words.encode('\u00dcber 99!'), PAD]) == '\u00dcber 99!'
  assert found['source'].max() < data.end == found['target'].max()
  with pytest.raises(ConfigError, match='num_words=9 is not allowed: own is cut into'):
    translation('own', num_words=9)
  for fields, message in (
    ({'tokens': 'syllables'}, '--tokens=syllables is not allowed'),
    ({'vocab_size': 300}, '--vocab_size is not allowed with --tokens=words'),
    ({'tokens': 'bpe', 'vocab_size': 9}, 'vocab_size=9 is not allowed'),
  ):
    with pytest.raises(ConfigError, match=message):
      pairs.prepare([file], 'other', **fields)
  facts = {**made.card.facts, 'merges': [[300, 1]]}
  with pytest.raises(ValueError, match='merges are no pairs'):
    check(facts, made.card.shapes)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'name': 'turn'}, "dataset='turn' is not known"),
    ({'name': 'grammar'}, "dataset='grammar' holds labelled sentences, not pairs of"),
    ({'name': 'sort', 'num_words': 9}, 'num_words=9 is not allowed: sort is cut into '),
    ({'name': 'multi30k', 'num_words': 0}, 'num_words=0 is not allowed: must be at l'),
    ({'name': 'sort', 'max_length': 0}, 'max_length=0 is not allowed: must be at le'),
  ],
)
def test_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    translation(**fields)


def test_captions_are_as_declared():
  folder = real_data.folder('multi30k')
  data, small = translation('multi30k'), translation('multi30k', num_words=8000)
  longest = np.zeros(2, int)
  for source in (data.train, data.validation, data.test):
    found = source.read(folder).data
    counts = [(found[side] != PAD).sum(1).max() for side in ('source', 'target')]
    longest = np.maximum(longest, counts)
  assert tuple(longest) == data.lengths
  train = data.train.read(folder).data
  length_N = np.maximum(*((train[side] != PAD).sum(1) for side in train))
  assert tuple(np.bincount(length_N)[1:]) == data.length_counts
  assert data.bucket_lengths == lengths_of_least_padding(data.length_counts, 4)
  assert len(data.vocabulary(folder)) == data.end == 25941
  assert small.vocabulary_size == 8003
  assert small.test.read(folder).origin['unknown_share_source'] < 0.03
  found = texts('multi30k', 'test').read(folder).data
  assert texts_of(found['text'][:1]) == [
    'A man in an orange hat starring at something.'
  ]


if __name__ == '__main__':
  pytest.main([__file__])


@pytest.mark.parametrize('of_file', (False, True))
def test_characters_and_a_tokenizer_file(tmp_path, monkeypatch, of_file):
  file = written(tmp_path, monkeypatch, PAIRS)
  fields = {'tokens': 'characters'}
  if of_file:
    known = ''.join(sorted({c for pair in PAIRS for text in pair for c in text}))
    fields = {'tokenizer': tmp_path / 'tokenizer.json'}
    fields['tokenizer'].write_bytes(tokenizer_files.characters(known))
  facts = pairs.prepare([file], 'own', **fields).card.facts
  data = translation('own')
  assert data.unit == ('token' if of_file else 'character')
  found = read(data.train).data
  both = set(zip(decoded(data, found['source']), decoded(data, found['target'])))
  assert both <= set(PAIRS)
  assert found['source'].max() < data.end == found['target'].max()
  # A target is followed by the token that ends it.
  assert data.lengths == (facts['longest'][0], facts['longest'][1] + 1)
