"""The one place where dlx reads a pickle: data alone, names refused by default.

A pickle can call any function that it may name. This reader resolves only the few names
that arrays, containers and sparse matrices need, most of them to stand-ins written
here, and refuses all others before anything is called.
"""

import collections
import io
import pickle
from typing import Any

import numpy as np

from dlx.errors import DataError


class Csr:
  """Stands in for scipy's csr_matrix: its arrays, without scipy."""

  def __init__(self):
    self.state: dict[str, Any] = {}

  def __setstate__(self, state):
    self.state = dict(state)

  def arrays(self, path: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Indices int32 [nnz, 2] (row, column), values float32 [nnz], shape.

    Raises:
      DataError: the arrays do not make a matrix.
    """
    s = self.state
    try:
      rows, columns = (int(n) for n in s.get('_shape', s.get('shape', ())))
      indptr, indices, data = (np.asarray(s[k]) for k in ('indptr', 'indices', 'data'))
      counts = np.diff(indptr)
      good = (
        len(indptr) == rows + 1
        and indptr[0] == 0
        and bool((counts >= 0).all())
        and indptr[-1] == len(indices) == len(data)
        and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < columns))
      )
    except (KeyError, TypeError, ValueError, IndexError) as e:
      raise DataError(f'{path}: holds no sparse matrix: {e!r}.') from e
    if not good:
      raise DataError(f'{path}: the arrays of its sparse matrix contradict each other.')
    row = np.repeat(np.arange(rows, dtype=np.int32), counts)
    where = np.stack([row, indices.astype(np.int32)], axis=1)
    return where, data.astype(np.float32), (rows, columns)


def _reconstruct(cls, base, state):
  del base, state
  return cls.__new__(cls)


def _encode(text, encoding):
  # How Python 3 writes bytes into a pickle of protocol 2 or below.
  if encoding != 'latin1':
    raise pickle.UnpicklingError(f'encoding {encoding} is not allowed')
  return text.encode('latin1')


def _frombuffer(buffer, dtype, shape, order):
  # How protocol 5 writes an array. NumPy refuses buffers of objects.
  return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_ARRAY = np.zeros(0).__reduce__()[0]  # numpy's own _reconstruct, wherever it lives.
_ALLOWED: dict[tuple[str, str], Any] = {
  ('collections', 'defaultdict'): collections.defaultdict,
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('numpy', 'ndarray'): np.ndarray,
  ('numpy', 'dtype'): np.dtype,
  ('numpy.core.multiarray', '_reconstruct'): _ARRAY,
  ('numpy._core.multiarray', '_reconstruct'): _ARRAY,
  ('numpy.core.numeric', '_frombuffer'): _frombuffer,
  ('numpy._core.numeric', '_frombuffer'): _frombuffer,
  ('_codecs', 'encode'): _encode,
  ('scipy.sparse.csr', 'csr_matrix'): Csr,
  ('scipy.sparse._csr', 'csr_matrix'): Csr,
}
for _module in ('__builtin__', 'builtins'):
  for _type in (list, dict, int, object):
    _ALLOWED[_module, _type.__name__] = _type
for _module in ('copy_reg', 'copyreg'):
  _ALLOWED[_module, '_reconstructor'] = _reconstruct


class _Refused(Exception):
  """A name that data does not need."""


class _Reader(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    try:
      return _ALLOWED[module, name]
    except KeyError:
      raise _Refused(f'{module}.{name}') from None


def loads(payload: bytes, path: Any) -> Any:
  """What a pickle of data holds; text of Python 2 is read as latin1.

  Args:
    payload: the bytes.
    path: named in errors.

  Raises:
    DataError: truncated or damaged, or it names something that data does not need.
  """
  try:
    return _Reader(io.BytesIO(payload), encoding='latin1').load()
  except _Refused as e:
    raise DataError(
      f'{path}: {e} is not allowed in data: if you trust the file, write it again as '
      'lists, dicts and NumPy arrays.'
    ) from None
  except EOFError as e:
    raise DataError(
      f'{path}: truncated pickle: expected more, found {len(payload)} bytes; fetch the '
      'file again.'
    ) from e
  except Exception as e:  # A damaged pickle can raise nearly anything.
    reason = str(e).splitlines()[0] if str(e) else type(e).__name__
    raise DataError(
      f'{path}: not a pickle of data that dlx reads ({len(payload)} bytes found): '
      f'{reason}; fetch the file again.'
    ) from e
