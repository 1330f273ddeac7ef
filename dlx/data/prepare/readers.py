"""Files of rows with named columns, by their endings: see `read`."""

import os
import pathlib
import re
from typing import Any, Sequence

from dlx.data.formats import parquet
from dlx.data.prepare import columns, rows
from dlx.errors import DataError

JSON_LINES = ('.jsonl', '.ndjson')
PARQUET = ('.parquet', '.pq')
ENDINGS = ('.csv', '.tsv', '.tab', *JSON_LINES, *PARQUET)


def read(paths: Any, encoding: str = 'utf-8') -> columns.Table:
  """One file or several of the same columns, one after the other, as a table.

  Parquet and JSON lines by their endings; any other is read as CSV, see `columns.read`.

  Args:
    paths: of one file, or a list of them.
    encoding: of texts; Parquet has its own.

  Raises:
    DataError: a file that cannot be taken, one that is given twice, or files of other
      columns.
  """
  if not isinstance(paths, (list, tuple)):
    return _one(pathlib.Path(paths), encoding)
  check_once(paths)
  tables = [_one(pathlib.Path(path), encoding) for path in paths]
  first = tables[0]
  if len(tables) == 1:
    return first
  cells, lines, shards = [], [], []
  for table in tables:
    if sorted(table.names) != sorted(first.names) or table.classes != first.classes:
      raise DataError(
        f'{table.path}: has the columns {", ".join(table.names)}, {first.path} has '
        f'{", ".join(first.names)}: files of one set must have the same, and the same '
        'classes.'
      )
    shards.append((len(cells), table.path, table.unit))
    order = [table.names.index(name) for name in first.names]
    cells += [[row[i] for i in order] for row in table.cells]
    lines += table.lines
  return first._replace(cells=cells, lines=lines, shards=shards)


def check_once(paths: Sequence[Any]):
  """Refuses a file that is given twice, by another name or a link, too."""
  real = [os.path.realpath(path) for path in paths]
  for i, path in enumerate(real):
    if path in real[:i]:
      raise DataError(f'{paths[i]}: is given twice: name each file once.')


def splits(places: Sequence[Any]) -> list[str | None]:
  """The split of each file, by the words in its name; None: the names tell none.

  Raises:
    DataError: some names tell a split and others do not, or none tells training.
  """
  if len(places) == 1:
    return [None]
  told = []
  for path in places:
    words = re.split(r'[^a-z]+', pathlib.Path(path).stem.lower())
    told.append({rows.SPLIT_NAMES[w] for w in words if w in rows.SPLIT_NAMES})
  if not any(told):
    return [None] * len(told)
  for path, names in zip(places, told, strict=True):
    if len(names) != 1:
      raise DataError(
        f'{path}: its name must say of which split it is, as those of the others do: '
        'train, validation or test.'
      )
  if {'train'} not in told:
    raise DataError(f'{places[0]}: no file is called train: give that, too.')
  return [min(names) for names in told]


def _one(path: pathlib.Path, encoding: str) -> columns.Table:
  ending = path.suffix.lower()
  if ending in JSON_LINES:
    return columns.read_json_lines(path, encoding)
  return _parquet(path) if ending in PARQUET else columns.read(path, encoding)


def _parquet(path: pathlib.Path) -> columns.Table:
  table = parquet.read(path)
  names = table.column_names
  by_column = [cells(table, name, path) for name in names]
  rows_of = [list(row) for row in zip(*by_column, strict=True)]
  found = {name: parquet.class_names(table, name) for name in names}
  classes = {name: known for name, known in found.items() if known}
  lines = list(range(1, table.num_rows + 1))
  return columns.Table(path, names, rows_of, lines, 'row', classes)


def cells(table: Any, name: str, path: Any) -> list[str]:
  """A column of a Parquet file as text; numbers of classes as their names.

  Raises:
    DataError: a number that is that of no class.
  """
  import pyarrow

  column = table.column(name)
  if pyarrow.types.is_timestamp(column.type) and column.type.unit == 'ns':
    # Python's times end at microseconds, and pyarrow refuses a rest.
    micro = pyarrow.timestamp('us', column.type.tz)
    column = column.cast(micro, safe=False)
  value_N = column.to_pylist()
  if known := parquet.class_names(table, name):
    for row, k in enumerate(value_N):
      if k is not None and not (isinstance(k, int) and 0 <= k < len(known)):
        raise DataError(
          f'{path}: row {row + 1}, column {name!r}: {k!r} is no class: must be 0 to '
          f'{len(known) - 1}; -1 marks rows without a label: leave the file out.'
        )
    value_N = [None if k is None else known[k] for k in value_N]
  return [columns.cell_of(x) for x in value_N]
