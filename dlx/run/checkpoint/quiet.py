"""What libraries print of failures that they raise as well: dropped, said once."""

import contextlib
import gc
import logging
import sys
import traceback
from typing import Any, Callable, Iterator
import warnings

_left: list[contextlib.ExitStack] = []  # What the first failure leaves behind.

# By name of the hook and the hook that it passes on to: made once, never freed. Python
# calls sys.unraisablehook by a reference that it doesn't own, and asks audit hooks
# before: where one is written in Python (filelock's, which Hugging Face's libraries
# import), another thread can run in between, and a hook that it frees there crashes the
# process (CPython 3.13.0: segmentation fault).
_hooks: dict[tuple[str, int], '_Hook'] = {}


@contextlib.contextmanager
def orbax() -> Iterator[None]:
  """Around a save or a restore: what threads of Orbax print of its failure is dropped.

  A save to a full disk printed some hundred lines before the error reached the caller,
  and some behind it, of reads and writes that nobody waited for any more. What is
  changed holds for the whole process, as threads print, and is undone at the end; what
  others print comes through at any time.

  After a failure alone it stays, for what names Orbax and nothing else: threads of
  TensorStore are then still writing, and print when they fail as well.
  """
  inside = [True]
  with contextlib.ExitStack() as undone:
    for name in ('absl', 'asyncio'):
      undone.enter_context(_filtered(logging.getLogger(name), inside))
    undone.enter_context(_replaced(sys, 'unraisablehook', _is_orphan))
    # No public name. The warning itself has the name of the coroutine alone, by which
    # a user's own could not be told from Orbax's.
    hook = '_warn_unawaited_coroutine'
    undone.enter_context(_replaced(warnings, hook, _is_of_orbax))
    try:
      yield
    except Exception as error:
      _let_go(error)
      if not _left:
        _left.append(undone.pop_all())
      raise
    finally:
      inside.clear()


@contextlib.contextmanager
def _filtered(logger: logging.Logger, inside: list[bool]) -> Iterator[None]:
  """Drops stack traces that Orbax logs, or asyncio for it."""

  def keep(record: logging.LogRecord) -> bool:
    if not record.exc_info:
      return True
    if record.name == 'absl':
      return 'orbax' not in record.pathname
    told = record.getMessage()
    # Of a future or task: whose it was is not always told.
    orphan = bool(inside) and 'exception was never retrieved' in told
    return not (orphan or 'orbax' in told)

  logger.addFilter(keep)
  try:
    yield
  finally:
    logger.removeFilter(keep)


class _Hook:
  """Drops what `silent` says of, while it is in use; passes on all else to `former`."""

  def __init__(self, former: Callable[[Any], Any], silent: Callable[[Any], bool]):
    self.former, self.silent = former, silent
    self.uses = 0

  def __call__(self, found: Any):
    if not (self.uses and self.silent(found)):
      self.former(found)


@contextlib.contextmanager
def _replaced(module: Any, name: str, silent: Callable[[Any], bool]) -> Iterator[None]:
  """A hook of a module that says nothing where `silent(its argument)` holds.

  Whoever else replaces it meanwhile keeps the place; ours then only passes on.
  """
  former = getattr(module, name, None)
  if former is None:
    yield
    return
  # `former` lives as long as the hook that passes on to it: its id is never another's.
  hook = _hooks.setdefault((name, id(former)), _Hook(former, silent))
  hook.uses += 1
  setattr(module, name, hook)
  try:
    yield
  finally:
    hook.uses -= 1
    if getattr(module, name) is hook:
      setattr(module, name, former)


def _is_of_orbax(coroutine: Any) -> bool:
  code = getattr(coroutine, 'cr_code', None)
  return code is not None and 'orbax' in code.co_filename


def _is_orphan(unraisable: Any) -> bool:
  """A read or write that was under way beside a failure.

  Orbax closes its event loop at the first; the others then find it closed, in a call
  of TensorStore's that belongs to no coroutine.
  """
  if getattr(unraisable.object, 'cr_code', None) is not None:
    return _is_of_orbax(unraisable.object)
  return str(unraisable.exc_value) == 'Event loop is closed'


def _let_go(error: BaseException | None):
  """Ends what the frames of a failure hold while nothing is printed of it.

  Futures and coroutines in their local variables would else complain when the error is
  dropped, long after.
  """
  while error is not None:
    traceback.clear_frames(error.__traceback__)
    error = error.__cause__ or error.__context__
  gc.collect()
