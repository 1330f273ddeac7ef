"""Files of a workdir that are written whole: JSON, and anything as bytes.

A workdir on a local disk is renamed in. One in an object store (a path with `://`) is
written in whole files only, through etils.epath.

JSON has no NaN and no infinity. What is not finite is written as null, and NOT_FINITE
says at the top what it was: [[["metrics", "loss"], "NaN"]], a path and a number each.
Any parser reads the file, and a table of it has gaps; `from_text` gives them back.
"""

import functools
import json
import math
import operator
import os
import pathlib
from typing import Any, Mapping

from etils import epath
import numpy as np

from dlx.errors import DataError

NOT_FINITE = 'not_finite'


def is_remote(path: Any) -> bool:
  """Whether a path lies in an object store, where files can only be written whole."""
  return '://' in os.fspath(path)


def plain(value: Any) -> Any:
  """The JSON tree of a value: NumPy and jax scalars as Python ones, arrays as lists.

  A float32 becomes the Python float of equal value, so that its repr reads back to the
  same bits.

  Raises:
    TypeError: what has no plain form.
  """
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  array = np.asarray(value)
  if array.dtype.kind in 'OSUMm':
    raise TypeError(f'{type(value).__name__} has no plain JSON form: {value!r}')
  if array.dtype.kind not in 'biuf':
    array = array.astype(np.float64)  # bfloat16 and its kin, exactly.
  return array.tolist()


def to_text(value: Mapping[str, Any], indent: int | None = None) -> str:
  """The JSON text of a mapping; what is not finite in it as the module says."""
  found: list[Any] = []

  def one(x: Any, path: list[Any]) -> Any:
    if isinstance(x, dict):
      return {k: one(v, [*path, k]) for k, v in x.items()}
    if isinstance(x, list):
      return [one(v, [*path, i]) for i, v in enumerate(x)]
    if not isinstance(x, float) or math.isfinite(x):
      return x
    found.append([path, json.dumps(x)])
    return None

  tree = one(plain(value), [])
  tree |= {NOT_FINITE: found} if found else {}
  return json.dumps(tree, indent=indent, ensure_ascii=False, allow_nan=False)


def from_text(text: str | bytes) -> Any:
  """What `to_text` was given, as plain values; reads any JSON.

  Raises:
    ValueError: no JSON, or NOT_FINITE does not fit it.
  """
  tree = json.loads(text)
  if isinstance(tree, dict) and NOT_FINITE in tree:
    try:
      for (*above, last), number in tree.pop(NOT_FINITE):
        functools.reduce(operator.getitem, above, tree)[last] = float(number)
    except (LookupError, TypeError) as e:
      raise ValueError(f'{NOT_FINITE} names what is not there: {e!r}') from None
  return tree


def write_bytes(path: Any, data: bytes) -> None:
  """Writes a whole file. On a local disk a reader sees the old file or the new one."""
  path = epath.Path(path)
  if is_remote(path):
    path.write_bytes(data)  # Object stores show an object only once it is complete.
    return
  local = pathlib.Path(os.fspath(path))
  temporary = local.with_name(f'.{local.name}.tmp')
  with open(temporary, 'wb') as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
  os.replace(temporary, local)


def write_json(path: Any, value: Mapping[str, Any]) -> None:
  """Writes a mapping as indented JSON, keys in the order given; see `write_bytes`."""
  text = to_text(value, indent=2)
  # A lone surrogate (argv may hold one) becomes its JSON escape.
  write_bytes(path, (text + '\n').encode(errors='backslashreplace'))


def read_json(path: Any) -> Any:
  """Reads a JSON file.

  Raises:
    FileNotFoundError: there is none.
    DataError: it is not JSON.
  """
  try:
    return from_text(epath.Path(path).read_text())
  except ValueError as e:
    raise DataError(
      f'{path} is not JSON ({e}): mend it by hand or take another workdir.'
    ) from e


def flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  """Leaves of nested mappings by dotted name; of None none."""
  out = {}
  for name, value in (tree or {}).items():
    if isinstance(value, Mapping):
      out |= flat(value, f'{prefix}{name}.')
    else:
      out[prefix + name] = value
  return out
