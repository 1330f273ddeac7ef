"""The profiler's trace of some steps, for TensorBoard's and Perfetto's viewers."""

from typing import Callable

import jax


class Trace:
  """Traces steps [first, last) of a run into WORKDIR/trace, on process 0.

  Attributes:
    cuts: steps at which a dispatch has to end.
  """

  def __init__(self, steps: tuple[int, int] | None, folder):
    self.cuts = steps or ()
    self._folder = folder
    self._running = False

  def update(self, step: int, drain: Callable[[], None]):
    """Starts or stops before step `step`; `drain` waits for what is in flight."""
    inside = bool(self.cuts) and self.cuts[0] <= step < self.cuts[1]
    if inside and not self._running:
      drain()
      if jax.process_index() == 0:
        jax.profiler.start_trace(str(self._folder / 'trace'))
      self._running = True
    elif not inside:
      self.stop(drain)

  def stop(self, drain: Callable[[], None] = lambda: None):
    """Ends a trace that is running."""
    if self._running:
      drain()
      if jax.process_index() == 0:
        jax.profiler.stop_trace()
      self._running = False
