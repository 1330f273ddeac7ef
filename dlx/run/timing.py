"""Where the time of a run goes, in seconds, over all its sessions."""

import contextlib
import time
from typing import Iterator, Mapping

KINDS = ('compile', 'input', 'train', 'eval', 'save', 'figures', 'other')


class Clock:
  """Sums wall time by kind; what no other kind claims is `train` while stepping.

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
