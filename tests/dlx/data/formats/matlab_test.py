"""MATLAB files of versions 5 and 7.3: equal arrays, and what is refused."""

import pathlib
import sys

from etils import epath
import numpy as np
import pytest
from scipy import io as scipy_io

from dlx.data.formats import matlab
from dlx.data.prepare import pictures
from dlx.data.sets import images
from dlx.errors import DataError

X = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
Y = np.array([[1.5], [2], [3]])


def write_73(path, arrays, header=True):
  """As MATLAB does: axes from the last to the first, behind a header of its own."""
  h5py = pytest.importorskip('h5py')

  with h5py.File(path, 'w', userblock_size=512) as file:
    for name, x in arrays.items():
      file.create_dataset(name, data=x.T, compression='gzip' if x.ndim else None)
  if header:
    with open(path, 'r+b') as file:
      file.write(b'MATLAB 7.3 MAT-file, Platform: GLNXA64 '.ljust(124) + b'\0\2IM')


def read(path, names=('X', 'y')):
  return matlab.read(epath.Path(path), names)


@pytest.mark.parametrize('version', ('5', '7.3', '7.3, no header'))
def test_arrays_as_matlab_shows_them(tmp_path, version):
  arrays = {'X': X, 'y': Y, 'more': np.zeros((2, 2), np.int16)}
  if version == '5':
    scipy_io.savemat(tmp_path / 'a.mat', arrays, do_compression=True)
  else:
    write_73(tmp_path / 'a.mat', arrays, header=version == '7.3')
  found = read(tmp_path / 'a.mat')
  assert list(found) == ['X', 'y']
  np.testing.assert_array_equal(found['X'], X, strict=True)
  np.testing.assert_array_equal(found['y'], Y, strict=True)


def test_a_set_of_house_numbers(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10)).astype(np.uint8)
  arrays = {'X': x, 'y': np.array([[10, *range(1, 10)]], np.float64).T}
  write_73(tmp_path / 'train_32x32.mat', arrays)
  scipy_io.savemat(tmp_path / 'test_32x32.mat', {'X': 255 - x, 'y': arrays['y']})
  pictures.prepare([*map(str, tmp_path.glob('*.mat'))], 'own')
  data = images.images('own').train.read(None).data
  assert data['label'].tolist() == [*range(10)]
  np.testing.assert_array_equal(data['image'], x.transpose(3, 0, 1, 2))


def test_without_h5py_it_says_what_helps(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'h5py', None)
  path = tmp_path / 'a.mat'
  path.write_bytes(b'MATLAB 7.3 MAT-file, Platform: PCWIN64 '.ljust(512))
  with pytest.raises(DataError) as caught:
    read(path)
  assert str(caught.value) == (
    f'{path}: is a MATLAB file of version 7.3, which h5py reads: pip install -c '
    "constraints.txt -e '.[hdf5]', or save it in MATLAB by save(FILE, 'X', 'y', "
    '"-v7").'
  )


@pytest.mark.parametrize(
  ('what', 'told'),
  (
    ('lacks', 'y is not in it'),
    ('link', 'y is not in it'),
    ('soft', 'y is not in it'),
    ('group', 'y is no array of numbers'),
    ('text', 'y is no array of numbers'),
    ('outside', 'y does not lie in it as MATLAB writes it'),
    ('virtual', 'y does not lie in it as MATLAB writes it'),
    ('filter', 'y does not lie in it as MATLAB writes it'),
    ('bomb', r'bytes would become \d+: not unpacked'),
    ('half', 'no MATLAB file with X and y that can be read'),
    ('empty', 'no MATLAB file with X and y that can be read'),
  ),
)
def test_refuses(tmp_path, what, told):
  h5py = pytest.importorskip('h5py')

  path = tmp_path / 'a.mat'
  secret = tmp_path / 'other'
  secret.write_bytes(bytes(24))
  write_73(path, {'X': X})
  with h5py.File(path, 'a') as file:
    if what == 'link':
      write_73(tmp_path / 'b.mat', {'y': Y})
      file['y'] = h5py.ExternalLink(str(tmp_path / 'b.mat'), '/y')
    elif what == 'soft':
      file['y'] = h5py.SoftLink('/X')
    elif what == 'group':
      file.create_group('y')
    elif what == 'text':
      file['y'] = ['a', 'b']
    elif what == 'outside':
      file.create_dataset('y', (3,), 'f8', external=[(str(secret), 0, 24)])
    elif what == 'virtual':
      layout = h5py.VirtualLayout((3,), 'f8')
      layout[:] = h5py.VirtualSource(str(tmp_path / 'b.mat'), 'y', (3,))
      file.create_virtual_dataset('y', layout)
    elif what == 'filter':
      file.create_dataset('y', data=np.arange(3), compression='lzf')
    elif what == 'bomb':
      file.create_dataset('y', (1 << 40,), 'f8', chunks=True)
  if what in ('half', 'empty'):
    raw = path.read_bytes()
    path.write_bytes(raw[:900] if what == 'half' else raw[:512])
  with pytest.raises(DataError, match=told) as caught:
    read(path)
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)


def test_no_such_file(tmp_path):
  with pytest.raises(DataError, match='a.mat'):
    read(pathlib.Path(tmp_path, 'a.mat'))
