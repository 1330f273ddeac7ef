"""Labelled texts become a set: splits, classes, lengths and words by hand."""

import json
import os
import pathlib

import numpy as np
import pytest

from dlx.data.batches.buckets import Bucketed
from dlx.data.prepare import sentences as lib
from dlx.data.sets import cards, sentences
from dlx.data.sets.facts import check
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError
from tests.dlx.data.text import tokenizer_files

COLUMNS = {'text': 'x', 'label': 'y'}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def written(rows, name='own.tsv') -> str:
  """A file of rows (text, class)."""
  lines = ''.join(f'{y}\t{x}\n' for x, y in rows)
  pathlib.Path(name).write_text('y\tx\n' + lines)
  return name


def ten(k: int = 0) -> list[tuple[str, str]]:
  """Five texts of 1 to 5 words of each of two classes, all different."""
  return [(f'{y}{k} ' * i + y, y) for y in ('no', 'yes') for i in range(5)]


def folder(files, top='reviews') -> str:
  for name, text in files.items():
    path = pathlib.Path(top, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return top


def texts(name='own') -> dict[str, list[tuple[str, int]]]:
  """(text, label) of the rows of each split."""
  card = cards.find(name)
  assert card is not None
  found = {}
  for split in card.facts['sizes']:
    data = cards.source(card, split).read(None).data
    labels = np.asarray(data['label']).tolist()
    found[split] = list(zip(sentences.texts_of(data['text']), labels, strict=True))
  return found


class TestSplits:
  def test_shares_of_each_class_are_taken_from_one_file(self):
    made = lib.prepare([written(ten())], 'own', validation=0.25, **COLUMNS)
    facts = made.card.facts
    assert facts['classes'] == ['no', 'yes']
    assert facts['sizes'] == {'train': 6, 'validation': 2, 'test': 2}
    assert facts['counts'] == {'train': [3, 3], 'validation': [1, 1], 'test': [1, 1]}
    found = texts()
    every = sorted(row for rows in found.values() for row in rows)
    assert every == sorted((x, int(y == 'yes')) for x, y in ten())
    again = lib.prepare(['own.tsv'], 'again', validation=0.25, **COLUMNS)
    assert texts('again') == found and again.card.facts == facts
    lib.prepare(['own.tsv'], 'other', validation=0.25, seed=1, **COLUMNS)
    assert texts('other') != found

  def test_files_are_splits_by_their_names(self):
    paths = [
      written(ten(), 'my-train.tsv'),
      written([('b', 'no'), ('c', 'yes')], 'my-dev.tsv'),
      written([('d', 'yes')], 'my-test.tsv'),
    ]
    made = lib.prepare(paths, 'own', **COLUMNS)
    assert texts()['validation'] == [('b', 0), ('c', 1)]
    assert texts()['test'] == [('d', 1)]
    assert texts()['train'] == [(x, int(y == 'yes')) for x, y in ten()]
    assert 'No example of no is in the split test.' in made.notes

  def test_shards_of_training_and_a_test_file(self):
    paths = [written(ten(k), f'train-{k}-of-2.tsv') for k in (0, 1)]
    paths.append(written([('d', 'yes'), ('e', 'no')], 'test.tsv'))
    lib.prepare(paths, 'own', validation=0.2, **COLUMNS)
    assert {s: len(rows) for s, rows in texts().items()} == {
      'train': 16,
      'validation': 4,
      'test': 2,
    }

  def test_without_a_test_split_the_validation_split_is_that(self):
    paths = [written(ten(), 'train.tsv'), written([('b', 'no')], 'valid.tsv')]
    made = lib.prepare(paths, 'own', validation=0.2, **COLUMNS)
    assert texts()['test'] == [('b', 0)] and len(texts()['validation']) == 2
    assert made.notes[0].startswith('There is no test split')

  def test_a_folder_a_class(self):
    files = {f'{y}/{i}.txt': f'{x}\n  end' for i, (x, y) in enumerate(ten())}
    files |= {'yes/readme.md': 'x', 'unsup/0.txt': 'x'}
    where = folder(files)
    made = lib.prepare([where], 'own', leave_out=['unsup'], validation=0.25)
    assert made.card.facts['classes'] == ['no', 'yes']
    every = sorted(x for rows in texts().values() for x, _ in rows)
    assert every == sorted(f'{x} end' for x, _ in ten())
    assert made.notes[0] == '1 file(s) passed over: not .txt.'

  def test_a_folder_of_splits_and_one_of_files(self):
    files = {f'train/{y}/{i}.txt': x for i, (x, y) in enumerate(ten())}
    where = folder({**files, 'test/yes/0.txt': 'a', 'test/no/0.txt': 'b'}, 'a')
    lib.prepare([where], 'own', validation=0.2)
    assert texts()['test'] == [('b', 0), ('a', 1)]
    pathlib.Path('b').mkdir()
    written(ten(), 'b/train.tsv')
    written([('d', 'yes'), ('e', 'no')], 'b/test.tsv')
    pathlib.Path('b/README.md').write_text('x')
    lib.prepare(['b'], 'files', validation=0.2, **COLUMNS)
    assert texts('files')['test'] == [('d', 1), ('e', 0)]


class TestWhatShapesTheModel:
  def test_lengths_and_words_are_of_training_alone(self):
    rows = [('a', 'no'), ('a b.', 'yes'), ('b b', 'no'), ('c c c c', 'yes')]
    paths = [
      written(rows, 'train.tsv'),
      written([('q ' * 9, 'no'), ('r s', 'yes')], 'dev.tsv'),
      written([('t t t t t u', 'no'), ('v', 'yes')], 'test.tsv'),
    ]
    made = lib.prepare(paths, 'own', **COLUMNS)
    facts = made.card.facts
    # Of 1, 2, 3 and 4 tokens, as a full stop is one: a bucket each.
    assert facts['length_counts'] == [1, 1, 1, 1] and facts['lengths'] == [1, 2, 3, 4]
    assert facts['vocabulary_size'] == 2 + len('abc.')
    assert texts()['validation'] == [('q q q q', 0), ('r s', 1)]
    assert made.notes[:2] == [
      'validation: 1 text(s) are cut after 4 words.',
      'test: 1 text(s) are cut after 4 words.',
    ]
    data = sentences.sentences('own')
    assert (data.class_names, data.max_length) == (('no', 'yes'), 4)
    assert data.vocabulary(None).words == ('<pad>', '<unk>', 'c', 'b', 'a', '.')
    assert read(data.train).data['tokens'].tolist()[1] == [4, 3, 5, 0]
    assert read(data.test).data['tokens'].tolist() == [[1] * 4, [1, 0, 0, 0]]
    assert sentences.texts_of(read(data.test).data['text']) == ['t t t t', 'v']
    Bucketed(
      data.train, data.length_counts, lengths=data.lengths, batch_size=2, seed=0
    ).load()

  def test_long_texts_are_cut(self):
    rows = [('a b c, d', 'no'), ('a b', 'yes')] * 5
    rows = [(f'{x} {i}', y) for i, (x, y) in enumerate(rows)]
    made = lib.prepare([written(rows)], 'own', max_length=3, repeats='keep', **COLUMNS)
    found = {x for rows in texts().values() for x, _ in rows}
    assert 'a b c' in found and 'a b c, d 0' not in found
    assert max(made.card.facts['lengths']) == 3
    assert any(n.endswith('text(s) are cut after 3 words.') for n in made.notes)

  def test_buckets_have_like_numbers_of_texts(self):
    rows = [('w ' * (n % 20 + 1) + str(n), 'ny'[n % 2]) for n in range(200)]
    facts = lib.prepare([written(rows)], 'own', **COLUMNS).card.facts
    edges = [0, *facts['lengths']]
    counts = [sum(facts['length_counts'][a:b]) for a, b in zip(edges, edges[1:])]
    assert len(counts) == 4 and max(counts) < 1.3 * min(counts)
    assert sum(counts) == facts['sizes']['train']

  def test_numbers_as_classes_and_json_lines(self):
    rows = [{'x': f'{y} {i}', 'y': y} for y in (2, 10) for i in range(5)]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    pathlib.Path('own.jsonl').write_text(lines + '\n')
    facts = lib.prepare(['own.jsonl'], 'own', **COLUMNS).card.facts
    assert facts['classes'] == ['2', '10']

  def test_a_build_without_the_folder(self, tmp_path, monkeypatch):
    lib.prepare([written(ten())], 'own', **COLUMNS)
    data = sentences.sentences('own')
    record = json.loads(json.dumps({'train': read(data.train).origin}))
    monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
    with cards.recall(record):
      known = sentences.sentences('own')
    names = ('class_names', 'vocabulary_size', 'length_counts', 'lengths')
    assert all(getattr(known, k) == getattr(data, k) for k in names)


def test_rows_without_text_or_class(capfd):
  written([*ten(), ('', 'no'), ('z', '')])
  with pytest.raises(DataError, match='own.tsv: line 12: has no text: .*--skip_bad'):
    lib.prepare(['own.tsv'], 'own', **COLUMNS)
  made = lib.prepare(['own.tsv'], 'own', skip_bad=True, **COLUMNS)
  assert sum(made.card.facts['sizes'].values()) == 10
  assert made.notes[0] == '2 row(s) without text or class left out: own.tsv: line 12.'


def test_repeats_are_refused_dropped_or_kept():
  paths = [written(ten(), 'train.tsv'), written([ten()[3], ('k', 'yes')], 'test.tsv')]
  with pytest.raises(DataError, match='train.tsv: line 5 is also test.tsv: line 2'):
    lib.prepare(paths, 'own', validation=0.2, **COLUMNS)
  for repeats, size in (('drop', 7), ('keep', 8)):
    card = lib.prepare(paths, repeats, repeats=repeats, validation=0.2, **COLUMNS).card
    assert card.facts['sizes']['train'] == size
    assert sum(card.facts['length_counts']) == size


@pytest.mark.parametrize(
  ('rows', 'kwargs', 'message'),
  (
    (ten(), {'text': None}, '--text is missing: name the column of the texts'),
    (ten(), {'label': 'z'}, '--label=z is not allowed: own.tsv has the columns y, x'),
    (ten(), {'label': 'x'}, '--text and --label are both x'),
    (ten(), {'max_length': 0}, '--max_length=0 is not allowed'),
    (ten(), {'validation': 0.6}, '--validation=0.6 is not allowed'),
    (ten(), {'leave_out': ['no']}, 'expected two classes or more, found 1: yes'),
    (ten()[:7], {}, "class 'yes' has 2 example.s., must have at least 3"),
    (ten() + [('w' * 70000, 'no')], {}, 'own.tsv: line 12: 70000 bytes in . words'),
    ([('a', 'no')] * 9, {}, 'expected two classes or more'),
  ),
)
def test_what_cannot_be_taken(rows, kwargs, message):
  written(rows)
  with pytest.raises((ConfigError, DataError), match=message):
    lib.prepare(['own.tsv'], 'own', **{**COLUMNS, **kwargs})
  assert not pathlib.Path('data/own').exists()


@pytest.mark.parametrize(
  ('names', 'message'),
  (
    (('train.tsv', 'more.tsv'), 'more.tsv: its name must say of which split'),
    (('dev.tsv', 'test.tsv'), 'dev.tsv: no file is called train'),
    (('train-test.tsv', 'dev.tsv'), 'train-test.tsv: its name must say'),
    (('train.tsv', './train.tsv'), './train.tsv: is given twice'),
    (('train.tsv', 'test.tsv'), "test.tsv: line 3: class 'maybe' is not among"),
  ),
)
def test_files_that_do_not_go_together(names, message):
  for name in names:
    written([*ten(), ('z', 'no')], name)
  if 'maybe' in message:
    written([('k', 'yes'), ('z', 'maybe')], 'test.tsv')
  with pytest.raises(DataError, match=message):
    lib.prepare(list(names), 'own', **COLUMNS)


@pytest.mark.parametrize(
  ('files', 'message'),
  (
    ({'a/0.txt': 'x'}, 'expected two classes or more'),
    ({'a/0.txt': 'x', 'b/0.md': 'x'}, 'reviews/b: holds no text'),
    ({'a/0.txt': '', 'b/0.txt': 'x'}, 'reviews/a/0.txt: has no text'),
    ({'a/0.txt': 'x', 'A/0.txt': 'x'}, 'classes differ by case alone'),
    ({'0.txt': 'x'}, 'reviews: holds no folders'),
    ({'a/0.txt': 'x\0y', 'b/0.txt': 'x'}, 'a/0.txt: line 1: holds a zero character'),
  ),
)
def test_folders_that_cannot_be_taken(files, message):
  with pytest.raises(DataError, match=message):
    lib.prepare([folder(files)], 'own')


def test_a_folder_takes_no_columns():
  where = folder({'a/0.txt': 'x', 'b/0.txt': 'y'})
  with pytest.raises(ConfigError, match='is given alone, without --text and --label'):
    lib.prepare([where], 'own', **COLUMNS)


class TestTokens:
  """What a model reads, besides words."""

  def made(self, **kwargs):
    rows = [(f'{y}! ' * i + f'{y}.', y) for y in ('No', 'Yes') for i in range(5)]
    return lib.prepare([written(rows)], 'own', **{**COLUMNS, **kwargs})

  def check(self, facts, unit, start):
    """Texts come back, and lengths are those of the tokens."""
    data = sentences.sentences('own')
    words = data.vocabulary(None)
    assert words.unit == unit and len(words) == facts['vocabulary_size']
    for split, source in (('train', data.train), ('test', data.test)):
      token_NT = read(source).data['tokens']
      found = [words.decode(row) for row in token_NT]
      assert found == [text for text, _ in texts()[split]]
      assert start <= token_NT[token_NT != 0].min()
      assert token_NT.max() < data.vocabulary_size
    Bucketed(
      data.train, data.length_counts, lengths=data.lengths, batch_size=2, seed=0
    ).load()
    return data, words

  def test_characters(self):
    facts = self.made(tokens='characters').card.facts
    data, words = self.check(facts, 'character', 2)
    assert facts['tokens'] == 'characters' and 'N' in words.words
    assert words.encode('No?') == [*words.encode('No'), 1]  # No text has the mark.
    assert read(data.validation).origin['unknown_share'] == 0
    # A run may leave out those that are rare; of 80 characters of N there are many.
    assert len(sentences.sentences('own', min_count=9).vocabulary(None)) < len(words)

  def test_characters_that_are_too_many_are_cut(self):
    made = self.made(tokens='characters', max_length=7, repeats='keep')
    assert made.card.facts['lengths'][-1] == 7 == len(made.card.facts['length_counts'])
    assert 'train: 4 text(s) are cut after 7 characters.' in made.notes
    assert max(len(text) for text, _ in texts()['train']) == 7

  def test_byte_pairs(self):
    facts = self.made(tokens='bpe', vocab_size=261).card.facts
    assert len(facts['merges']) == 5
    data, words = self.check(facts, 'token', 2)
    assert words.decode(words.encode('caf\u00e9')) == 'caf\u00e9'
    with pytest.raises(ConfigError, match='min_count=2 is not allowed: own is cut'):
      sentences.sentences('own', min_count=2)

  def test_byte_pairs_that_are_too_many_are_cut_when_rows_are_read(self):
    made = self.made(tokens='bpe', vocab_size=256, max_length=7)
    assert 'train: 4 text(s) are cut after 7 tokens.' in made.notes
    data = sentences.sentences('own')
    assert data.max_length == 7 and data.lengths[-1] == 7
    found = read(data.train).data['tokens']
    words = data.vocabulary(None)
    whole = [text[:7] for text, _ in texts()['train']]
    assert [words.decode(row) for row in found] == whole

  def test_a_tokenizer_file(self):
    pathlib.Path('tokenizer.json').write_bytes(tokenizer_files.characters('NoYes!. '))
    facts = self.made(tokenizer='tokenizer.json').card.facts
    assert (facts['num_tokens'], facts['vocabulary_size']) == (9, 11)
    os.remove('tokenizer.json')
    data, words = self.check(facts, 'token', 3)
    assert list(words.encode('No?')) == [3, 4, 2]  # 2 is the unknown one of the file.
    with pytest.raises(ValueError, match='not as many tokens as are told'):
      check({**facts, 'vocabulary_size': 9}, cards.find('own').shapes)

  @pytest.mark.parametrize(
    ('kwargs', 'message'),
    (
      ({'tokens': 'syllables'}, '--tokens=syllables is not allowed'),
      ({'vocab_size': 9}, '--vocab_size is not allowed with --tokens=words: a run'),
      ({'tokens': 'bpe', 'vocab_size': 9}, 'vocab_size=9 is not allowed'),
    ),
  )
  def test_refuses(self, kwargs, message):
    with pytest.raises(ConfigError, match=message):
      self.made(**kwargs)
