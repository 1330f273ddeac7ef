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
  """Slots of several workers; element i is of worker i mod W, in the order of i.

  The worker of an element writes it; this process, which made the ring, takes elements
  in order. It counts for each worker how many it has taken, in the memory that all
  share: a slot is free once what it held before was taken.
  """

  def __init__(self, workers: int, slots: int, slot_bytes: int, path: str = ''):
    """
    Args:
      workers: W, at least 1.
      slots: of each worker, at least 1.
      slot_bytes: of one slot; pages that nobody touches take no memory.
      path: of the memory of another process; '': a new one, anonymous.
    """
    self.workers, self.slots = workers, slots
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
    return Ring, (self.workers, self.slots, self.slot_bytes, path)

  def put(self, i: int, batch: Mapping[str, np.ndarray]) -> Layout | None:
    """In a worker: writes element i; None: there was no room, nothing was written."""
    worker, number = i % self.workers, i // self.workers
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
    """Copies of the arrays of element i, whose slot is free afterwards."""
    views = self._views(i, layout.fields)
    found = {f[0]: np.array(view) for f, view in zip(layout.fields, views, strict=True)}
    self.skip(i)
    return found

  def skip(self, i: int):
    """Element i came another way."""
    self._taken[i % self.workers] = i // self.workers + 1

  def close(self):
    """Gives the memory back once no process has it."""
    self._file.close()

  def _views(self, i: int, fields: Sequence[tuple[str, str, Any]]) -> list[np.ndarray]:
    worker, number = i % self.workers, i // self.workers
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


def of_shapes(workers: int, slots: int, shapes: Sequence[Mapping[str, Any]]):
  """A ring for batches of declared shapes; None: nothing is declared, or no Linux."""
  sizes = [
    _ends([(name, np.dtype(x.dtype).str, x.shape) for name, x in one.items()])[-1]
    for one in shapes
  ]
  shares = hasattr(os, 'memfd_create') and os.path.isdir('/proc/self/fd')
  return Ring(workers, slots, max(sizes)) if shares and max(sizes, default=0) else None
