"""SST-2, tiny shakespeare, multi30k: small generated files, then the published ones."""

import gzip

import numpy as np
import pytest

from dlx.data.formats import checksums, text
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data


@pytest.fixture
def unchecked(monkeypatch):
  """Small files stand in for the published ones."""
  for name in ('sst2', 'tiny_shakespeare', 'multi30k'):
    monkeypatch.delitem(checksums.FILES, name)
  monkeypatch.setattr(text, 'SST2_COUNTS', {'train': 3, 'validation': 2, 'test': 1})
  monkeypatch.setattr(text, 'SST2_NUM_PHRASES', 2)
  monkeypatch.setattr(text, 'MULTI30K_COUNTS', {'train': 2, 'validation': 1, 'test': 1})
  monkeypatch.setattr(text, 'SHAKESPEARE_COUNTS', {'train': 9, 'validation': 1})


def write(path, content: str):
  path.parent.mkdir(parents=True, exist_ok=True)
  raw = content.encode()
  path.write_bytes(gzip.compress(raw) if path.suffix == '.gz' else raw)
  return path


class TestSst2:
  def test_sentences(self, tmp_path, unchecked):
    # A sentence may hold a mark that str.splitlines takes for the end of a line.
    write(tmp_path / 'sst2/stsa.binary.train', '1 good .\n0 bad\u2028 one\n1 a\x85b\n')
    loaded = text.sst2('train', tmp_path)
    assert loaded.data['text'] == ['good .', 'bad\u2028 one', 'a\x85b']
    assert loaded.data['label'].tolist() == [1, 0, 1]
    assert loaded.data['label'].dtype == np.int32
    assert loaded.origin['size'] == 3

  def test_phrases(self, tmp_path, unchecked):
    write(tmp_path / 'sst2/glue_train.tsv', 'sentence\tlabel\nhide new \t0\nfine \t1\n')
    loaded = text.sst2('train', tmp_path, phrases=True)
    assert loaded.data['text'] == ['hide new ', 'fine ']
    assert loaded.data['label'].tolist() == [0, 1]

  @pytest.mark.parametrize(
    ('content', 'message'),
    [
      ('1 good\n0 bad\n', 'train: expected 3 lines with a label, found 2'),
      ('1 good\n0 bad\n2 odd\n', "line 3: expected label 0 or 1, found '2'"),
      ('', 'expected 3 lines'),
    ],
  )
  def test_other_files(self, tmp_path, unchecked, content, message):
    write(tmp_path / 'sst2/stsa.binary.train', content)
    with pytest.raises(DataError, match=message):
      text.sst2('train', tmp_path)

  def test_other_phrases(self, tmp_path, unchecked):
    path = write(tmp_path / 'sst2/glue_train.tsv', 'sentence\tlabel\na\t0\tx\nb\t1\n')
    with pytest.raises(DataError, match='line 2: expected 2 columns, found 3'):
      text.sst2('train', tmp_path, phrases=True)
    write(path, 'a\t0\nb\t1\n')
    with pytest.raises(DataError, match='expected the header'):
      text.sst2('train', tmp_path, phrases=True)

  def test_not_text(self, tmp_path, unchecked):
    path = write(tmp_path / 'sst2/stsa.binary.test', '')
    path.write_bytes(b'1 \xff\xfe\n')
    with pytest.raises(DataError, match='not UTF-8'):
      text.sst2('test', tmp_path)

  def test_splits(self, tmp_path):
    with pytest.raises(ConfigError, match='train, validation, test'):
      text.sst2('dev', tmp_path)
    with pytest.raises(ConfigError, match='phrases'):
      text.sst2('test', tmp_path, phrases=True)

  def test_other_content_than_the_published_one(self, tmp_path):
    write(tmp_path / 'sst2/stsa.binary.test', '1 good\n')
    with pytest.raises(DataError, match='not the published file'):
      text.sst2('test', tmp_path)

  def test_missing(self, tmp_path):
    with pytest.raises(DataError, match=r'sst2 \(test\) not found.*stsa.binary.test'):
      text.sst2('test', tmp_path)


class TestMulti30k:
  @pytest.mark.parametrize('suffix', ['', '.gz'])
  def test_pairs(self, tmp_path, unchecked, suffix):
    write(tmp_path / f'multi30k/train.en{suffix}', 'A dog.\nA cat.\n')
    write(tmp_path / f'multi30k/train.de{suffix}', 'Ein Hund.\nEine Kätze.\n')
    loaded = text.multi30k('train', tmp_path)
    assert loaded.data == {
      'en': ['A dog.', 'A cat.'],
      'de': ['Ein Hund.', 'Eine Kätze.'],
    }
    assert len(loaded.origin['files']) == 2

  def test_a_lost_line(self, tmp_path, unchecked):
    write(tmp_path / 'multi30k/train.en', 'A dog.\nA cat.\n')
    write(tmp_path / 'multi30k/train.de', 'Ein Hund.\n')
    with pytest.raises(DataError, match=r'train.de: expected 2 lines, found 1'):
      text.multi30k('train', tmp_path)

  def test_truncated(self, tmp_path):
    path = write(tmp_path / 'multi30k/train.en.gz', 'A dog.\nA cat.\n')
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
      DataError, match=r'en.gz: truncated gzip: expected 1801238 bytes'
    ):
      text.multi30k('train', tmp_path)


class TestTinyShakespeare:
  @pytest.mark.parametrize('folder', ['tiny_shakespeare', 'tinyshakespeare'])
  def test_split(self, tmp_path, unchecked, folder):
    write(tmp_path / folder / 'input.txt', 'abcdefghij')
    data = text.tiny_shakespeare()
    assert data.train.size == 9
    assert bytes(data.train.read(tmp_path).data['character']) == b'abcdefghi'
    assert bytes(data.validation.read(tmp_path).data['character']) == b'j'

  def test_another_length(self, tmp_path, unchecked):
    write(tmp_path / 'tiny_shakespeare/input.txt', 'abcdefghijk')
    with pytest.raises(DataError, match='expected 10 characters, found 11'):
      text.read_tiny_shakespeare('train', tmp_path)


class TestPublished:
  def test_sst2(self):
    folder = real_data.folder('sst2')
    for split, positive in (('train', 3610), ('validation', 444), ('test', 909)):
      loaded = text.sst2(split, folder)
      assert loaded.data['label'].sum() == positive
      assert loaded.origin['files'][0]['verified']
    loaded = text.sst2('train', folder, phrases=True)
    assert (len(loaded.data['text']), loaded.data['label'].sum()) == (67349, 37569)

  def test_multi30k(self):
    folder = real_data.folder('multi30k')
    for split, size in text.MULTI30K_COUNTS.items():
      loaded = text.multi30k(split, folder)
      assert len(loaded.data['en']) == len(loaded.data['de']) == size
      assert all(f['verified'] for f in loaded.origin['files'])
      assert all(loaded.data['en']) and all(loaded.data['de'])

  def test_tiny_shakespeare(self):
    folder = real_data.folder('tinyshakespeare')
    data = text.tiny_shakespeare()
    train = data.train.read(folder).data['character']
    validation = data.validation.read(folder).data['character']
    assert (len(train), len(validation)) == (data.train.size, data.validation.size)
    # nanoGPT's cut: the first 90 % of the characters, rounded down.
    assert len(train) == int((len(train) + len(validation)) * 0.9)
    assert bytes(train[:14]) == b'First Citizen:'
    symbols = sorted({*train.tolist(), *validation.tolist()})
    assert ''.join(map(chr, symbols)) == data.vocabulary
