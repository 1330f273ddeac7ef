"""Dispatches that the devices may not have finished yet: how many, and of what length.

At most two are in flight: the devices never wait for the host, and a signal is never
far. A dispatch takes as many steps as fill a tenth of a second. Sending a program to
the device costs the host a fraction of a millisecond, whatever it does there: short
steps share that cost; long ones go one by one, so that a signal, a log line or a NaN
is never far. Cutting the loop elsewhere changes no bit (dispatch.py), so the choice may
follow the clock.
"""

import collections
import statistics
import time
from typing import Callable

import jax
import numpy as np

from dlx.run import processes
from dlx.run.at import NotFinite

MOST = 2  # So that the devices never wait for the host, and a signal is never far.
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


class InFlight:
  """Tickets of dispatches, in order; the host waits for them here and nowhere else."""

  def __init__(self, steps: int | None, sharding):
    """Starts with none.

    Args:
      steps: of a dispatch; None: by their time, or 1 where there are several processes,
        as these would measure different times and must send the same programs.
      sharding: of a number.
    """
    self.pace = Pace(steps or (None if jax.process_count() == 1 else 1))
    self._sharding = sharding
    self._tickets: collections.deque[tuple[jax.Array, int]] = collections.deque()
    self._counts: dict[int, jax.Array] = {}

  def count(self, n: int) -> jax.Array:
    """A number of steps, as a program wants it: sent to the devices once."""
    if n not in self._counts:
      self._counts[n] = processes.put(np.int32(n), self._sharding)
    return self._counts[n]

  def add(self, bad: jax.Array, steps: int):
    """A dispatch was sent; `bad` as `Dispatch.run` gives it."""
    self._tickets.append((bad, steps))

  def make_room(self):
    """Waits until one more may be sent. Raises as `drain` does."""
    while len(self._tickets) >= MOST:
      self._wait()

  def drain(self):
    """Waits for all.

    Raises:
      NotFinite: the first step whose metrics are not finite.
    """
    while self._tickets:
      self._wait()
    self.pace.idle()

  def forget(self):
    """Waits for none: the run has failed."""
    self._tickets.clear()

  def _wait(self):
    bad, steps = self._tickets.popleft()
    step = int(jax.device_get(bad))
    self.pace.ended(steps)
    if step >= 0:
      raise NotFinite(step + 1, f'The metrics of step {step} are not finite')
