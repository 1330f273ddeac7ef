"""What libraries print of failures that they raise as well: dropped, said once."""

import contextlib
import gc
import logging
import sys
import traceback
from typing import Any, Callable, Iterator
import warnings


@contextlib.contextmanager
def orbax() -> Iterator[None]:
  """Around a save or a restore: what threads of Orbax print of its failure is dropped.

  A save to a full disk printed some hundred lines before the error reached the caller,
  and some behind it, of reads and writes that nobody waited for any more. All that is
  changed holds for the whole process, as threads print, and is undone at the end; what
  is not Orbax's is printed meanwhile, too.
  """
  with contextlib.ExitStack() as undone:
    for name in ('absl', 'asyncio'):
      # An object of its own, so that one of two that overlap does not take the other's.
      dropped, logger = _TracesOfOrbax(), logging.getLogger(name)
      logger.addFilter(dropped)
      undone.callback(logger.removeFilter, dropped)
    undone.enter_context(_replaced(sys, 'unraisablehook', _is_orphan))
    # No public name. The warning itself has the name of the coroutine alone, by which
    # a user's own could not be told from Orbax's.
    hook = '_warn_unawaited_coroutine'
    undone.enter_context(_replaced(warnings, hook, _is_of_orbax))
    try:
      yield
    except BaseException as error:
      _let_go(error)
      raise


class _TracesOfOrbax(logging.Filter):
  """Drops stack traces that Orbax, or asyncio for it, logs."""

  def filter(self, record: logging.LogRecord) -> bool:
    if record.name == 'absl':
      return not (record.exc_info and 'orbax' in record.pathname)
    told = record.getMessage()
    orphan = 'exception was never retrieved' in told  # Of a future or task.
    return not (record.exc_info and (orphan or 'orbax' in told))


@contextlib.contextmanager
def _replaced(module: Any, name: str, silent: Callable[[Any], bool]) -> Iterator[None]:
  """A hook of a module that says nothing where `silent(its argument)` holds.

  Whoever else replaces it meanwhile keeps the place; ours then only passes on.
  """
  former = getattr(module, name, None)
  if former is None:
    yield
    return
  active = True

  def hook(found):
    if not (active and silent(found)):
      former(found)

  setattr(module, name, hook)
  try:
    yield
  finally:
    active = False
    if getattr(module, name) is hook:
      setattr(module, name, former)


def _is_of_orbax(coroutine: Any) -> bool:
  code = getattr(coroutine, 'cr_code', None)
  return code is not None and 'orbax' in code.co_filename


def _is_orphan(unraisable: Any) -> bool:
  """A read or write that was under way beside a failure.

  Orbax closes its event loop at the first; the others then find it closed.
  """
  closed = str(unraisable.exc_value) == 'Event loop is closed'
  return closed or _is_of_orbax(unraisable.object)


def _let_go(error: BaseException | None):
  """Ends what the frames of a failure hold while nothing is printed of it.

  Futures and coroutines in their local variables would else complain when the error is
  dropped, long after.
  """
  while error is not None:
    traceback.clear_frames(error.__traceback__)
    error = error.__cause__ or error.__context__
  gc.collect()
