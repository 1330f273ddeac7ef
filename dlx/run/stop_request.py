"""A signal to leave: at the next dispatch boundary, state saved."""

import os
import signal
import threading

import jax

from dlx import leaving


class StopRequest:
  """Whether somebody asked this run to leave; a context manager around the loop.

  The first of leaving.SIGNALS asks; the loop looks at dispatch boundaries and between
  evaluation batches. A second SIGINT leaves at once, with status 130; in a program that
  is no launcher, such as a notebook, it interrupts the call alone. Handlers are
  installed in the main thread only, in place of none of another library's, and the
  former ones come back on exit.

  Several processes leave together, whichever of them was asked. There SIGTERM stays
  with JAX's preemption service, whose handler is there from jax.distributed.initialize
  on: a handler of Python's would take its place, and the others would never hear of it.
  The others are passed on as SIGTERM.
  """

  def __init__(self):
    self._asked = threading.Event()
    self._former: dict[int, object] = {}
    self._dispatches = 0
    self._several = jax.process_count() > 1

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in leaving.heard():
        if not (self._several and number == signal.SIGTERM):
          self._former[number] = signal.signal(number, self._ask)
    return self

  def __exit__(self, *exc):
    for number, handler in self._former.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  def _ask(self, number, frame):
    if number == signal.SIGINT and self._asked.is_set():
      if self._former.get(number) is signal.default_int_handler:
        signal.default_int_handler(number, frame)
      leaving.say('Left at once: the same command goes on from the newest checkpoint.')
      os._exit(130)
    if not self._asked.is_set():
      again = '; again to leave without' if number == signal.SIGINT else ''
      name = signal.Signals(number).name
      leaving.say(f'{name}: saving at the end of what is under way{again}.')
    self._asked.set()
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)

  @property
  def here(self) -> bool:
    """Whether this process may leave: it was asked, and there are no others."""
    return self._asked.is_set() and not self._several

  def agreed(self) -> bool:
    """Whether all processes leave now; call it once after every dispatch.

    Several processes agree by a counter of dispatches, which grows by one: an agreed
    number that is jumped over would never be reached.
    """
    if not self._several:
      return self.here
    from jax.experimental import multihost_utils

    self._dispatches += 1
    return multihost_utils.reached_preemption_sync_point(self._dispatches)
