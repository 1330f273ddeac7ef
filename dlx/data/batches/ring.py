"""Shared memory through which worker processes hand over whole batches.

Grain puts every array of an element into a new piece of shared memory: its pages are
made and zeroed for each batch, and a process that tracks them hears of each six times.
Here a worker makes a batch in one of a few slots that stay, the pipe carries what lies
where, and the reader gets arrays that lie in the slot: no byte is copied after the
source has written it. A worker never waits for a slot: where none is free, or the batch
is larger, it sends the batch as Grain does.
"""

import dataclasses
import math
import mmap
import os
from typing import Any, Mapping, Sequence
import weakref

import numpy as np

_ALIGN = 64
LENT = 8  # Batches that a reader may hold; of what it takes beyond it gets copies.


@dataclasses.dataclass(frozen=True)
class Layout:
  """What lies in a slot: (name, dtype, shape, where it begins) of each array."""

  slot: int
  fields: tuple[tuple[str, str, tuple[int, ...], int], ...]


class Room:
  """A free slot: the arrays of one batch are made in it, or else are copied there."""

  def __init__(self, slot: int, memory: np.ndarray):
    """Args: memory: of the slot, uint8, aligned."""
    self.slot, self._memory, self._used = slot, memory, 0
    self._begin = memory.__array_interface__['data'][0]

  def empty(self, shape: Sequence[int] | int, dtype: Any) -> np.ndarray:
    """As `np.empty`, in the slot as long as it has room."""
    made = self._next(tuple(np.atleast_1d(shape)), np.dtype(dtype))
    return np.empty(shape, dtype) if made is None else made

  def layout(self, batch: Mapping[str, np.ndarray]) -> Layout | None:
    """Has all arrays of a batch in the slot; None: there is no room for them.

    Args:
      batch: of contiguous arrays, some of which `empty` may have made.
    """
    fields = []
    for name, x in batch.items():
      if np.dtype(x.dtype.str) != x.dtype:
        return None  # Of no dtype that NumPy has a name for.
      at = self._place(x)
      if at is None:
        copy = self._next(x.shape, x.dtype)
        if copy is None:
          return None
        copy[...] = x
        at = self._place(copy)
      fields.append((name, x.dtype.str, x.shape, at))
    return Layout(self.slot, tuple(fields))

  def _next(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    begin, size = self._used, dtype.itemsize * math.prod(shape)
    if begin + size > len(self._memory) or dtype.hasobject:
      return None
    self._used += _aligned(size)
    return _view(self._memory, begin, dtype, shape)

  def _place(self, x: np.ndarray) -> int | None:
    """Where in the slot an array begins; None: it lies elsewhere."""
    begin = x.__array_interface__['data'][0] - self._begin
    return begin if 0 <= begin <= len(self._memory) - x.nbytes else None


class Ring:
  """Slots of several workers, which make batches in turns, some at once.

  Of W workers that make C at once worker w makes batches i with (i div C) mod W = w. It
  writes them; this process, which made the ring, takes them. A byte a slot, in the
  memory that all share, says whether the slot is taken: its worker sets it when the
  batch is written, this process unsets it when nothing refers to its arrays any more.
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
    self._head = -(-workers * slots // mmap.PAGESIZE) * mmap.PAGESIZE
    size = self._head + workers * slots * self.slot_bytes
    self._file = open(path, 'r+b') if path else open(os.memfd_create('dlx-ring'), 'r+b')
    if not path:
      self._file.truncate(size)
    self._memory = mmap.mmap(self._file.fileno(), size)
    self._taken = np.frombuffer(self._memory, np.uint8, workers * slots)
    self._lent: set[int] = set()  # Here: slots whose arrays the reader holds.
    self._made: dict[int, weakref.ref] = {}  # In a worker: memory of its slots.

  def __reduce__(self):
    path = f'/proc/{os.getpid()}/fd/{self._file.fileno()}'
    return Ring, (self.workers, self.at_once, self.slots, self.slot_bytes, path)

  def room(self, i: int) -> Room | None:
    """In a worker: a slot for batch i; None: none is free.

    Of those that are free the first, so that few pages are used. What a source kept of
    a batch that it made here is not written over.
    """
    first = i // self.at_once % self.workers * self.slots
    for slot in range(first, first + self.slots):
      held = self._made.get(slot)
      if not self._taken[slot] and (held is None or held() is None):
        memory = self._slot(slot)
        self._made[slot] = weakref.ref(memory)
        return Room(slot, memory)
    return None

  def put(self, room: Room, batch: Mapping[str, np.ndarray]) -> Layout | None:
    """In a worker: hands over a batch; None: it does not fit, and goes another way."""
    layout = room.layout(batch)
    if layout is not None:
      self._taken[layout.slot] = 1
    return layout

  def take(self, layout: Layout) -> dict[str, np.ndarray]:
    """The arrays of a batch; their slot is free once nothing refers to them."""
    slot = layout.slot
    memory = self._slot(slot)  # The one base of all views of it.
    found = {
      name: _view(memory, at, np.dtype(dtype), shape)
      for name, dtype, shape, at in layout.fields
    }
    if len(self._lent) >= LENT:
      found = {name: np.array(x) for name, x in found.items()}
      self._taken[slot] = 0
      return found
    self._lent.add(slot)
    weakref.finalize(memory, self._give_back, slot).atexit = False
    return found

  def close(self):
    """Gives the memory back once nothing refers to it in any process."""
    self._file.close()

  def _give_back(self, slot: int):
    self._lent.discard(slot)
    self._taken[slot] = 0

  def _slot(self, slot: int) -> np.ndarray:
    begin = self._head + slot * self.slot_bytes
    return np.frombuffer(self._memory, np.uint8, self.slot_bytes, begin)


def _aligned(size: int) -> int:
  return -(-size // _ALIGN) * _ALIGN


def _view(
  memory: np.ndarray, begin: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
  end = begin + dtype.itemsize * math.prod(shape)
  return memory[begin:end].view(dtype).reshape(shape)


def batch_bytes(shapes: Sequence[Mapping[str, Any]]) -> int:
  """What a slot needs for the largest of the declared shapes; 0: none is declared."""
  size = lambda x: np.dtype(x.dtype).itemsize * math.prod(x.shape)
  return max(
    (sum(_aligned(size(x)) for x in one.values()) for one in shapes), default=0
  )


def is_possible() -> bool:
  """Whether this system has anonymous memory that another process can open."""
  return hasattr(os, 'memfd_create') and os.path.isdir('/proc/self/fd')
