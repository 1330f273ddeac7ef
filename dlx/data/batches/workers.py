"""The worker processes that make batches ahead: what they get, and how they end.

A worker is spawned by Grain. It gets a source of whole batches once, large arrays as
memory that all workers share, memory-mapped files by their name. It leaves signals to
its parent, ends with it, never touches an accelerator, and turns every failure into an
exception that arrives.
"""

import io
import mmap
import multiprocessing
from multiprocessing import connection, resource_tracker
import os
import pickle
import signal
import threading
import time
import traceback
from typing import Any, Sequence

import jax
import numpy as np

from dlx import leaving
from dlx.data.batches.ring import Ring, is_possible
from dlx.data.dataset import Streamed
from dlx.data.room import made_by
from dlx.errors import ConfigError, DataError

_SHARED_BYTES = 2**16  # Arrays from this size on are shared, not pickled.
_GRACE_SECONDS = 2.0  # For the batch that a worker is making when it is told to stop.


class BatchError(RuntimeError):
  """A batch that could not be made; names the step. A note has a worker's traceback."""


class WholeBatches:
  """Random access to whole batches: element i is (start + i, that batch)."""

  def __init__(self, dataset: Streamed, data: Any, start: int, stop: int, rows: slice):
    self.dataset, self.data = dataset, data
    self.start, self.stop, self.rows = start, stop, rows

  def __len__(self) -> int:
    return self.stop - self.start

  def __getitem__(self, index) -> tuple[int, dict[str, np.ndarray]]:
    step = self.start + int(index)
    try:
      batch = self.dataset.get(self.data, step, self.rows)
      return step, {name: _plain(name, x) for name, x in batch.items()}
    except ConfigError as error:
      kind = DataError if isinstance(error, DataError) else ConfigError
      raise kind(f'Batch {step}: {error}') from error
    except BaseException as error:
      # A string survives every pickle; an exception that did not would be lost between
      # the processes, and so would SystemExit: the loop would wait for ever.
      name = type(self.dataset).__name__
      failure = BatchError(f'Batch {step} of {name}: {type(error).__name__}: {error}')
      if multiprocessing.parent_process() is not None:
        failure.add_note(traceback.format_exc())
      raise failure from error


def _plain(name: str, x: Any) -> np.ndarray:
  x = np.asarray(x)
  if x.dtype.hasobject:
    raise TypeError(f'field {name!r} of dtype {x.dtype} is no array of numbers')
  return x if x.flags.c_contiguous else np.ascontiguousarray(x)


class SharedBatches(WholeBatches):
  """A source that is pickled without its large arrays, which lie in shared memory.

  On Linux that is an anonymous file, which workers open through this process's entry in
  /proc: it is not bounded by the size of /dev/shm, has no name to clean up and is freed
  with the last process that has it, however that ends. Elsewhere all is pickled.
  """

  def __init__(self, source: WholeBatches, ring: Ring | None = None, at_once: int = 1):
    """
    Args:
      source: of single batches.
      ring: what workers write batches into; None: they are sent by Grain.
      at_once: batches of one element, at least 1.
    """
    super().__init__(
      source.dataset, source.data, source.start, source.stop, source.rows
    )
    self.ring, self.at_once = ring, at_once
    self.file, self.spans, buffers = None, [], []
    shares = is_possible()

    def take(buffer: pickle.PickleBuffer) -> bool:
      """Whether the buffer stays within the pickle."""
      if not shares or buffer.raw().nbytes < _SHARED_BYTES:
        return True
      buffers.append(buffer.raw())
      return False

    self.payload = _dumps(source, take)
    if buffers:
      self.file = open(os.memfd_create('dlx-data'), 'r+b')
      for raw in buffers:
        begin = -(-self.file.tell() // 64) * 64
        self.file.seek(begin)
        self.file.write(raw)
        self.spans.append((begin, begin + raw.nbytes))
      self.file.flush()

  def close(self) -> None:
    for held in (self.file, self.ring):
      if held is not None:
        held.close()

  def __reduce__(self):
    path = None if self.file is None else f'/proc/{os.getpid()}/fd/{self.file.fileno()}'
    return _open, (self.payload, path, self.spans, self.ring, self.at_once)

  def __len__(self) -> int:
    return (super().__len__() + self.at_once - 1) // self.at_once


def _dumps(source: WholeBatches, buffer_callback) -> bytes:
  import cloudpickle  # As Grain does: for what pickle alone does not know by name.

  class Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj):
      if (
        isinstance(obj, np.memmap)
        and isinstance(obj.base, mmap.mmap)
        and obj.filename is not None
        and obj.mode in ('r', 'r+')
      ):
        order = 'C' if obj.flags.c_contiguous else 'F'
        return np.memmap, (obj.filename, obj.dtype, 'r', obj.offset, obj.shape, order)
      return super().reducer_override(obj)

  out = io.BytesIO()
  Pickler(out, protocol=5, buffer_callback=buffer_callback).dump(source)
  return out.getvalue()


class _Sent(WholeBatches):
  """In a worker: element e is a list of the next C batches, each (step, batch).

  A batch in the ring is told by its layout. One that failed ends the list, as
  an exception; where it is the first, it is raised.
  """

  def __init__(self, source: WholeBatches, ring: Ring | None, at_once: int):
    super().__init__(
      source.dataset, source.data, source.start, source.stop, source.rows
    )
    self.ring, self.at_once = ring, at_once

  def __len__(self) -> int:
    return (super().__len__() + self.at_once - 1) // self.at_once

  def __getitem__(self, index) -> list[tuple[int, Any]]:
    begin = int(index) * self.at_once
    end = min(begin + self.at_once, super().__len__())
    found: list[tuple[int, Any]] = []
    for i in range(begin, end):
      try:
        found.append(self._one(i))
      except (BatchError, ConfigError) as error:
        if not found:
          raise
        return [*found, (self.start + i, error)]
    return found

  def _one(self, i: int) -> tuple[int, Any]:
    """Keeps no batch: where two are alive, malloc gives their pages back each time."""
    room = None if self.ring is None else self.ring.room(i)
    if self.ring is None or room is None:
      return super().__getitem__(i)
    with made_by(room.empty):
      step, batch = super().__getitem__(i)
    layout = self.ring.put(room, batch)
    return step, batch if layout is None else layout


def _open(
  payload: bytes, path: str | None, spans: list, ring: Ring | None, at_once: int
) -> WholeBatches:
  """In a worker: the source, its large arrays as read-only views of shared memory."""
  buffers = []
  if path is not None:
    with open(path, 'rb') as file:
      view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    buffers = [view[begin:end] for begin, end in spans]
  return _Sent(pickle.loads(payload, buffers=buffers), ring, at_once)


def begin_worker(index: int, count: int) -> None:
  """In a worker, before it makes anything."""
  del index, count
  for number in leaving.SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, leaving.SIGNALS)
  jax.config.update('jax_platforms', 'cpu')  # Accelerators are the parent's.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """In a worker: ends it when the process that spawned it is gone.

  Not by PR_SET_PDEATHSIG: that fires when the *thread* which spawned the worker ends,
  and Grain spawns from a thread of its own.
  """
  parent = multiprocessing.parent_process()
  assert parent is not None and parent.pid is not None
  while os.getppid() == parent.pid and not connection.wait([parent.sentinel], 1.0):
    pass
  os._exit(1)


_starting = threading.Lock()


def start_workers(iterator: Any, num_workers: int) -> list:
  """Starts the workers of an iterator at once and returns their processes.

  They are born with signals blocked, until `begin_worker` ignores them, since a Ctrl-C
  while they import reaches them too. Masks are inherited: from this thread by the one
  that spawns, and from that by the worker.
  """
  with _starting:
    before = set(multiprocessing.active_children())
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, leaving.SIGNALS)
    try:
      # The first spawn would start this helper, which ignores but two of the signals,
      # keeps the others blocked for itself, and unblocks those two here.
      resource_tracker.ensure_running()
      signal.pthread_sigmask(signal.SIG_BLOCK, leaving.SIGNALS)
      iterator.get_state()  # Makes an iterator for each worker ...
      iterator.start_prefetch()  # ... and a thread that spawns it.
      deadline = time.monotonic() + 10
      while True:
        children = set(multiprocessing.active_children()) - before
        spawned = [p for p in children if p.name.startswith('grain')]
        if len(spawned) >= num_workers or time.monotonic() > deadline:
          return spawned
        time.sleep(0.005)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def end_workers(
  workers: Sequence[Any], closing: threading.Event, closed: threading.Event
) -> None:
  """Kills workers that go on for long after they were told to stop.

  Grain waits for the batch that each is making, which may never come.
  """
  closing.wait()
  if not closed.wait(_GRACE_SECONDS):
    for worker in workers:
      worker.kill()
