"""Shared memory through which worker processes hand over whole batches.

Grain puts every array of an element into a new piece of shared memory: its pages are
made and zeroed for each batch, and a process that tracks them hears of each six times.
Here a worker writes into one of a few slots that stay, and the pipe carries what lies
where. A worker never waits for a slot: where none is free, or the batch is larger, it
sends the batch as Grain does.
"""

import dataclasses
import math
import mmap
import os
from typing import Any, Mapping, Sequence

import numpy as np

_ALIGN = 64


@dataclasses.dataclass(frozen=True)
class Layout:
  """What lies in a slot: (name, dtype, shape) of each array, one after the other."""

  fields: tuple[tuple[str, str, tuple[int, ...]], ...]


class Ring:
  """Slots of several workers, which make batches in turns, some at once.

  Of W workers that make C at once worker w makes batches i with (i div C) mod W = w. It
  writes them; this process, which made the ring, takes batches in order. It counts for
  each worker how many it has taken, in the memory that all share: a slot is free once
  what it held before was taken.
  """

  def __init__(
    self, workers: int, at_once: int, slots: int, slot_bytes: int, path: str = ''
  ):
    """
    Args:
      workers: W, at least 1.
      at_once: C, at least 1.
      slots: of each worker, at least 1.
      slot_bytes: of one slot; pages that nobody touches take no memory.
      path: of the memory of another process; '': a new one, anonymous.
    """
    self.workers, self.at_once, self.slots = workers, at_once, slots
    self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    self._head = -(-8 * workers // mmap.PAGESIZE) * mmap.PAGESIZE
    size = self._head + workers * slots * self.slot_bytes
    self._file = open(path, 'r+b') if path else open(os.memfd_create('dlx-ring'), 'r+b')
    if not path:
      self._file.truncate(size)
    self._memory = mmap.mmap(self._file.fileno(), size)
    self._taken = np.frombuffer(self._memory, np.int64, workers)

  def __reduce__(self):
    path = f'/proc/{os.getpid()}/fd/{self._file.fileno()}'
    return Ring, (self.workers, self.at_once, self.slots, self.slot_bytes, path)

  def _place(self, i: int) -> tuple[int, int]:
    """The worker of batch i, and its number among those of this worker."""
    turn, one = divmod(i, self.at_once)
    round_, worker = divmod(turn, self.workers)
    return worker, round_ * self.at_once + one

  def put(self, i: int, batch: Mapping[str, np.ndarray]) -> Layout | None:
    """In a worker: writes batch i; None: there was no room, nothing was written."""
    worker, number = self._place(i)
    fields = tuple((name, x.dtype.str, x.shape) for name, x in batch.items())
    described = all(
      np.dtype(d) == x.dtype for (_, d, _), x in zip(fields, batch.values())
    )
    free = number - int(self._taken[worker]) < self.slots
    if not (free and described) or _ends(fields)[-1] > self.slot_bytes:
      return None
    for view, x in zip(self._views(i, fields), batch.values(), strict=True):
      view[...] = x
    return Layout(fields)

  def take(self, i: int, layout: Layout) -> dict[str, np.ndarray]:
    """Copies of the arrays of batch i, whose slot is free afterwards."""
    views = self._views(i, layout.fields)
    found = {f[0]: np.array(view) for f, view in zip(layout.fields, views, strict=True)}
    self.skip(i)
    return found

  def skip(self, i: int):
    """Batch i came another way."""
    worker, number = self._place(i)
    self._taken[worker] = number + 1

  def close(self):
    """Gives the memory back once no process has it."""
    self._file.close()

  def _views(self, i: int, fields: Sequence[tuple[str, str, Any]]) -> list[np.ndarray]:
    worker, number = self._place(i)
    slot = worker * self.slots + number % self.slots
    begin = self._head + slot * self.slot_bytes
    return [
      np.frombuffer(self._memory, dtype, math.prod(shape), begin + at).reshape(shape)
      for (_, dtype, shape), at in zip(fields, _ends(fields))
    ]


def _ends(fields: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[int]:
  """Where each array begins in a slot, and where the last ends."""
  ends = [0]
  for _, dtype, shape in fields:
    size = np.dtype(dtype).itemsize * math.prod(shape)
    ends.append(ends[-1] + -(-size // _ALIGN) * _ALIGN)
  return ends


def batch_bytes(shapes: Sequence[Mapping[str, Any]]) -> int:
  """What a slot needs for the largest of the declared shapes; 0: none is declared."""
  sizes = [
    _ends([(name, np.dtype(x.dtype).str, x.shape) for name, x in one.items()])[-1]
    for one in shapes
  ]
  return max(sizes, default=0)


def is_possible() -> bool:
  """Whether this system has anonymous memory that another process can open."""
  return hasattr(os, 'memfd_create') and os.path.isdir('/proc/self/fd')
