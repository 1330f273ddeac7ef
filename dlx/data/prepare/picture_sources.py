"""Where labelled pictures lie: folders, Parquet files, or the files of a known set."""

import io
import pathlib
from typing import Any, Callable, NamedTuple, Sequence

from etils import epath
import numpy as np

from dlx.config import check_choice
from dlx.data.formats import imagenet, labelled_images, parquet
from dlx.data.prepare import folders, readers, rows
from dlx.errors import ConfigError, DataError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.ppm')
FORMATS = ('folders', 'parquet', *labelled_images.FORMATS)


class Inside:
  """A picture in a file of many: `str` of it tells where, `read` gives it."""

  def __init__(self, place: str, read: Callable[[], Any]):
    self.place, self.read = place, read

  def __str__(self) -> str:
    return self.place


class Pictures(NamedTuple):
  """All pictures of a set.

  Attributes:
    found: files, or places in them, and their classes.
    where: the folder or first file, for errors.
    shape: of a published set, height and width, and channels; None: they differ.
  """

  found: folders.Found
  where: pathlib.Path
  shape: tuple[int, int] | None = None


def find(
  places: Sequence[Any], form: str | None = None, label: str | None = None
) -> Pictures:
  """Pictures of a folder or of files; reads none of a folder.

  Args:
    places: one folder, or files.
    form: one of FORMATS; None: seen by the names of the files.
    label: of Parquet, the column of the classes; None: the only one that can be.

  Raises:
    ConfigError: `form` is unknown, or `label` is given where there is no column.
    DataError: what cannot be taken.
  """
  if form is not None:
    check_choice('--format', form, FORMATS)
  where = pathlib.Path(places[0])
  listed = _listed(places)
  form = form or labelled_images.format_of(path.name for path in listed)
  if form is None and any(path.suffix.lower() in readers.PARQUET for path in listed):
    form = 'parquet'
  if label is not None and form != 'parquet':
    raise ConfigError('--label is read of Parquet files alone: leave it out.')
  if form == 'parquet':
    paths = [path for path in listed if path.suffix.lower() in readers.PARQUET]
    return Pictures(_in_parquet(paths or listed, label), where)
  if form is not None and form in labelled_images.FORMATS:
    known = {path.name: epath.Path(path) for path in listed}
    return _published(labelled_images.FORMATS[form](known), where)
  if len(places) > 1:
    raise DataError(f'{places[1]}: give one folder of pictures, or Parquet files.')
  found = folders.find(
    where, SUFFIXES, 'picture', labels=imagenet.labels, beside=(imagenet.DEVKIT,)
  )
  names = imagenet.class_names(where, found.classes)
  return Pictures(found._replace(classes=names), where)


def _listed(places: Sequence[Any]) -> list[pathlib.Path]:
  """The files that are given, or those of the folder or of the only folder in it."""
  paths = [pathlib.Path(place) for place in places]
  if len(paths) == 1 and paths[0].is_dir():
    inside = sorted(paths[0].iterdir())
    if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink():
      inside = sorted(inside[0].iterdir())
    return [path for path in inside if path.is_file()]
  return [path for path in paths if not path.is_dir()]


def _published(read: labelled_images.Images, where: pathlib.Path) -> Pictures:
  found = []
  for split, (image, label_N, path) in read.splits.items():
    wrong = np.flatnonzero((label_N < 0) | (label_N >= len(read.classes)))
    if wrong.size:
      raise DataError(
        f'{path}: row {wrong[0]} (from 0) has the label {label_N[wrong[0]]}: there are '
        f'{len(read.classes)} classes.'
      )
    for row, k in enumerate(label_N.tolist()):
      inside = Inside(f'{path}: row {row} (from 0)', image[row].view)
      found.append(folders.Labelled(inside, k, split))
  shape = next(iter(read.splits.values())).image.shape
  return Pictures(folders.Found(found, read.classes, 0), where, (shape[1], shape[3]))


def _in_parquet(paths: Sequence[pathlib.Path], label: str | None) -> folders.Found:
  """Of Parquet files as Hugging Face's `datasets` writes them: bytes and a class."""
  readers.check_once(paths)
  splits = readers.splits(paths)
  read, names, classes, columns = [], [], None, None
  for path, split in zip(paths, splits, strict=True):
    table = parquet.read(path)
    image, of_class = _columns(table, path, label)
    known = parquet.class_names(table, of_class)
    if columns not in (None, (image, of_class, known)):
      raise DataError(
        f'{path}: has other columns or classes than {paths[0]}: files of one set must '
        'have the same.'
      )
    columns, classes = (image, of_class, known), known
    cells = readers.cells(table, of_class, path)
    for row, name in enumerate(cells):
      place = f'{path}: row {row + 1}'
      if not name:
        raise DataError(f'{place}: has no class: leave the row out.')
      read.append((Inside(place, _bytes(table.column(image), row)), split))
      names.append(name)
  trained = {n for n, (_, s) in zip(names, read, strict=True) if s in (None, 'train')}
  classes = classes or rows.in_order(trained)
  number = {name: k for k, name in enumerate(classes)}
  for name, (inside, _) in zip(names, read, strict=True):
    if name not in number:
      raise DataError(f'{inside}: class {name!r} is not among those of training.')
  pairs = zip(names, read, strict=True)
  found = [folders.Labelled(inside, number[name], s) for name, (inside, s) in pairs]
  return folders.Found(found, classes, 0)


def _columns(table: Any, path: Any, label: str | None) -> tuple[str, str]:
  """The columns of pictures and of classes."""
  import pyarrow

  told = parquet.features(table)
  types = pyarrow.types

  def holds_bytes(name: str) -> bool:
    kind = table.schema.field(name).type
    if types.is_struct(kind) and kind.get_field_index('bytes') >= 0:
      kind = kind.field('bytes').type
    return types.is_binary(kind) or types.is_large_binary(kind)

  images = [name for name in table.column_names if holds_bytes(name)]
  images = [n for n in images if told.get(n, {}).get('_type') == 'Image'] or images
  if len(images) != 1:
    raise DataError(
      f'{path}: must have one column of pictures, as bytes, found '
      f'{", ".join(images) or "none"} among {", ".join(table.column_names)}.'
    )
  others = [name for name in table.column_names if name not in images]
  if label is not None:
    if label not in others:
      raise ConfigError(
        f'--label={label} is not allowed: {path} has {", ".join(others) or "no other"}.'
      )
    return images[0], label
  known = [n for n in others if parquet.class_names(table, n)] or others
  if len(known) != 1:
    raise ConfigError(
      f'--label is missing: {path} has the columns {", ".join(known) or "none"}: name '
      'that of the classes.'
    )
  return images[0], known[0]


def _bytes(column: Any, row: int) -> Callable[[], Any]:
  def read() -> io.BytesIO:
    value = column[row].as_py()
    value = value.get('bytes') if isinstance(value, dict) else value
    return io.BytesIO(value or b'')

  return read
