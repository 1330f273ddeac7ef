"""How many steps a dispatch takes: as many as fill a tenth of a second.

Sending a program to the device costs the host a fraction of a millisecond, whatever it
does there. Short steps share that cost; long ones go one by one, so that a signal, a
log line or a NaN is never far. Cutting the loop elsewhere changes no bit (dispatch.py),
so the choice may follow the clock.
"""

import collections
import statistics
import time
from typing import Callable

TARGET_S = 0.1
_GROWTH = 4  # A step that looked fast by chance must not cost seconds.
_KEPT = 5


class Pace:
  """Steps of the next dispatch, from the time that those before took.

  Attributes:
    steps: of the next dispatch.
  """

  def __init__(
    self, fixed: int | None = None, now: Callable[[], float] = time.perf_counter
  ):
    """Args: fixed: that many, always; None: as measured, from 1 on."""
    self.steps = fixed or 1
    self._fixed, self._now = fixed is not None, now
    self._last: float | None = None
    self._step_s: collections.deque[float] = collections.deque(maxlen=_KEPT)

  def ended(self, steps: int):
    """The host has seen a dispatch of so many steps end."""
    now, last = self._now(), self._last
    self._last = now
    if self._fixed or last is None:
      return
    self._step_s.append((now - last) / steps)
    fits = TARGET_S / max(statistics.median(self._step_s), 1e-9)
    self.steps = max(1, min(int(fits), _GROWTH * self.steps))

  def idle(self):
    """The device has nothing to do: the time until the next end is not a dispatch's."""
    self._last = None
