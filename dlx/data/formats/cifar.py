"""CIFAR-10 in its published forms: binary or python, as folders or as archives.

  cifar-10-batches-bin/  data_batch_1.bin ... data_batch_5.bin, test_batch.bin
  cifar-10-batches-py/   data_batch_1 ... data_batch_5, test_batch: pickles
  cifar-10-binary.tar.gz, cifar-10-python.tar.gz: read without unpacking

Each lies in DIR, in DIR/cifar10 or in DIR/cifar10/raw; the batches may also lie in
DIR/cifar10 itself. A row of the binary form is the label, then the planes R, G and B.
"""

import hashlib
from typing import Any, Iterator, Mapping

from etils import epath
import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.formats import checksums, files, pickles
from dlx.errors import DataError

BATCHES = {
  'train': tuple(f'data_batch_{k}' for k in range(1, 6)),
  'test': ('test_batch',),
}
WANTED = (
  'cifar-10-batches-bin/ or cifar-10-batches-py/ or cifar-10-binary.tar.gz or '
  'cifar-10-python.tar.gz'
)
_ROW = 1 + 3 * 32 * 32
_PLACES = (
  ('cifar-10-batches-bin', '.bin'),
  ('cifar-10-batches-py', ''),
  ('cifar-10-binary.tar.gz', '.bin'),
  ('cifar-10-python.tar.gz', ''),
)


def parse_binary(payload: bytes, path: Any, rows: int = 10000) -> np.ndarray:
  """Rows uint8 [N, 3073] of one binary batch. Raises DataError for another size."""
  if len(payload) != rows * _ROW:
    raise DataError(
      f'{path}: expected {rows * _ROW} bytes ({rows} rows of {_ROW}), found '
      f'{len(payload)}; fetch the file again.'
    )
  return np.frombuffer(payload, np.uint8).reshape(rows, _ROW)


def parse_python(payload: bytes, path: Any, rows: int = 10000) -> np.ndarray:
  """Rows uint8 [N, 3073] of one pickled batch, as the binary form has them.

  Raises:
    DataError: no such pickle, or arrays of another size.
  """
  batch = pickles.loads(payload, path)
  try:
    batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
    pixels, labels = np.asarray(batch['data']), np.asarray(batch['labels'])
    good = (
      pixels.shape == (rows, _ROW - 1)
      and pixels.dtype == np.uint8
      and labels.shape == (rows,)
    )
  except (AttributeError, KeyError, ValueError) as e:
    raise DataError(f'{path}: not a batch of CIFAR-10: {e!r}.') from e
  if not good:
    raise DataError(
      f'{path}: expected data uint8 [{rows}, {_ROW - 1}] and {rows} labels, found '
      f'{pixels.dtype} {list(pixels.shape)} and {labels.size} labels.'
    )
  files.check_labels(labels, 10, path)  # A byte would make 0 of 256.
  return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)


def find(data_dir: Any) -> tuple[epath.Path, str] | None:
  """Folder or archive, and the suffix of its batches; None: no raw files.

  Whole folders and archives go before folders that lack a batch.
  """
  first = None
  for place, suffix, whole in _found(data_dir):
    if whole:
      return place, suffix
    first = first or (place, suffix)
  return first


def _found(data_dir: Any) -> Iterator[tuple[epath.Path, str, bool]]:
  """Folders and archives, and whether they hold every batch as far as names say."""
  base = files.root(data_dir)
  if base is None:
    return
  every = [name for names in BATCHES.values() for name in names]
  for folder in [*files.folders(data_dir, ('cifar10',)), base]:
    present = files.listing(folder)
    for name, suffix in _PLACES:
      if name not in present:
        continue
      place = folder / name
      if name.endswith('.tar.gz'):
        yield place, suffix, True
        continue
      held = files.listing(place)
      if name in held:  # Unpacked into a folder of its own name.
        place, held = place / name, files.listing(place / name)
      yield place, suffix, all(batch + suffix in held for batch in every)
    for suffix in ('.bin', ''):
      if 'data_batch_1' + suffix in present or 'test_batch' + suffix in present:
        yield folder, suffix, all(batch + suffix in present for batch in every)


def _payloads(place: epath.Path, wanted: tuple[str, ...]) -> Mapping[str, bytes]:
  if place.name.endswith('.tar.gz'):
    return files.read_archive(place, wanted)
  present = files.listing(place)
  for name in wanted:
    if name not in present:
      raise DataError(f'{place}: lacks {name}; fetch the set again.')
  return {name: files.read_bytes(place / name) for name in wanted}


def _check(name: str, path: Any, rows_NR: np.ndarray, payload: bytes) -> dict[str, Any]:
  record = files.describe(path, payload)
  known = checksums.known('cifar10', name)
  if known is None:
    return record
  # A python batch is the published one if its pickle is, or if its rows are.
  in_binary = files.describe(path, rows_NR.tobytes())
  md5 = hashlib.md5(payload, usedforsecurity=False).hexdigest()
  if known.sha256 != in_binary['sha256'] and md5 != checksums.CIFAR10_PICKLES_MD5[name]:
    raise DataError(files.unpublished(f'{path} (as a binary batch)', known, in_binary))
  return record | {'verified': True}


def read(data_dir: Any, split: str, *, rows: int = 10000) -> Loaded | None:
  """One split: `image` uint8 [N, 32, 32, 3], `label` int32 [N]; None: no raw files.

  Args:
    data_dir: folder of data sets, or None for $DLX_DATA_DIR.
    split: 'train' or 'test'.
    rows: of one batch file.

  Raises:
    DataError: a file is lacking, truncated, corrupt, or not the published one.
  """
  found = find(data_dir)
  if found is None:
    return None
  place, suffix = found
  parse = parse_binary if suffix else parse_python
  payloads = _payloads(place, tuple(name + suffix for name in BATCHES[split]))
  images, labels, records = [], [], []
  for name in BATCHES[split]:
    path, payload = place / (name + suffix), payloads[name + suffix]
    rows_NR = parse(payload, path, rows)
    records.append(_check(name, path, rows_NR, payload))
    labels.append(rows_NR[:, 0].astype(np.int32))
    images.append(rows_NR[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    files.check_labels(labels[-1], 10, path)
  data = {
    'image': np.ascontiguousarray(np.concatenate(images)),
    'label': np.concatenate(labels),
  }
  origin = {
    'name': 'cifar10',
    'split': split,
    'kind': 'raw',
    'path': str(place),
    'size': len(data['label']),
    'files': records,
  }
  return Loaded(data, origin)
