"""Labelled images in the files of their publishers: CIFAR-100, SVHN, STL-10, EMNIST.

Each reader takes the files by their names and gives `image` uint8 [N, H, W, C] and
`label` int64 [N] by split, and the classes. Nothing is unpacked to disk.
"""

import re
from typing import Any, Callable, Mapping, NamedTuple

from etils import epath
import numpy as np

from dlx.data.formats import files, idx, matlab, pickles
from dlx.errors import DataError

_STL10 = 'airplane bird car cat deer dog horse monkey ship truck'
_CIFAR100 = ('train', 'test', 'meta')


class Split(NamedTuple):
  """Images and labels, and the file of the images."""

  image: np.ndarray
  label: np.ndarray
  path: Any


class Images(NamedTuple):
  """Splits by name, and the classes in order."""

  splits: dict[str, Split]
  classes: list[str]


Paths = Mapping[str, epath.Path]


def format_of(names: Any) -> str | None:
  """Which of FORMATS files of these names are; None: of none."""
  names = set(names)
  if 'cifar-100-python.tar.gz' in names or names.issuperset(_CIFAR100):
    return 'cifar100'
  if any(name.endswith('_32x32.mat') for name in names):
    return 'svhn'
  if 'train_X.bin' in names:
    return 'stl10'
  if any(re.search(r'-images-idx3-ubyte(\.gz)?$', name) for name in names):
    return 'emnist'
  return None


def cifar100(paths: Paths, coarse: bool = False) -> Images:
  """CIFAR-100 (Krizhevsky 2009), python version: 100 classes, or where coarse 20.

  Its files train, test and meta, or the archive that holds them. Pickles are read as
  data alone.
  """
  archive = paths.get('cifar-100-python.tar.gz')
  if archive is not None:
    raw = files.read_archive(archive, _CIFAR100)
  else:
    raw = {name: files.read_bytes(_there(paths, name)) for name in _CIFAR100}
  where = {name: f'{archive}: {name}' if archive else paths[name] for name in raw}
  kind = 'coarse' if coarse else 'fine'
  found = {}
  for split in ('train', 'test'):
    batch = pickles.loads(raw[split], where[split])
    pixels, label_N = (
      _array(batch, k, where[split]) for k in ('data', f'{kind}_labels')
    )
    if pixels.dtype != np.uint8 or pixels.shape != (len(label_N), 3 * 32 * 32):
      raise DataError(
        f'{where[split]}: expected data uint8 [{len(label_N)}, 3072], found '
        f'{pixels.dtype} {list(pixels.shape)}: fetch the set again.'
      )
    image = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    found[split] = Split(image, label_N, where[split])
  names = _array(pickles.loads(raw['meta'], where['meta']), f'{kind}_label_names', '')
  return Images(found, [_text(name) for name in names])


def svhn(paths: Paths) -> Images:
  """Street View House Numbers, format 2: train_32x32.mat, test_32x32.mat.

  The label 10 of the files is the digit 0.
  """
  found = {}
  for split in ('train', 'test'):
    path = _there(paths, f'{split}_32x32.mat')
    arrays = matlab.read(path, ('X', 'y'))
    x, y = arrays['X'], arrays['y'].reshape(-1)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[2:] != (3, len(y)):
      raise DataError(
        f'{path}: expected X uint8 [H, W, 3, {len(y)}], as y has as many labels, found '
        f'{x.dtype} {list(x.shape)}: fetch the file again.'
      )
    label_N = _whole(y, path, 1, 10) % 10
    found[split] = Split(x.transpose(3, 0, 1, 2), label_N, path)
  return Images(found, [str(k) for k in range(10)])


def stl10(paths: Paths) -> Images:
  """STL-10, binary: train_X.bin, train_y.bin, test_X.bin, test_y.bin; 96x96.

  Images lie column by column; labels are from 1. The unlabelled ones are not read.
  """
  found = {}
  for split in ('train', 'test'):
    path = _there(paths, f'{split}_X.bin')
    raw = np.frombuffer(files.read_bytes(path), np.uint8)
    other = _there(paths, f'{split}_y.bin')
    label_N = np.frombuffer(files.read_bytes(other), np.uint8)
    if raw.size != label_N.size * 3 * 96 * 96:
      raise DataError(
        f'{path}: expected {label_N.size * 3 * 96 * 96} bytes, as {other.name} has '
        f'{label_N.size} labels, found {raw.size}: fetch the file again.'
      )
    image = raw.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    found[split] = Split(image, _whole(label_N, other, 1, 10) - 1, path)
  names = _STL10
  if 'class_names.txt' in paths:
    names = files.read_bytes(paths['class_names.txt']).decode(errors='replace')
  return Images(found, [*map(str, names.split())])


def emnist(paths: Paths) -> Images:
  """EMNIST (arXiv:1702.05373), idx files of one of its sets, turned upright.

  NAME-train-images-idx3-ubyte and so on, plain or gzipped; NAME-mapping.txt says which
  characters the labels are: without it they are called by their numbers.
  """
  pattern = re.compile(r'(.*)-train-images-idx3-ubyte(\.gz)?')
  sets = {match[1] for name in paths if (match := pattern.fullmatch(name))}
  where = next(iter(paths.values())).parent
  if len(sets) != 1:
    raise DataError(
      f'{where}: holds {", ".join(sorted(sets)) or "no NAME-train-images-idx3-ubyte"}: '
      'must be the files of one set.'
    )
  (name,) = sets
  found = {}
  for split in ('train', 'test'):
    paths_of, arrays = [], []
    for part in ('images-idx3', 'labels-idx1'):
      file = f'{name}-{split}-{part}-ubyte'
      path = _there(paths, file if file in paths else f'{file}.gz', file)
      arrays.append(idx.parse(files.read(path)[0], path))
      paths_of.append(path)
    image, label_N = arrays
    if image.ndim != 3 or label_N.shape != image.shape[:1]:
      raise DataError(
        f'{paths_of[0]}: images {list(image.shape)} and labels {list(label_N.shape)} '
        'do not go together: fetch the files again.'
      )
    upright = image.swapaxes(1, 2)[..., None]
    found[split] = Split(upright, label_N.astype(np.int64), paths_of[0])
  present = np.unique(np.concatenate([x.label for x in found.values()])).tolist()
  called = {k: str(k) for k in present}
  if (path := paths.get(f'{name}-mapping.txt')) is not None:
    called = _mapping(path)
  place = {k: i for i, k in enumerate(called)}
  for split, x in found.items():
    if unknown := sorted(set(x.label.tolist()) - set(place)):
      raise DataError(f'{x.path}: label {unknown[0]} is not in {name}-mapping.txt.')
    label_N = np.array([place[k] for k in x.label.tolist()])
    found[split] = x._replace(label=label_N)
  return Images(found, list(called.values()))


FORMATS: Mapping[str, Callable[[Paths], Images]] = {
  'cifar100': cifar100,
  'cifar100_coarse': lambda paths: cifar100(paths, coarse=True),
  'svhn': svhn,
  'stl10': stl10,
  'emnist': emnist,
}


def _there(paths: Paths, name: str, called: str = '') -> epath.Path:
  if name not in paths:
    have = ', '.join(sorted(paths)[:8]) or 'nothing'
    raise DataError(
      f'{called or name} is missing: there is {have}; fetch the set again.'
    )
  return paths[name]


def _array(batch: Any, key: str, path: Any) -> np.ndarray:
  """One entry of a pickled dict, whose keys are text or bytes."""
  if isinstance(batch, dict):
    found = {_text(k): x for k, x in batch.items()}
    if key in found:
      return np.asarray(found[key])
  raise DataError(f'{path}: not a file of CIFAR-100: it has no {key}.')


def _text(name: Any) -> str:
  return name.decode(errors='replace') if isinstance(name, bytes) else str(name)


def _whole(label_N: np.ndarray, path: Any, low: int, high: int) -> np.ndarray:
  wrong = ~np.isin(label_N, range(low, high + 1))
  if wrong.any():
    row = int(wrong.argmax())
    raise DataError(
      f'{path}: expected labels {low} to {high}, found {label_N[row]} in row {row} '
      '(from 0).'
    )
  return label_N.astype(np.int64)


def _mapping(path: epath.Path) -> dict[int, str]:
  """Characters by label, from lines LABEL UPPER [LOWER] in ASCII."""
  found = {}
  for number, line in enumerate(files.read_bytes(path).splitlines(), 1):
    try:
      label, code = [int(word) for word in line.split()[:2]]
      found[label] = chr(code)
    except (ValueError, OverflowError):
      raise DataError(
        f'{path}: line {number}: expected a label and the code of its character.'
      ) from None
  return found
