"""Files of rows with named columns, by their endings: see `read`."""

import os
import pathlib
from typing import Any, Sequence

from dlx.data.formats import parquet
from dlx.data.prepare import columns
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


def _one(path: pathlib.Path, encoding: str) -> columns.Table:
  ending = path.suffix.lower()
  if ending in JSON_LINES:
    return columns.read_json_lines(path, encoding)
  return _parquet(path) if ending in PARQUET else columns.read(path, encoding)


def _parquet(path: pathlib.Path) -> columns.Table:
  table = parquet.read(path)
  names, by_column, classes = table.column_names, [], {}
  for name in names:
    value_N = table.column(name).to_pylist()
    if known := parquet.class_names(table, name):
      classes[name] = known
      for row, k in enumerate(value_N):
        if k is not None and not (isinstance(k, int) and 0 <= k < len(known)):
          raise DataError(
            f'{path}: row {row + 1}, column {name!r}: {k!r} is no class: must be 0 to '
            f'{len(known) - 1}; -1 marks rows without a label: leave the file out.'
          )
      value_N = [None if k is None else known[k] for k in value_N]
    by_column.append([columns.cell_of(x) for x in value_N])
  cells = [list(row) for row in zip(*by_column, strict=True)]
  return columns.Table(
    path, names, cells, list(range(1, len(cells) + 1)), 'row', classes
  )
