"""Arrays of numbers in MATLAB files: version 5 to 7 by SciPy, 7.3 (HDF5) by h5py."""

import importlib
import io
from typing import Any, Sequence

from etils import epath
import numpy as np

from dlx.data.formats import expansion, files
from dlx.errors import DataError

_HDF5 = b'\x89HDF\r\n\x1a\n'
_FILTERS = {1, 2, 3}  # Of HDF5: deflate, shuffle, fletcher32. Others may load code.


def read(path: epath.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Arrays by name, with the axes that MATLAB shows; nothing else of the file is read.

  Raises:
    DataError: a damaged file, one without these arrays, one that is small and would
      become very large, and one of version 7.3 where h5py is not installed.
  """
  raw = files.read_bytes(path)
  # MATLAB writes its own header before that of HDF5.
  is_hdf5 = raw.startswith((_HDF5, b'MATLAB 7.3 ')) or raw[512:520] == _HDF5
  try:
    return (_of_hdf5 if is_hdf5 else _of_version_5)(path, raw, names)
  except DataError:
    raise
  except ModuleNotFoundError as error:
    raise DataError(
      f'{path}: is a MATLAB file of version 7.3, which {error.name} reads: '
      "pip install -c constraints.txt -e '.[hdf5]', or save it in MATLAB by "
      f'save(FILE, {", ".join(map(repr, names))}, "-v7").'
    ) from None
  except Exception as error:  # A damaged file can raise nearly anything.
    told = str(error).splitlines()[0].rstrip('.') if str(error) else ''
    told = told or type(error).__name__
    raise DataError(
      f'{path}: no MATLAB file with {" and ".join(names)} that can be read ({told}): '
      'fetch the file again.'
    ) from None


def _of_version_5(path: Any, raw: bytes, names: Sequence[str]) -> dict[str, np.ndarray]:
  from scipy import io as scipy_io

  shapes = {name: shape for name, shape, _ in scipy_io.whosmat(io.BytesIO(raw))}
  size = sum(int(np.prod(shapes[name], dtype=object)) for name in names)
  expansion.check(path, len(raw), size)
  found = scipy_io.loadmat(io.BytesIO(raw), variable_names=names)
  return {name: np.asarray(found[name]) for name in names}


def _of_hdf5(path: Any, raw: bytes, names: Sequence[str]) -> dict[str, np.ndarray]:
  h5py = importlib.import_module('h5py')  # Of the extra hdf5.
  with h5py.File(io.BytesIO(raw), 'r') as file:
    arrays = {name: _array(h5py, file, name) for name in names}
    expansion.check(path, len(raw), sum(x.nbytes for x in arrays.values()))
    # MATLAB counts the first axis fastest, HDF5 the last.
    return {name: x[()].T for name, x in arrays.items()}


def _array(h5py: Any, file: Any, name: str) -> Any:
  """A dataset of numbers that lies in the file itself: links lead to other files."""
  if not isinstance(file.get(name, getlink=True), h5py.HardLink):
    raise ValueError(f'{name} is not in it')
  found = file[name]
  if not isinstance(found, h5py.Dataset) or found.dtype.kind not in 'biuf':
    raise ValueError(f'{name} is no array of numbers')
  made = found.id.get_create_plist()
  filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
  if found.external or found.is_virtual or filters - _FILTERS:
    raise ValueError(f'{name} does not lie in it as MATLAB writes it')
  return found
