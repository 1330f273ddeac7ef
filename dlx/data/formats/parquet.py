"""Parquet files, and what Hugging Face's `datasets` writes into them."""

import json
import os
from typing import Any

from dlx.data.formats import expansion
from dlx.errors import DataError


def read(path: Any) -> Any:
  """The pyarrow.Table of a file.

  Raises:
    DataError: no such file, a damaged one, one without rows or with two columns of a
      name, or one that is small and would become very large.
  """
  import pyarrow
  from pyarrow import parquet

  try:
    # The file is opened here: pyarrow would take a name for a folder or an address.
    with open(path, 'rb') as opened, parquet.ParquetFile(opened) as file:
      groups = range(file.metadata.num_row_groups)
      size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
      # Equal values may take next to nothing there.
      size = max(size, 8 * file.metadata.num_rows * file.metadata.num_columns)
      expansion.check(path, os.path.getsize(path), size)
      found = file.read()
  except DataError:
    raise
  except FileNotFoundError:
    raise DataError(f'{path}: no such file.') from None
  except (pyarrow.ArrowException, OSError, ValueError) as error:
    told = str(error).splitlines()[0].rstrip('.') if str(error) else 'damaged'
    raise DataError(f'{path}: is no Parquet file that can be read ({told}).') from None
  names = found.column_names
  if twice := {name for name in names if names.count(name) > 1}:
    raise DataError(f'{path}: two columns are called {min(twice)!r}: rename one.')
  if not found.num_rows or not names:
    raise DataError(f'{path}: holds no row.')
  return found


def features(table: Any) -> dict[str, Any]:
  """By column, what `datasets` says of it, e.g. `_type` and `names`; {} without."""
  try:
    text = json.loads((table.schema.metadata or {})[b'huggingface'])
    found = text['info']['features']
    return {k: x for k, x in found.items() if isinstance(x, dict)}
  except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
    return {}


def class_names(table: Any, column: str) -> list[str] | None:
  """Names of the classes of a column of their numbers; None: it is no such column."""
  names = features(table).get(column, {}).get('names')
  known = isinstance(names, list) and all(isinstance(x, str) for x in names)
  return names if known and names and len(set(names)) == len(names) else None
