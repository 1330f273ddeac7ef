"""Memory that the arrays of a batch are made in.

A worker process hands a batch over in memory that it shares with the process that reads
(`batches/ring.py`). A `Streamed.get` that calls `empty` or `picked` makes an array
there at once; one that calls NumPy is copied there: one copy more, and never wrong.
"""

import contextlib
import contextvars
from typing import Any, Callable, Iterator, Sequence

import numpy as np

Maker = Callable[[Sequence[int], Any], np.ndarray]
_make: contextvars.ContextVar[Maker] = contextvars.ContextVar('_make', default=np.empty)


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
  """`np.empty`, in the memory in which a worker hands over the batch that it makes."""
  return _make.get()(shape, dtype)


def picked(x: Any, index: np.ndarray) -> np.ndarray:
  """`x[index]`, made by `empty` where x is a NumPy array, mapped from a file or not.

  Args:
    x: what has rows by number, [N, ...].
    index: numbers of rows, int [R].
  """
  plain = isinstance(x, np.ndarray) and x.flags.c_contiguous and x.flags.aligned
  if not plain or x.dtype.hasobject or not len(index):
    return x[index]
  if index.min() < 0 or index.max() >= len(x):
    return x[index]
  out = empty((len(index), *x.shape[1:]), x.dtype)
  # All are in range, where 'clip' changes none; 'raise' would copy all once more.
  return np.take(x, index, 0, out, 'clip')


@contextlib.contextmanager
def made_by(make: Maker) -> Iterator[None]:
  """Within it, in this thread, `empty` calls `make`, which is as `np.empty` is."""
  token = _make.set(make)
  try:
    yield
  finally:
    _make.reset(token)
