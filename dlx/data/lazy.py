"""Rows of a field that are read, or made, when they are asked for."""

import abc
from typing import Any

import numpy as np

from dlx.data.room import picked


class Rows(abc.ABC):
  """What stands for an array of rows without being in memory.

  Attributes:
    dtype, shape, ndim: as of the array.
  """

  dtype: np.dtype
  shape: tuple[int, ...]

  @property
  def ndim(self) -> int:
    return len(self.shape)

  def __len__(self) -> int:
    return self.shape[0]

  @abc.abstractmethod
  def __getitem__(self, index: Any) -> np.ndarray:
    """Rows by number, slice or mask, as an array in memory."""

  @abc.abstractmethod
  def pick(self, rows: np.ndarray) -> 'Rows':
    """These rows, int [N], of which none is read."""

  def drawn(self, index: np.ndarray, seed: int, place: np.ndarray) -> np.ndarray:
    """Rows as training sees them: those that look the same each time.

    Args:
      index: numbers of rows, int [R].
      seed: of the training stream.
      place: of each row in the stream, uint64 [R]; no two of a run are equal.
    """
    del seed, place
    return self[index]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # There is no other way.
    return self[:] if dtype is None else self[:].astype(dtype)


class Picked(Rows):
  """Some rows of a memory-mapped array, which are read when they are asked for.

  Attributes:
    base: the mapped array.
    rows: numbers of its rows, int [N].
  """

  def __init__(self, base: np.ndarray, rows: np.ndarray):
    self.base, self.rows = base, rows
    self.dtype, self.shape = base.dtype, (len(rows), *base.shape[1:])

  def __getitem__(self, index: Any) -> np.ndarray:
    rows = self.rows[index]
    return picked(self.base, rows) if rows.ndim == 1 else np.asarray(self.base[rows])

  def pick(self, rows: np.ndarray) -> 'Picked':
    return Picked(self.base, self.rows[rows])


def pick(x: Any, rows: np.ndarray) -> Any:
  """These rows of an array: in memory, but of what is mapped, or is `Rows`, as such."""
  if isinstance(x, Rows):
    return x.pick(rows)
  return Picked(x, rows) if isinstance(x, np.memmap) else np.asarray(x)[rows]


def first(x: Any, limit: int | None) -> Any:
  """The first rows of an array, at most `limit`; None: all. Reads none of `Rows`."""
  if not isinstance(x, Rows):
    return x[:limit]
  return x if limit is None else x.pick(np.arange(min(limit, len(x))))


def drawn(x: Any, index: np.ndarray, seed: int, place: np.ndarray) -> np.ndarray:
  """`Rows.drawn`, or of an array its rows."""
  return x.drawn(index, seed, place) if isinstance(x, Rows) else picked(x, index)
