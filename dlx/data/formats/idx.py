"""Image sets in MNIST's idx format, under any name.

Four files, each plain or gzipped, with a dash or a dot before `idx`:
train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,
t10k-labels-idx1-ubyte. Format: two zero bytes, the type (8: unsigned byte), the number
of dimensions, each as a big-endian 32-bit number, the values.
"""

import math
import struct
from typing import Any, Sequence

from etils import epath
import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.formats import checksums, files
from dlx.errors import DataError

_PREFIX = {'train': 'train', 'test': 't10k'}
WANTED = {
  split: f'{p}-images-idx3-ubyte[.gz] and {p}-labels-idx1-ubyte[.gz]'
  for split, p in _PREFIX.items()
}


def _shape(payload: bytes) -> tuple[int, ...] | None:
  if len(payload) < 4 or payload[:3] != b'\0\0\x08':
    return None
  ndim = payload[3]
  if len(payload) < 4 + 4 * ndim:
    return None
  return struct.unpack(f'>{ndim}I', payload[4 : 4 + 4 * ndim])


def expected_bytes(payload: bytes) -> int | None:
  """Bytes that a file with this header has; None: it has no header."""
  shape = _shape(payload)
  return None if shape is None else 4 + 4 * len(shape) + math.prod(shape)


def parse(payload: bytes, path: Any) -> np.ndarray:
  """The array of one idx file, uint8, a read-only view of the bytes.

  Raises:
    DataError: not idx of unsigned bytes, truncated, or too long.
  """
  shape = _shape(payload)
  if shape is None:
    raise DataError(
      f'{path}: not an idx file of unsigned bytes: expected a header that starts with '
      f'00 00 08, found {len(payload)} bytes that start with '
      f'{payload[:4].hex(" ") or "nothing"}; fetch the file again.'
    )
  if (size := expected_bytes(payload)) != len(payload):
    raise DataError(f'{path}: expected {size} bytes, found {len(payload)}.')
  return np.frombuffer(payload, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def find(data_dir: Any, names: Sequence[str], split: str):
  """Paths of images and labels of one split, or None.

  Raises:
    DataError: a folder holds one of the two files only.
  """
  prefix = _PREFIX[split]
  for folder in files.folders(data_dir, names):
    present = files.listing(folder)
    found: dict[str, epath.Path | None] = {}
    for what, rank in (('images', 3), ('labels', 1)):
      spellings = [
        f'{prefix}-{what}{mark}idx{rank}-ubyte{suffix}'
        for mark in '-.'
        for suffix in ('', '.gz')
      ]
      match = [s for s in spellings if s in present]
      found[what] = folder / match[0] if match else None
    images, labels = found['images'], found['labels']
    if images is not None and labels is not None:
      return images, labels
    if images is not None or labels is not None:
      there = images or labels
      lacks = 'labels-idx1' if labels is None else 'images-idx3'
      raise DataError(
        f'{folder}: holds {there.name if there else ""} but lacks '
        f'{prefix}-{lacks}-ubyte[.gz]; put it beside the other file.'
      )
  return None


def read(
  data_dir: Any,
  name: str,
  split: str,
  *,
  names: Sequence[str] = (),
  shape: tuple[int, int, int] = (28, 28, 1),
  num_classes: int = 10,
  remedy: str = '',
) -> Loaded | None:
  """One split of a set: `image` uint8 [N, H, W, 1], `label` int32 [N].

  Args:
    data_dir: folder of data sets, or None for $DLX_DATA_DIR.
    name: of the set; also decides which checksums hold.
    split: 'train' or 'test'.
    names: names that its folder may have besides `name`.
    shape: H, W, C that the images must have; C is 1.
    num_classes: labels must be below this.
    remedy: what a message says where they are not.

  Returns:
    None where there are no raw files.

  Raises:
    DataError: a file is lacking, truncated, corrupt or of another shape.
  """
  paths = find(data_dir, (name, *names), split)
  if paths is None:
    return None
  arrays, records = [], []
  for path, what in zip(paths, ('images-idx3', 'labels-idx1'), strict=True):
    known = checksums.known(name, f'{_PREFIX[split]}-{what}-ubyte')
    payload, record = files.read(path, known, expected_bytes)
    arrays.append(parse(payload, path))
    records.append(record)
  images, labels = arrays
  if images.shape[1:] != shape[:2]:
    got = 'x'.join(map(str, images.shape[1:])) or 'single numbers'
    raise DataError(
      f'{paths[0]}: expected images of {shape[0]}x{shape[1]}, found {got}: a set read '
      f"by a name that dlx does not know has MNIST's image size."
    )
  if labels.ndim != 1 or len(labels) != len(images) or not len(labels):
    raise DataError(
      f'{paths[1]}: expected one label an image ({len(images)}, at least 1), found '
      f'labels of shape {list(labels.shape)}.'
    )
  files.check_labels(labels, num_classes, paths[1], remedy)
  origin = {
    'name': name,
    'split': split,
    'kind': 'raw',
    'path': str(paths[0].parent),
    'size': len(labels),
    'files': records,
  }
  data = {'image': images[..., None], 'label': labels.astype(np.int32)}
  return Loaded(data, origin)
