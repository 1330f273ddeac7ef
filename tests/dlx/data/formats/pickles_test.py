"""The restricted unpickler: data passes, any other name is refused uncalled."""

import collections
import pickle

import numpy as np
import pytest
import scipy.sparse

from dlx.data.formats import pickles
from dlx.errors import DataError


def as_python2(payload: bytes) -> bytes:
  """A pickle of protocol 2 as Python 2 and the libraries of its time named things."""
  for new, old in (
    (b'scipy.sparse._csr\n', b'scipy.sparse.csr\n'),
    (b'numpy._core.multiarray\n', b'numpy.core.multiarray\n'),
    # dtype(name, align=0, copy=1) where Python 3 writes False and True.
    (b'\x89\x88\x87', b'K\x00K\x01\x87'),
  ):
    payload = payload.replace(new, old)
  return payload


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_pass(protocol):
  data = {
    'array': np.arange(6, dtype=np.uint8).reshape(2, 3),
    'floats': np.linspace(0, 1, 5),
    'graph': collections.defaultdict(list, {0: [1, 2], 1: [0]}),
    'names': ['a', b'b'],
  }
  got = pickles.loads(as_python2(pickle.dumps(data, protocol)), 'f')
  np.testing.assert_array_equal(got['array'], data['array'])
  assert got['array'].dtype == np.uint8
  np.testing.assert_array_equal(got['floats'], data['floats'])
  assert got['graph'] == data['graph'] and got['names'] == data['names']


@pytest.mark.parametrize('protocol', [0, 1, 2, 4, 5])
def test_sparse_matrix_without_scipy(protocol):
  dense = np.array([[0, 2, 0], [0, 0, 0], [3, 0, 4]], np.float32)
  payload = as_python2(pickle.dumps(scipy.sparse.csr_matrix(dense), protocol))
  matrix = pickles.loads(payload, 'f')
  assert isinstance(matrix, pickles.Csr)
  indices, values, shape = matrix.arrays('f')
  assert shape == (3, 3)
  assert indices.dtype == np.int32 and values.dtype == np.float32
  np.testing.assert_array_equal(indices, [[0, 1], [2, 0], [2, 2]])
  np.testing.assert_array_equal(values, [2, 3, 4])


class Evil:
  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


def test_a_call_is_refused_before_it_happens(tmp_path):
  target = tmp_path / 'written'
  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    payload = pickle.dumps([Evil(target)], protocol)
    with pytest.raises(DataError, match='open is not allowed'):
      pickles.loads(payload, 'file.pkl')
  assert not target.exists()
  pickle.loads(pickle.dumps(Evil(target))).close()  # What an ordinary reader does.
  assert target.exists()


@pytest.mark.parametrize(
  'name', [b'os\nsystem', b'builtins\neval', b'numpy\nload', b'builtins\ngetattr']
)
def test_names_are_refused(name):
  with pytest.raises(DataError, match='is not allowed'):
    pickles.loads(b'c' + name + b'\n.', 'file.pkl')


def test_truncated_or_foreign_bytes_name_file_and_size():
  payload = pickle.dumps({'data': np.arange(100)}, 2)
  for n in (0, 1, 20, len(payload) // 2, len(payload) - 1):
    with pytest.raises(DataError, match=rf'(?s)file\.pkl.*{n} bytes'):
      pickles.loads(payload[:n], 'file.pkl')
  with pytest.raises(DataError, match='file.pkl'):
    pickles.loads(b'<html>not found</html>', 'file.pkl')


@pytest.mark.parametrize(
  'change',
  [
    {'indptr': np.array([0, 1, 3])},
    {'indptr': np.array([0, 2, 1, 3])},
    {'indices': np.array([1, 0, 3])},
    {'indices': np.array([1, 0])},
    {'data': None},
    {'_shape': None},
  ],
)
def test_contradictory_matrix(change):
  matrix = pickles.Csr()
  state = {
    '_shape': (3, 3),
    'indptr': np.array([0, 1, 1, 3]),
    'indices': np.array([1, 0, 2]),
    'data': np.array([2.0, 3.0, 4.0]),
  }
  matrix.__setstate__(state)
  assert matrix.arrays('f')[2] == (3, 3)
  matrix.__setstate__(state | change)
  with pytest.raises(DataError, match=r'file\.pkl'):
    matrix.arrays('file.pkl')
