"""Texts by name: pydoc of this Python, tiny shakespeare from files."""

import numpy as np
import pytest

from dlx.data.formats import checksums, text
from dlx.data.sets import characters
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data


def test_round_trip():
  string = 'def f(x):\n  return x ** 2\n'
  tokens = characters.encode(string, characters.PRINTABLE)
  assert tokens.dtype == np.uint8
  assert characters.decode(tokens, characters.PRINTABLE) == string
  assert tokens[:3].tolist() == [1 + ord(c) - 32 for c in 'def']


def test_a_token_outside_the_vocabulary_is_no_character():
  """-1 is not the last one."""
  assert characters.decode([0, -1, 2], 'ab') == 'a\ufffd\ufffd'


def test_printable_is_ascii_in_order():
  assert len(characters.PRINTABLE) == 96
  assert list(characters.PRINTABLE) == sorted(characters.PRINTABLE)


def test_a_character_outside_the_vocabulary():
  with pytest.raises(DataError, match="'\xe9' is not allowed: .* one of the 96"):
    characters.encode('caf\xe9', characters.PRINTABLE)


def test_pydoc_has_its_declared_size_and_says_which_python():
  data = characters.characters('pydoc')
  loaded = {s.split: read(s) for s in (data.train, data.validation)}
  for split, size in characters.PYDOC_COUNTS.items():
    assert loaded[split].data['token'].shape == (size,)
    assert loaded[split].data['token'].max() < len(data.vocabulary)
    assert loaded[split].origin['kind'] == 'embedded'
    assert loaded[split].origin['python'].startswith('3.')
  both = ''.join(
    data.vocabulary.decode(loaded[split].data['token'])
    for split in ('train', 'validation')
  )
  assert characters.pydoc_text().startswith(both)
  # English sentences about Python, not bytes.
  assert both.count(' the ') > 2000 and both.count('Python') > 100


def test_pydoc_validates_on_paragraphs_that_were_not_trained_on():
  string = characters.pydoc_text()
  cut = characters.PYDOC_COUNTS['train']
  end = cut + characters.PYDOC_COUNTS['validation']
  # Characters that are left out can make two paragraphs equal, none of them long.
  trained = set(string[:cut].split('\n\n'))
  again = [p for p in string[cut:end].split('\n\n')[1:] if len(p) > 40 and p in trained]
  assert not again


def test_pydoc_too_short(monkeypatch):
  monkeypatch.setattr(characters, 'pydoc_text', lambda: 'short')
  with pytest.raises(DataError, match='at least 360000 characters, found 5 in Python'):
    characters.characters('pydoc').train.read(None)


def test_tiny_shakespeare_of_a_small_file(tmp_path, monkeypatch):
  monkeypatch.delitem(checksums.FILES, 'tiny_shakespeare')
  monkeypatch.setattr(text, 'SHAKESPEARE_COUNTS', {'train': 9, 'validation': 2})
  (tmp_path / 'tinyshakespeare').mkdir()
  (tmp_path / 'tinyshakespeare' / 'input.txt').write_text('To be, or:\n')
  data = characters.characters('tiny_shakespeare')
  parts = [read(s, tmp_path).data['token'] for s in (data.train, data.validation)]
  assert [data.vocabulary.decode(p) for p in parts] == ['To be, or', ':\n']


def test_the_published_tiny_shakespeare():
  folder = real_data.folder('tinyshakespeare')
  data = characters.characters('tiny_shakespeare')
  tokens = read(data.train, folder).data['token']
  assert tokens.shape == (1003854,)
  assert set(tokens.tolist()) <= set(range(65))
  assert data.vocabulary.decode(tokens[:14]) == 'First Citizen:'


def test_unknown_name():
  with pytest.raises(
    ConfigError, match="'mnist' holds labelled images, not .*: must be one of pydoc"
  ):
    characters.characters('mnist')
