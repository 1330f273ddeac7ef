"""CIFAR-10's four published forms on small generated files and on the real ones."""

import hashlib
import io
import pathlib
import pickle
import tarfile

import numpy as np
import pytest

from dlx.data.formats import checksums, cifar
from dlx.errors import DataError
from tests.dlx.data import real_data

ROWS = 4
FORMS = ('binary', 'python', 'binary archive', 'python archive')


@pytest.fixture
def unchecked(monkeypatch):
  """Small files stand in for the published ones."""
  monkeypatch.delitem(checksums.FILES, 'cifar10')


def batches(seed=0, rows=ROWS) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  result = {}
  for split in ('train', 'test'):
    for name in cifar.BATCHES[split]:
      result[name] = rng.integers(0, 256, (rows, 3073), np.uint8)
      result[name][:, 0] %= 10
  return result


def pickled(rows_NR: np.ndarray) -> bytes:
  return pickle.dumps(
    {
      b'batch_label': b'batch',
      b'labels': rows_NR[:, 0].tolist(),
      b'data': rows_NR[:, 1:],
      b'filenames': [b'name.png'] * len(rows_NR),
    },
    protocol=2,
  )


def write(folder: pathlib.Path, form: str, arrays) -> pathlib.Path:
  suffix, encode = (
    ('', pickled) if 'python' in form else ('.bin', lambda rows_NR: rows_NR.tobytes())
  )
  place = 'cifar-10-batches-' + ('py' if 'python' in form else 'bin')
  contents = {name + suffix: encode(rows_NR) for name, rows_NR in arrays.items()}
  folder.mkdir(parents=True, exist_ok=True)
  if 'archive' not in form:
    (folder / place).mkdir()
    for name, content in contents.items():
      (folder / place / name).write_bytes(content)
    return folder / place
  path = folder / f'cifar-10-{form.split()[0]}.tar.gz'
  with tarfile.open(path, 'w:gz', compresslevel=1) as tar:
    for name, content in contents.items():
      info = tarfile.TarInfo(f'{place}/{name}')
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return path


def read(*args, **kwargs):
  """What is read, where there is something to read."""
  loaded = cifar.read(*args, **kwargs)
  assert loaded is not None
  return loaded


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('place', ['', 'cifar10', 'cifar10/raw'])
def test_every_form_in_every_place(tmp_path, unchecked, form, place):
  arrays = batches()
  where = write(tmp_path / place, form, arrays)
  train = read(tmp_path, 'train', rows=ROWS)
  test = read(tmp_path, 'test', rows=ROWS)
  assert train.data['image'].shape == (5 * ROWS, 32, 32, 3)
  assert train.data['image'].dtype == np.uint8
  assert train.data['label'].dtype == np.int32
  want = np.concatenate([arrays[name][:, 0] for name in cifar.BATCHES['train']])
  np.testing.assert_array_equal(train.data['label'], want)
  np.testing.assert_array_equal(test.data['label'], arrays['test_batch'][:, 0])
  # Pixel (y, x) of channel c is byte 1 + 1024 c + 32 y + x of its row.
  row, y, x, c = 3, 5, 17, 2
  assert (
    test.data['image'][row, y, x, c]
    == arrays['test_batch'][row, 1 + 1024 * c + 32 * y + x]
  )
  assert train.origin['path'] == str(where) and train.origin['size'] == 5 * ROWS
  assert len(train.origin['files']) == 5


def test_batches_in_the_folder_itself(tmp_path, unchecked):
  place = write(tmp_path, 'binary', batches())
  place.rename(tmp_path / 'cifar10')
  for data_dir in (tmp_path, tmp_path / 'cifar10'):
    assert read(data_dir, 'test', rows=ROWS).origin['size'] == ROWS


def test_an_archive_beside_a_half_unpacked_folder(tmp_path, unchecked):
  arrays = batches()
  place = write(tmp_path, 'binary', arrays)
  (place / 'test_batch.bin').unlink()
  with pytest.raises(DataError, match='lacks test_batch.bin'):  # With nothing better.
    read(tmp_path, 'test', rows=ROWS)
  archive = write(tmp_path, 'python archive', arrays)
  assert read(tmp_path, 'test', rows=ROWS).origin['path'] == str(archive)


def test_a_folder_in_a_folder_of_its_name(tmp_path, unchecked):
  """As some archivers unpack."""
  inner = write(tmp_path / 'cifar-10-batches-bin', 'binary', batches())
  found = read(tmp_path, 'train', rows=ROWS)
  assert found.origin['path'] == str(inner)


def test_nothing_there(tmp_path, monkeypatch):
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)
  assert cifar.read(tmp_path, 'train') is None
  assert cifar.read(None, 'train') is None


def test_truncated_binary(tmp_path, unchecked):
  place = write(tmp_path, 'binary', batches())
  path = place / 'data_batch_3.bin'
  path.write_bytes(path.read_bytes()[:-1])
  size = ROWS * 3073
  with pytest.raises(
    DataError, match=rf'batch_3.bin: expected {size} .*found {size - 1}'
  ):
    read(tmp_path, 'train', rows=ROWS)


def test_truncated_pickle(tmp_path, unchecked):
  place = write(tmp_path, 'python', batches())
  path = place / 'test_batch'
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(DataError, match=r'test_batch: .*5000 bytes'):
    read(tmp_path, 'test', rows=ROWS)


@pytest.mark.parametrize('form', FORMS[2:])
def test_truncated_archive(tmp_path, unchecked, form):
  path = write(tmp_path, form, batches())
  path.write_bytes(path.read_bytes()[:40000])
  with pytest.raises(DataError, match=rf'{path.name}: truncated.*40000 bytes'):
    read(tmp_path, 'train', rows=ROWS)


@pytest.mark.parametrize(
  'batch',
  [
    {'data': np.zeros((3, 3072), np.uint8), 'labels': [0, 1, 2]},
    {'data': np.zeros((4, 3072), np.float32), 'labels': [0, 1, 2, 3]},
    {'data': np.zeros((4, 3072), np.uint8), 'labels': [0, 1, 2]},
    {'data': np.zeros((4, 3072), np.uint8)},
    [1, 2, 3],
  ],
)
def test_another_pickle(batch):
  with pytest.raises(DataError, match='file: '):
    cifar.parse_python(pickle.dumps(batch), 'file', ROWS)


def test_lacking_batch(tmp_path, unchecked):
  place = write(tmp_path, 'binary', batches())
  (place / 'data_batch_2.bin').unlink()
  with pytest.raises(DataError, match=r'cifar-10-batches-bin: lacks data_batch_2.bin'):
    read(tmp_path, 'train', rows=ROWS)


def test_label_out_of_range(tmp_path, unchecked):
  arrays = batches()
  arrays['test_batch'][1, 0] = 11
  write(tmp_path, 'binary', arrays)
  with pytest.raises(DataError, match='test_batch.bin: .* 0 to 9, found 11 in row 1'):
    read(tmp_path, 'test', rows=ROWS)


@pytest.mark.parametrize('label', (256, -1))
def test_label_of_a_pickle_is_no_byte(label):
  """256 would be class 0 as a byte."""
  batch = {'data': np.zeros((2, 3072), np.uint8), 'labels': [3, label]}
  with pytest.raises(DataError, match=f'batch: .* found {label} in row 1'):
    cifar.parse_python(pickle.dumps(batch, protocol=2), 'batch', 2)


@pytest.mark.parametrize('form', FORMS)
def test_other_pixels_than_the_published_ones(tmp_path, form):
  write(tmp_path, form, batches())
  with pytest.raises(DataError, match=r'test_batch.*not the published file'):
    read(tmp_path, 'test', rows=ROWS)


def test_the_published_pickle_is_accepted_by_its_md5(tmp_path, monkeypatch):
  place = write(tmp_path, 'python', batches())
  md5 = hashlib.md5((place / 'test_batch').read_bytes()).hexdigest()
  monkeypatch.setitem(checksums.CIFAR10_PICKLES_MD5, 'test_batch', md5)
  loaded = read(tmp_path, 'test', rows=ROWS)
  assert loaded.origin['files'][0]['verified']


class TestPublished:
  def test_test_batch_in_binary_and_written_as_python(self, tmp_path):
    folder = real_data.folder('cifar-10-batches-bin')
    binary = read(folder, 'test')
    assert np.bincount(binary.data['label']).tolist() == [1000] * 10
    assert binary.origin['files'][0]['verified']
    raw = pathlib.Path(folder, 'cifar-10-batches-bin/test_batch.bin').read_bytes()
    place = tmp_path / 'cifar-10-batches-py'
    place.mkdir()
    rows_NR = cifar.parse_binary(raw, 'f')
    (place / 'test_batch').write_bytes(pickled(rows_NR))
    python = read(tmp_path, 'test')
    assert python.origin['files'][0]['verified']
    for field, value in binary.data.items():
      np.testing.assert_array_equal(python.data[field], value)
