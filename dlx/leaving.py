"""Signals that ask a run to leave, before its loop listens and after it.

Schedulers and terminals send several: SIGTERM, SIGINT, SIGHUP (a terminal that closes),
SIGUSR1 and SIGUSR2 (warnings of Slurm and of submitit). Until the loop listens there is
nothing to save, and afterwards all is saved: the process ends at once.
"""

import atexit
import contextlib
import os
import signal
import threading

STATUS = 42  # Exit status of a run that was asked to leave; a scheduler requeues on it.
SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
  if hasattr(signal, name)
)


def at_once(number, frame):
  """A handler: leaves with STATUS."""
  del number, frame
  os._exit(STATUS)


def say(text: str):
  """A line on stderr from within a handler, where a stream may be half-way in a write.

  On a terminal in place of a line that is under way, and with the cursor, which a
  progress bar hides.
  """
  with contextlib.suppress(OSError):
    start = '\r\x1b[K\x1b[?25h' if os.isatty(2) else ''
    os.write(2, f'{start}{text}\n'.encode())


def heard() -> tuple[int, ...]:
  """The signals that nobody else wants: not ignored (nohup), no handler of others."""
  free = (signal.SIG_DFL, signal.default_int_handler, at_once)
  return tuple(number for number in SIGNALS if signal.getsignal(number) in free)


def listen():
  """Installs the handler, in the main thread; call it before slow imports."""
  if threading.current_thread() is threading.main_thread():
    for number in heard():
      signal.signal(number, at_once)
    atexit.register(_ignore)


def _ignore():
  """Once all is done: Python drops handlers at its end; a late signal would kill."""
  for number in heard():
    signal.signal(number, signal.SIG_IGN)
