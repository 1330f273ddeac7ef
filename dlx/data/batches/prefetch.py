"""An iterator that a thread runs ahead of its use."""

import queue
import threading
import time
from typing import Any, Iterator, NamedTuple, Protocol

from absl import logging


class Closable(Protocol):
  """An iterator that can be closed."""

  def __next__(self) -> Any: ...

  def close(self) -> Any: ...


class _End(NamedTuple):
  """The last thing in the queue: why there is no more."""

  error: BaseException


class Ahead(Iterator[Any]):
  """The elements of `source`, up to `depth` of them (and one in hand) made ahead.

  The source is only touched by the thread; what it raises is raised at its place in
  the order. A context manager that closes.
  """

  def __init__(self, source: Closable, depth: int = 2):
    """Args: depth: elements that may wait, at least 1; they take memory."""
    self._ready: queue.Queue[Any] = queue.Queue(depth)
    self._closing = threading.Event()
    self._end: BaseException | None = None
    self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)
    self._thread.start()

  def __iter__(self) -> 'Ahead':
    return self

  def __next__(self) -> Any:
    if self._end is None:
      found = self._ready.get()
      if not isinstance(found, _End):
        return found
      self._end = found.error
    raise self._end

  def close(self, patience_s: float = 5.0):
    """Ends the thread, which closes the source after the element in its hands.

    Args:
      patience_s: a source that takes longer for one element is left to the thread, and
        the thread to the end of the process: a run that was asked to leave does so.
    """
    self._closing.set()
    end = time.monotonic() + patience_s
    while self._thread.is_alive():
      if time.monotonic() > end:
        logging.warning('A batch is %g s in the making: not waited for.', patience_s)
        break
      try:  # Makes room for what the thread is waiting to put.
        self._ready.get(timeout=0.01)
      except queue.Empty:
        pass
    self._end = self._end or StopIteration()

  def __enter__(self) -> 'Ahead':
    return self

  def __exit__(self, *exception):
    self.close()

  def _run(self, source: Closable):
    end: BaseException = StopIteration()
    try:
      while not self._closing.is_set():
        self._ready.put(next(source))
    except BaseException as error:
      end = error
    finally:
      source.close()
    self._ready.put(_End(end))
