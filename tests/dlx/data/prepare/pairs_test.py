"""Pairs of sentences become a set: columns, splits and words by hand."""

import pathlib

import pytest

from dlx.data.prepare import pairs
from dlx.data.sets import cards, sentences
from dlx.errors import ConfigError, DataError
from tests.dlx.data.edited import edited


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def written(rows, name='own.tsv', head='en\tde\tid') -> str:
  lines = ''.join(f'{en}\t{de}\t{i}\n' for i, (en, de) in enumerate(rows))
  pathlib.Path(name).write_text(f'{head}\n{lines}')
  return name


TEN = [(f'a {i}', f'ein  gro\u00dfes {i}.') for i in range(10)]


def rows(name='own') -> dict[str, list[tuple[str, str]]]:
  card = cards.find(name)
  assert card is not None
  found = {}
  for split in card.facts['sizes']:
    data = cards.source(card, split).read(None).data
    both = [sentences.texts_of(data[side]) for side in ('source', 'target')]
    found[split] = list(zip(*both, strict=True))
  return found


def test_columns_splits_and_words():
  facts = pairs.prepare([written(TEN)], 'own', validation=0.25).card.facts
  assert facts['sizes'] == {'train': 6, 'validation': 2, 'test': 2}
  every = sorted(pair for part in rows().values() for pair in part)
  assert every == [(en, de.replace('  ', ' ')) for en, de in TEN]
  assert facts['languages'] == ['en', 'de'] and facts['longest'] == [2, 4]
  # <pad>, <unk>, 6 numbers of training; a, or ein, the adjective and the mark.
  assert facts['vocabulary_sizes'] == [2 + 6 + 1, 2 + 6 + 3]
  pairs.prepare(['own.tsv'], 'back', source='de', target='en')
  assert rows('back')['test'][0][0].startswith('ein')
  tests = {tuple(rows('own')['test']), tuple(rows('back')['test'])}
  for seed in range(4):
    pairs.prepare(['own.tsv'], f's{seed}', seed=seed)
    tests.add(tuple(rows(f's{seed}')['test']))
  assert len(tests) > 2


def test_lengths_of_pairs_and_of_batches_that_pay():
  # The longer side, where the end of a target counts: 2 or, of every fourth, 9.
  some = [(f'{"a " * (1 if i % 4 else 8)}b{i}', 'c') for i in range(16)]
  card = pairs.prepare([written(some)], 'own', test=0.25, validation=0.25).card
  longer = [9 if en.count('a') > 1 else 2 for en, _ in rows()['train']]
  counts = card.facts['length_counts']
  assert counts == [longer.count(n) for n in range(1, 10)] and counts[-1]
  assert card.facts['bucket_lengths'] == [2, 9]
  # Where all are about as long, one length is as good.
  assert pairs.prepare([written(TEN)], 'ten').card.facts['bucket_lengths'] == []


def test_files_are_splits_and_repeats_are_told():
  paths = [written(TEN, 'train.tsv'), written([('a 3', 'x'), ('q', 'y')], 'test.tsv')]
  with pytest.raises(DataError, match='train.tsv: line 5 is also test.tsv: line 2'):
    pairs.prepare(paths, 'own', validation=0.2)
  pairs.prepare(paths, 'own', validation=0.2, repeats='drop')
  assert rows()['test'] == [('a 3', 'x'), ('q', 'y')]
  assert {s: len(x) for s, x in rows().items()} == {
    'train': 7,
    'validation': 2,
    'test': 2,
  }


def test_rows_that_lack_a_sentence():
  written([*TEN, ('', 'x'), ('y', ' ')])
  with pytest.raises(DataError, match="line 12, column 'en': has 0 bytes"):
    pairs.prepare(['own.tsv'], 'own')
  made = pairs.prepare(['own.tsv'], 'own', skip_bad=True)
  assert sum(made.card.facts['sizes'].values()) == 10
  assert made.notes[0] == '2 row(s) that lack a sentence left out.'


@pytest.mark.parametrize(
  ('rows', 'kwargs', 'message'),
  (
    (TEN, {'source': 'fr'}, '--source=fr is not allowed: own.tsv has the columns en'),
    (TEN, {'source': 'de'}, '--source and --target are both de'),
    (TEN, {'test': 0}, '--test=0 is not allowed'),
    (TEN[:2], {}, 'own.tsv: 2 pairs are too few'),
    ([*TEN, ('w' * 5000, 'x')], {}, "line 12, column 'en': has 5000 bytes"),
  ),
)
def test_what_cannot_be_taken(rows, kwargs, message):
  with pytest.raises((ConfigError, DataError), match=message):
    pairs.prepare([written(rows)], 'own', **kwargs)
  assert not pathlib.Path('data/own').exists()


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    ({'languages': ['en']}, 'languages is'),
    ({'longest': [0, 1]}, 'longest is'),
    ({'vocabulary_sizes': [9]}, 'vocabulary_sizes is'),
    ({'sizes': {'train': 6, 'test': 2}}, 'splits are'),
    ({'length_counts': [1]}, 'length_counts are not those of the training pairs'),
    ({'bucket_lengths': [2]}, r'bucket_lengths are \[2\]'),
  ),
)
def test_cards_that_are_none(change, message):
  card = pairs.prepare([written(TEN)], 'own').card
  edited(card, lambda text: text['facts'].update(change))
  with pytest.raises(DataError, match=f'is no card of a prepared set .*{message}'):
    cards.find('own')
