"""Dispatches that the devices may not have finished yet: at most two."""

import collections
from typing import Callable

import jax
import numpy as np

from dlx.run import global_arrays
from dlx.run.pace import Pace

MOST = 2  # So that the devices never wait for the host, and a signal is never far.


class InFlight:
  """Tickets of dispatches, in order; the host waits for them here and nowhere else."""

  def __init__(self, steps: int | None, sharding, failed: Callable[[int], None]):
    """Starts with none.

    Args:
      steps: of a dispatch; None: by their time, or 1 where there are several processes,
        as these would measure different times and must send the same programs.
      sharding: of a number.
      failed: is told the first step that was not finite.
    """
    self.pace = Pace(steps or (None if jax.process_count() == 1 else 1))
    self._failed, self._sharding = failed, sharding
    self._tickets: collections.deque[tuple[jax.Array, int]] = collections.deque()
    self._counts: dict[int, jax.Array] = {}

  def count(self, n: int) -> jax.Array:
    """A number of steps, as a program wants it: sent to the devices once."""
    if n not in self._counts:
      self._counts[n] = global_arrays.put(np.int32(n), self._sharding)
    return self._counts[n]

  def add(self, bad: jax.Array, steps: int):
    """A dispatch was sent; `bad` as `Dispatch.run` gives it."""
    self._tickets.append((bad, steps))

  def make_room(self):
    """Waits until one more may be sent."""
    while len(self._tickets) >= MOST:
      self._wait()

  def drain(self):
    """Waits for all."""
    while self._tickets:
      self._wait()
    self.pace.idle()

  def forget(self):
    """Waits for none: the run has failed."""
    self._tickets.clear()

  def _wait(self):
    bad, steps = self._tickets.popleft()
    step = int(bad)
    self.pace.ended(steps)
    if step >= 0:
      self._failed(step)
