"""Rows that are files: which rows, from what, and what is wrong with a file."""

import hashlib
import pickle

import numpy as np
import pytest

from dlx.data import lazy
from dlx.data.pictures import decode
from dlx.data.pictures.crops import Crop, random_box
from dlx.data.pictures.files import PictureFiles
from dlx.errors import DataError
from tests.dlx.data.pictures.photographs import write


def names(*paths: str) -> np.ndarray:
  """uint8 [N, L]."""
  longest = max(len(path.encode()) for path in paths)
  raw = b''.join(path.encode().ljust(longest, b'\0') for path in paths)
  return np.frombuffer(raw, np.uint8).reshape(len(paths), longest)


def of(root, *paths: str, crop=None) -> PictureFiles:
  sizes = [(root / path).stat().st_size for path in paths]
  return PictureFiles(
    str(root),
    names(*paths),
    np.array(sizes),
    size=16,
    short_side=18,
    crop=crop or Crop(),
  )


@pytest.fixture
def three(tmp_path) -> PictureFiles:
  paths = ('a/one.jpg', 'b/ü two.jpg', 'b/three.jpg')
  for i, path in enumerate(paths):
    write(tmp_path / path, i, width=60 + i, height=50)
  return of(tmp_path, *paths)


def test_rows_by_number_slice_and_mask(three):
  assert (three.shape, three.ndim, len(three)) == ((3, 16, 16, 3), 4, 3)
  every = np.asarray(three)
  assert every.dtype == np.uint8 and every.shape == three.shape
  assert not (every[0] == every[1]).all()
  none, some = np.array([], int), np.array([True, False, True])
  for index in (1, -1, slice(1, None), [2, 0], some, none):
    np.testing.assert_array_equal(three[index], every[index])


def test_picking_reads_nothing(three, tmp_path):
  part = lazy.pick(three, np.array([2, 0]))
  assert isinstance(part, PictureFiles)
  np.testing.assert_array_equal(part[:], three[:][[2, 0]])
  again = pickle.loads(pickle.dumps(part))
  np.testing.assert_array_equal(again[:], part[:])
  (tmp_path / 'a' / 'one.jpg').unlink()
  assert len(lazy.pick(three, np.array([0]))) == len(lazy.first(three, 1)) == 1
  assert lazy.first(three, None) is three and len(lazy.first(three, 9)) == 3


def test_a_row_in_training_is_a_part_by_seed_and_place(three):
  index, place = np.array([1, 1, 0]), np.array([5, 6, 5], np.uint64)
  found = three.drawn(index, 3, place)
  for i in range(3):
    # Whatever else is drawn beside it.
    np.testing.assert_array_equal(three.drawn(index[i:], 3, place[i:])[0], found[i])
  assert not (found[0] == found[1]).all()
  assert not (three.drawn(index, 4, place) == found).all()
  box = lambda width, height: random_box(three.crop, 3, 6, width, height)
  want = decode.part(three.read(1), box, 16, scaled=True)
  np.testing.assert_array_equal(found[1], want)
  whole = Crop(min_area=1, min_ratio=0.1, max_ratio=10, flip=False, method='bicubic')
  drawn = three.cropped(whole).drawn(np.array([0]), 3, np.array([0], np.uint64))
  assert drawn.shape == (1, 16, 16, 3)


@pytest.mark.parametrize('name', ['../x', '/etc/x', 'a/../../x', '', 'a\0b'])
def test_no_file_outside_of_the_folder(name, tmp_path):
  row = PictureFiles(
    str(tmp_path / 'in'),
    names(name or '\0'),
    np.array([1]),
    size=4,
    short_side=4,
    crop=Crop(),
  )
  with pytest.raises(DataError, match='must be a file in this folder'):
    row[0]


def test_what_is_wrong_with_a_file(three, tmp_path):
  path = tmp_path / 'a' / 'one.jpg'
  raw = path.read_bytes()
  place = np.array([0], np.uint64)
  faults = [
    (raw[:-1], f'one.jpg: has {len(raw) - 1} bytes, {len(raw)} when the set was'),
    (bytes(len(raw)), 'is no picture that can be read .*--skip_bad'),
  ]
  for bad, told in faults:
    path.write_bytes(bad)
    for read in (lambda: three[0], lambda: three.drawn(np.array([0]), 0, place)):
      with pytest.raises(DataError, match=told):
        read()
  path.unlink()
  with pytest.raises(DataError, match=r'cannot be read \(No such file'):
    three[0]


def test_sums_of_all_files(three, tmp_path):
  sums = [hashlib.sha256(three.read(row)).digest() for row in range(3)]
  sha256_ND = np.frombuffer(b''.join(sums), np.uint8).reshape(3, 32)
  assert three.damaged(sha256_ND) is None
  path = tmp_path / 'b' / 'three.jpg'
  raw = path.read_bytes()
  path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
  assert 'three.jpg: its sha256 is not that' in (three.damaged(sha256_ND) or '')
  path.write_bytes(raw[:-1])
  assert 'bytes' in (three.damaged(sha256_ND) or '')
