"""Sets prepared by TensorFlow Datasets, read without TensorFlow.

Only array_record can be read so; tfrecord needs TensorFlow. Reading decodes a whole
split into arrays once: TFDS decodes a few thousand examples a second, too slow for
every epoch. Preparing a published set downloads it and does need TensorFlow: that is
tried only where it is installed.
"""

import importlib.util
import json
import os
from typing import Any, Sequence

from etils import epath
import numpy as np

from dlx.data.dataset import Loaded, Shapes
from dlx.data.formats import files
from dlx.errors import DataError

_INFO = 'dataset_info.json'


def default_dir() -> epath.Path:
  """Where TFDS keeps sets by default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
  named = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return epath.Path(named).expanduser()


def _version(name: str) -> tuple[int, ...]:
  try:
    return tuple(int(part) for part in name.split('.'))
  except ValueError:
    return ()


def find(data_dir: Any, name: str) -> epath.Path | None:
  """Folder NAME/VERSION of a prepared set, the highest version; None: there is none.

  Raises:
    DataError: a set that was prepared in a form that needs TensorFlow.
  """
  for folder in [*files.folders(data_dir, (name,)), default_dir() / name]:
    names = [v for v in files.listing(folder) if _version(v)]
    for version in sorted(names, key=_version, reverse=True):
      prepared = folder / version
      if _INFO not in files.listing(prepared):
        continue
      try:
        form = json.loads((prepared / _INFO).read_text()).get('fileFormat', 'tfrecord')
      except (ValueError, OSError, AttributeError) as e:
        raise DataError(f'{prepared / _INFO}: cannot be read: {e}.') from e
      if form != 'array_record':
        raise DataError(
          f'{prepared}: prepared as {form}, which needs TensorFlow to read; prepare it '
          f'again with `tfds build {name} --file_format=array_record`.'
        )
      return prepared
  return None


def can_download() -> bool:
  """Whether TFDS can prepare published sets here: it needs TensorFlow for that."""
  return importlib.util.find_spec('tensorflow') is not None


def download(name: str, data_dir: Any) -> epath.Path | None:
  """Lets TFDS download and prepare a set as array_record; imports TensorFlow.

  Returns:
    The folder of the prepared set; None where TFDS has no set of this name.

  Raises:
    DataError: the download failed.
  """
  import tensorflow_datasets as tfds

  target = files.root(data_dir) or default_dir()
  try:
    builder = tfds.builder(name, data_dir=str(target), file_format='array_record')
  except tfds.core.DatasetNotFoundError:
    return None
  try:
    builder.download_and_prepare()
  except Exception as e:  # Network, checksum, disk: whatever it is, the user mends it.
    reason = str(e).splitlines()[0] if str(e) else type(e).__name__
    raise DataError(f'dataset {name}: TFDS could not download it: {reason}.') from e
  return epath.Path(builder.data_dir)


def read(
  prepared: epath.Path,
  name: str,
  split: str,
  shapes: Shapes,
  exclusive: Sequence[tuple[str, int]] = (),
) -> Loaded:
  """One split of a prepared set, the fields of `shapes`, decoded into arrays.

  Args:
    prepared: folder of one version.
    name: of the set.
    split: of the set.
    shapes: shape and dtype of each field of one example.
    exclusive: (field, bound): values must be in [0, bound).

  Raises:
    DataError: no such split or field, another shape, or a damaged file.
  """
  import tensorflow_datasets as tfds

  try:
    builder: Any = tfds.builder_from_directory(str(prepared))
    splits = builder.info.splits
    if split not in splits:
      raise DataError(
        f'{prepared}: has no split {split!r}, but {", ".join(splits) or "none"}.'
      )
    source: Any = builder.as_data_source(split)
    size = len(source)
    data = {k: np.empty((size, *s.shape), s.dtype) for k, s in shapes.items()}
    for i in range(size):
      example = source[i]
      for field, s in shapes.items():
        if field not in example:
          raise DataError(f'{prepared}: examples have no field {field!r}.')
        value = np.asarray(example[field])
        if value.shape != s.shape:
          raise DataError(
            f'{prepared}: {field} of example {i}: expected shape {list(s.shape)}, '
            f'found {list(value.shape)}.'
          )
        data[field][i] = value
  except DataError:
    raise
  except Exception as e:
    reason = str(e).splitlines()[0] if str(e) else type(e).__name__
    raise DataError(
      f'{prepared}: cannot be read ({reason}); delete the folder and prepare it again.'
    ) from e
  if not size:
    raise DataError(f'{prepared}: split {split!r} is empty.')
  for field, bound in exclusive:
    files.check_labels(data[field], bound, f'{prepared}: {split}: {field}')
  record = {
    'name': name,
    'split': split,
    'kind': 'tfds',
    'path': str(prepared),
    'size': size,
    'version': prepared.name,
  }
  return Loaded(data, record)
