"""Text files become a set of characters, in order; the end validates."""

import json

import numpy as np
import pytest

from dlx.data.prepare import corpus
from dlx.data.sets import characters
from dlx.data.sets.facts import check
from dlx.errors import ConfigError, DataError
from tests.dlx.data.text import tokenizer_files


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))


def prepared(tmp_path, *texts: str | bytes, name='own', **kwargs):
  paths = []
  for i, text in enumerate(texts):
    paths.append(tmp_path / f'{i}.txt')
    paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
  return corpus.prepare(paths, name, **kwargs)


def read_back(name='own') -> tuple[str, str]:
  data = characters.characters(name)
  train, validation = (
    data.vocabulary.decode(s.read(None).data['token'])
    for s in (data.train, data.validation)
  )
  return train, validation


def test_files_in_order_with_line_ends_made_one(tmp_path):
  first, second = 'b\u00e9\r\n' * 100, b'\xef\xbb\xbf' + b'a\rz\n' * 100
  made = prepared(tmp_path, first, second, validation=0.25)
  text = 'b\u00e9\n' * 100 + '\n' + 'a\nz\n' * 100
  train, validation = read_back()
  assert train + validation == text
  assert len(validation) == round(len(text) / 4) == 175
  assert made.card.facts['vocabulary'] == '\nabz\u00e9'
  assert characters.characters('own').train.shapes['token'].dtype == np.uint8


def test_characters_of_validation_alone_are_told(tmp_path):
  made = prepared(tmp_path, 'a' * 1900 + 'q' * 100)
  assert made.notes == ["1 character(s) stand in validation alone: 'q'."]


@pytest.mark.parametrize(('size', 'dtype'), ((256, np.uint8), (257, np.uint16)))
def test_the_dtype_holds_the_vocabulary(tmp_path, size, dtype):
  text = ''.join(map(chr, range(1000, 1000 + size))) * 10
  prepared(tmp_path, text)
  assert characters.characters('own').train.shapes['token'].dtype == dtype
  assert ''.join(read_back()) == text
  assert characters.encode(text, text[:size]).dtype == dtype
  assert characters.token_dtype('a' * 65537) == np.int32


@pytest.mark.parametrize('tokens', ('words', 'bpe'))
def test_words_and_byte_pairs_are_learnt_from_what_trains(tmp_path, tokens):
  text = 'so it goes, and so it was. ' * 200 + 'quite other words come here! ' * 30
  made = prepared(tmp_path, text, tokens=tokens, vocab_size=300)
  data, facts = characters.characters('own'), made.card.facts
  cut = len(text) - round(0.1 * len(text))
  assert facts['sizes']['train'] < cut  # A token is more than a character.
  train, validation = read_back()
  assert train == text[:cut]
  if tokens == 'bpe':
    assert validation == text[cut:]
    each = len(text[cut:]) / facts['sizes']['validation']
    assert data.bytes_per_token == pytest.approx(each, rel=1e-12)
  else:
    assert '\ufffd' in validation and data.bytes_per_token is None
    assert any('that the vocabulary lacks: train 0.0 %' in x for x in made.notes)
  assert any('of the 300 tokens that were asked for' in x for x in made.notes)
  assert len(data.vocabulary) < 300
  # The same again from the card alone, as a run that is opened elsewhere has it.
  assert characters.of_facts(json.loads(json.dumps(facts))) == data.vocabulary


def test_tokens_that_cannot_be(tmp_path):
  (tmp_path / 'a.txt').write_text('ab ' * 999)
  for kwargs, message in (
    ({'tokens': 'syllables'}, '--tokens=syllables'),
    ({'vocab_size': 300}, '--tokens=words or --tokens=bpe'),
    ({'tokens': 'bpe', 'vocab_size': 12}, 'vocab_size=12'),
  ):
    with pytest.raises(ConfigError, match=message):
      corpus.prepare([tmp_path / 'a.txt'], 'own', **kwargs)


@pytest.mark.parametrize(
  'facts',
  (
    {'tokens': 'bpe', 'merges': [[97, 500]]},
    {'tokens': 'bpe', 'merges': [[97]]},
    {'tokens': 'bpe', 'merges': [['a', 98]]},
    {'tokens': 'words', 'words': []},
    {'tokens': 'words', 'words': ['a', 'a']},
    {'tokens': 'morphemes'},
    {'tokens': 'bpe'},
    {'tokens': 'bpe', 'merges': [], 'validation_bytes': 0},
  ),
)
def test_a_card_that_contradicts_itself(tmp_path, facts):
  prepared(tmp_path, 'ab ' * 999, tokens='bpe', vocab_size=257)
  path = tmp_path / 'data' / 'own' / 'card.json'
  card = json.loads(path.read_text())
  card['facts'] = {
    k: v
    for k, v in card['facts'].items()
    if k not in ('tokens', 'merges', 'validation_bytes')
  } | facts
  path.write_text(json.dumps(card))
  with pytest.raises(DataError, match='own'):
    characters.characters('own')


@pytest.mark.parametrize(
  ('texts', 'kwargs', 'message'),
  (
    (('',), {}, '0.txt: is empty'),
    (('a' * 150,), {}, '150 characters are too few'),
    (('a' * 999, b'\xff' * 999), {}, '1.txt: line 1: byte 0 is not utf-8'),
    ((b'a\0' * 999,), {}, 'line 1: holds a zero character'),
  ),
)
def test_what_cannot_be_taken(tmp_path, texts, kwargs, message):
  with pytest.raises(DataError, match=message):
    prepared(tmp_path, *texts, **kwargs)


def test_a_file_twice_or_none(tmp_path):
  (tmp_path / 'a.txt').write_text('a' * 9999)
  (tmp_path / 'b.txt').symlink_to(tmp_path / 'a.txt')
  with pytest.raises(DataError, match='b.txt: is given twice'):
    corpus.prepare([tmp_path / 'a.txt', tmp_path / 'b.txt'], 'own')
  with pytest.raises(DataError, match='c.txt: cannot be read'):
    corpus.prepare([tmp_path / 'c.txt'], 'own')
  with pytest.raises(ConfigError, match='--validation=0.9'):
    corpus.prepare([tmp_path / 'a.txt'], 'own', validation=0.9)


def test_a_tokenizer_file(tmp_path):
  """Its tokens, and bits a byte where they are the whole text."""
  path = tmp_path / 'tokenizer.json'
  path.write_bytes(tokenizer_files.characters('so ita.\n'))
  text = 'so it is a toast.\n' * 150
  made = prepared(tmp_path, text, tokenizer=path)
  data, facts = characters.characters('own'), made.card.facts
  assert facts['tokens'] == 'tokenizer' and facts['num_tokens'] == 9
  assert ''.join(read_back()) == text and data.vocabulary.unit == 'token'
  assert data.bytes_per_token == 1 and made.notes == []
  assert data.train.shapes['token'].dtype == np.uint8
  path.unlink()  # The card has all of it.
  assert characters.of_facts(json.loads(json.dumps(facts))) == data.vocabulary
  # What it lacks is lost: no bits a byte.
  path.write_bytes(tokenizer_files.characters('so it'))
  made = prepared(tmp_path, text, tokenizer=path, name='other')
  assert characters.characters('other').bytes_per_token is None
  assert made.notes[0].startswith('The tokens are not the whole text')
  for kwargs, message in (
    ({'tokens': 'bpe'}, '--tokens=bpe is not allowed with --tokenizer'),
    ({'vocab_size': 9}, '--vocab_size=9 is not allowed with --tokenizer'),
  ):
    with pytest.raises(ConfigError, match=message):
      prepared(tmp_path, text, name='third', tokenizer=path, **kwargs)
  with pytest.raises(DataError, match='0.txt: is no tokenizer.json'):
    prepared(tmp_path, text, name='third', tokenizer=tmp_path / '0.txt')
  with pytest.raises(DataError, match='nowhere.json: cannot be read'):
    prepared(tmp_path, text, name='third', tokenizer=tmp_path / 'nowhere.json')


@pytest.mark.parametrize('change', ({'num_tokens': 0}, {'tokenizer': ''}))
def test_a_card_of_a_tokenizer_that_is_none(tmp_path, change):
  path = tmp_path / 'tokenizer.json'
  path.write_bytes(tokenizer_files.characters('ab '))
  made = prepared(tmp_path, 'ab ' * 999, tokenizer=path)
  with pytest.raises(ValueError, match='tokenizer is no text, or num_tokens'):
    check({**made.card.facts, **change}, made.card.shapes)
