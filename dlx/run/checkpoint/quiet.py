"""What libraries print of failures that they raise as well: dropped, said once."""

import logging
import sys
import warnings


def orbax():
  """Drops the stack traces of the threads of Orbax and TensorStore; idempotent.

  A save to a full disk printed some hundred lines before the error reached the caller,
  and some behind it, of reads and writes that nobody waited for any more.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_no_trace_of_orbax)
  # Which coroutine it was a warning tells by its name alone; nobody else here has any.
  never = "coroutine '.*' was never awaited"
  warnings.filterwarnings('ignore', never, RuntimeWarning)
  if not isinstance(sys.unraisablehook, _Unraisable):
    sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _is_no_trace_of_orbax(record: logging.LogRecord) -> bool:
  if record.name == 'absl':
    return not (record.exc_info and 'orbax' in record.pathname)
  told = record.getMessage()
  orphan = 'exception was never retrieved' in told  # Of a future or task.
  return not (record.exc_info and (orphan or 'orbax' in told))


class _Unraisable:
  """A hook that says nothing of reads and writes that were under way beside a failure.

  Orbax closes its event loop at the first; the others then find it closed.
  """

  def __init__(self, former):
    self._former = former

  def __call__(self, unraisable):
    code = getattr(unraisable.object, 'cr_code', None)  # Of a coroutine.
    orphan = code is not None and 'orbax' in code.co_filename
    if not orphan and str(unraisable.exc_value) != 'Event loop is closed':
      self._former(unraisable)
