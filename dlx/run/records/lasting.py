"""Streams that only show something: what keeps them from writing never ends a run."""

import contextlib
import io
import os
import sys
from typing import Any, Iterator


class Lasting(io.TextIOBase):
  """A text stream that drops everything from its first error on.

  Such as a pipe whose reader has gone (`| head`), a full disk, a closed file. What lies
  in its buffer goes to nowhere then, so that the interpreter can end in peace.
  """

  def __init__(self, stream: Any):
    """`stream`: None, as Python has it where it was closed before the start."""
    self._stream = stream

  def _try(self, do, default: Any = None) -> Any:
    if self._stream is None:
      return default
    try:
      return do(self._stream)
    except (OSError, ValueError):
      lost, self._stream = self._stream, None
      with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, lost.fileno())
        os.close(nowhere)
      return default

  def write(self, text: str) -> int:
    self._try(lambda stream: stream.write(text))
    return len(text)

  def flush(self):
    self._try(lambda stream: stream.flush())

  def isatty(self) -> bool:
    return self._try(lambda stream: stream.isatty(), False)

  def fileno(self) -> int:
    if self._stream is None:
      raise io.UnsupportedOperation('no file')
    return self._stream.fileno()

  def writable(self) -> bool:
    return True

  @property
  def encoding(self) -> str:
    return getattr(self._stream, 'encoding', None) or 'utf-8'


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
  """stdout and stderr of this process as `Lasting`."""
  former = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = map(Lasting, former)
  try:
    yield
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = former
