"""Text files become a set of characters, in order; the end validates."""

import numpy as np
import pytest

from dlx.data.prepare import corpus
from dlx.data.sets import characters
from dlx.errors import ConfigError, DataError


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
    characters.decode(s.read(None).data['token'], data.vocabulary)
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
