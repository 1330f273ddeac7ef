"""Where the time of a run goes: seconds by kind, and the profiler's trace."""

import contextlib
import time
from typing import Callable, Iterator, Mapping

import jax

# read: until there is a first batch; input: what the loop waits for those after it.
KINDS = ('compile', 'read', 'input', 'train', 'eval', 'save', 'figures', 'other')


class Clock:
  """Sums wall time by kind, over all sessions of a run.

  Inner spans take their time out of outer ones, so that the kinds add up to the total.
  """

  def __init__(self):
    self._sums: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    self._now = ['other']
    self._since = time.perf_counter()

  def add(self, former: Mapping[str, float]):
    """Adds the seconds of the sessions before, as `seconds` gave them."""
    for kind in KINDS:
      self._sums[kind] += former.get(kind, 0.0)

  def _turn(self):
    now = time.perf_counter()
    self._sums[self._now[-1]] += now - self._since
    self._since = now

  @contextlib.contextmanager
  def span(self, kind: str) -> Iterator[None]:
    self._turn()
    self._now.append(kind)
    try:
      yield
    finally:
      self._turn()
      self._now.pop()

  def seconds(self) -> dict[str, float]:
    """Seconds by kind, and `total`."""
    self._turn()
    return {**self._sums, 'total': sum(self._sums.values())}


class Trace:
  """Traces steps [first, last) of a run into WORKDIR/trace, on process 0.

  TensorBoard and Perfetto show it.

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
