"""MNIST's idx format on small generated files and on the published ones."""

import gzip
import struct

import numpy as np
import pytest

from dlx.data.formats import idx
from dlx.errors import DataError
from tests.dlx.data import real_data

SPELLINGS = [
  '{}-{}-idx{}-ubyte',
  '{}-{}-idx{}-ubyte.gz',
  '{}-{}.idx{}-ubyte',
  '{}-{}.idx{}-ubyte.gz',
]


def encode(array) -> bytes:
  array = np.asarray(array, np.uint8)
  head = b'\0\0\x08' + bytes([array.ndim])
  return head + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def write_set(folder, images, labels, split='train', spelling=SPELLINGS[0]):
  folder.mkdir(parents=True, exist_ok=True)
  prefix = {'train': 'train', 'test': 't10k'}[split]
  for what, rank, array in (('images', 3, images), ('labels', 1, labels)):
    path = folder / spelling.format(prefix, what, rank)
    content = encode(array)
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)
  return folder


def small(n=7, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n) % 10


def read(*args, **kwargs):
  """What is read, where there is something to read."""
  loaded = idx.read(*args, **kwargs)
  assert loaded is not None
  return loaded


class TestParse:
  @pytest.mark.parametrize('shape', [(3,), (2, 3), (2, 3, 4), (0, 3)])
  def test_round_trip(self, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(idx.parse(encode(array), 'f'), array)

  def test_by_hand(self):
    payload = bytes.fromhex('00000802 00000002 00000003 010203040506')
    assert idx.parse(payload, 'f').tolist() == [[1, 2, 3], [4, 5, 6]]
    assert idx.expected_bytes(payload) == 18

  def test_no_copy_is_made(self):
    payload = encode(np.zeros((100, 28, 28)))
    assert not idx.parse(payload, 'f').flags.owndata

  @pytest.mark.parametrize(
    'payload',
    [b'', b'\0\0\x08', b'<html>', b'\0\0\x0d\x01' + bytes(8), b'\0\0\x08\x03\0'],
  )
  def test_another_format(self, payload):
    with pytest.raises(DataError, match=rf'file.*idx.*found {len(payload)} bytes'):
      idx.parse(payload, 'file')

  def test_sizes_beyond_32_bits_do_not_wrap(self):
    payload = b'\0\0\x08\x03' + struct.pack('>3I', 2**31, 2**31, 4)
    assert idx.expected_bytes(payload) == 16 + 2**64


class TestRead:
  @pytest.mark.parametrize('spelling', SPELLINGS)
  @pytest.mark.parametrize('split', ['train', 'test'])
  def test_every_spelling(self, tmp_path, spelling, split):
    images, labels = small()
    folder = write_set(tmp_path / 'own', images, labels, split, spelling)
    loaded = read(tmp_path, 'own', split)
    np.testing.assert_array_equal(loaded.data['image'], images[..., None])
    np.testing.assert_array_equal(loaded.data['label'], labels)
    assert loaded.data['image'].dtype == np.uint8
    assert loaded.data['label'].dtype == np.int32
    assert loaded.origin['kind'] == 'raw' and loaded.origin['size'] == 7
    assert loaded.origin['path'] == str(folder)
    assert [f['verified'] for f in loaded.origin['files']] == [False, False]
    other = {'train': 'test', 'test': 'train'}[split]
    assert idx.read(tmp_path, 'own', other) is None

  @pytest.mark.parametrize(
    ('place', 'data_dir'),
    [('own', '.'), ('own/raw', '.'), ('own', 'own'), ('Alias/raw', '.')],
  )
  def test_every_place(self, tmp_path, place, data_dir):
    write_set(tmp_path / place, *small())
    loaded = read(tmp_path / data_dir, 'own', 'train', names=('Alias',))
    assert loaded.origin['path'] == str(tmp_path / place)

  def test_nothing_there(self, tmp_path, monkeypatch):
    monkeypatch.delenv('DLX_DATA_DIR', raising=False)
    assert idx.read(tmp_path, 'own', 'train') is None
    assert idx.read(None, 'own', 'train') is None

  def test_half_a_set_is_an_error_not_a_miss(self, tmp_path):
    folder = write_set(tmp_path / 'own', *small())
    (folder / 'train-labels-idx1-ubyte').unlink()
    with pytest.raises(DataError, match=r'own: holds .* lacks train-labels-idx1-ubyte'):
      read(tmp_path, 'own', 'train')

  @pytest.mark.parametrize('spelling', SPELLINGS[:2])
  @pytest.mark.parametrize('what', ['images-idx3', 'labels-idx1'])
  def test_truncated_names_file_expected_and_found(self, tmp_path, spelling, what):
    images, labels = small()
    folder = write_set(tmp_path / 'own', images, labels, spelling=spelling)
    (path,) = folder.glob(f'train-{what}*')
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match='truncated') as caught:
      read(tmp_path, 'own', 'train')
    size = 16 + 7 * 28 * 28 if 'images' in what else 8 + 7
    assert f'{path}: ' in str(caught.value)
    assert f'expected {size} bytes' in str(caught.value)
    assert f'({len(whole) - 3} in the file)' in str(caught.value)

  def test_too_long(self, tmp_path):
    folder = write_set(tmp_path / 'own', *small())
    with (folder / 'train-labels-idx1-ubyte').open('ab') as f:
      f.write(b'more')
    with pytest.raises(DataError, match='too long: expected 15 bytes, found 19'):
      read(tmp_path, 'own', 'train')

  @pytest.mark.parametrize(
    ('images', 'labels', 'message'),
    [
      (np.zeros((3, 32, 32)), np.zeros(3), 'expected images of 28x28, found 32x32'),
      (np.zeros((3, 28)), np.zeros(3), 'expected images of 28x28, found 28'),
      (np.zeros((3, 28, 28)), np.zeros(4), r'one label an image \(3'),
      (np.zeros((3, 28, 28)), np.zeros((3, 1)), r'labels of shape \[3, 1\]'),
      (np.zeros((3, 28, 28)), np.array([0, 10, 1]), 'labels 0 to 9, found 10 in row 1'),
      (np.zeros((0, 28, 28)), np.zeros(0), 'at least 1'),
    ],
  )
  def test_another_shape(self, tmp_path, images, labels, message):
    write_set(tmp_path / 'own', images, labels)
    with pytest.raises(DataError, match=message):
      read(tmp_path, 'own', 'train')

  def test_a_set_called_mnist_must_be_mnist(self, tmp_path):
    write_set(tmp_path / 'mnist', *small())
    with pytest.raises(DataError, match='not the published file.*another name'):
      read(tmp_path, 'mnist', 'train')


class TestMnist:
  def test_counts_and_balance(self):
    folder = real_data.folder('mnist')
    train = read(folder, 'mnist', 'train')
    test = read(folder, 'mnist', 'test')
    assert train.data['image'].shape == (60000, 28, 28, 1)
    # Counts of the digits as published with the set.
    assert np.bincount(train.data['label']).tolist() == [
      5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert np.bincount(test.data['label']).tolist() == [
      980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert all(f['verified'] for s in (train, test) for f in s.origin['files'])

  def test_other_compression_is_accepted(self, tmp_path):
    folder = real_data.folder('mnist')
    (tmp_path / 'mnist').mkdir()
    for what in ('images-idx3', 'labels-idx1'):
      name = f't10k-{what}-ubyte'
      with gzip.open(f'{folder}/mnist/{name}.gz') as f:
        payload = f.read()
      packed = what == 'images-idx3'
      path = tmp_path / 'mnist' / (name + ('.gz' if packed else ''))
      path.write_bytes(gzip.compress(payload, 1) if packed else payload)
    loaded = read(tmp_path, 'mnist', 'test')
    assert loaded.origin['size'] == 10000
    assert all(f['verified'] for f in loaded.origin['files'])
