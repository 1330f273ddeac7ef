"""Data sets whose batches are made on the host, and the pipeline that makes them ahead.

  ShuffledStream, InOrderStream   the streamed forms of resident.py, same bits
  batches                         their batches in order, by threads or processes

An element of the pipeline is one whole batch, so it has no state but the number of the
next step: it begins at any step, and neither the number of workers nor that of hosts
changes a batch. Worker processes are Grain's; batches lie in memory that stays.
"""

import collections
import contextlib
import gc
from multiprocessing import util
import threading
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from dlx.data.batches.permutation import host_rows
from dlx.data.batches.ring import LENT, Layout, Ring, batch_bytes, is_possible
from dlx.data.batches.threads import Threaded
from dlx.data.batches.workers import (
  BatchError,
  SharedBatches,
  WholeBatches,
  begin_worker,
  end_workers,
  start_workers,
)
from dlx.data.dataset import Loaded, Shapes, Source, Streamed
from dlx.data.lazy import drawn
from dlx.data.room import picked
from dlx.data.sources import batch_shapes, loaded_for, num_examples, read
from dlx.errors import ConfigError

Batch = Mapping[str, np.ndarray]
# Batches that a worker sends together: what Grain does for each element takes 0.3 ms of
# CPU, more than the making of a batch of small images.
AT_ONCE, AT_ONCE_BYTES = 8, 8 * 2**20


class _FromSource(Streamed):
  """A streamed data set over the arrays of one source."""

  def __init__(self, source: Source, shapes: Shapes, batch_size: int, num_workers: int):
    if num_workers < 0:
      raise ConfigError(f'workers={num_workers} is not allowed: must be at least 0.')
    self.source = source
    self.shapes = (shapes,)
    self.size = source.size
    self.batch_size = batch_size
    self.num_workers = num_workers

  def load(self, data_dir=None) -> Loaded:
    return read(self.source, data_dir)

  def count(self, data: Any) -> int:
    """Examples of loaded data."""
    return num_examples(data)

  def examples(self, data: Any, index: Any) -> dict[str, np.ndarray]:
    """The examples of these numbers, in this order; each field [R, ...]."""
    return {name: picked(x, index) for name, x in data.items()}


class ShuffledStream(_FromSource):
  """The training stream of `resident.Shuffled`, bit for bit, from the host."""

  def __init__(
    self,
    source: Source,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    *,
    num_workers: int = 2,
  ):
    super().__init__(source, batch_shapes(source, batch_size), batch_size, num_workers)
    self.seed = int(seed)
    self.shuffle = shuffle

  def load(self, data_dir=None) -> Loaded:
    return loaded_for(self.source, self.batch_size, data_dir)

  def get(self, data: Any, step: int, rows: slice) -> dict[str, np.ndarray]:
    seed = self.seed if self.shuffle else None
    index = host_rows(seed, step, rows, self.count(data), self.batch_size)
    if not self.source.on_demand:
      return self.examples(data, index)
    within = np.arange(*rows.indices(self.batch_size), dtype=np.uint64)
    place = np.uint64(step) * np.uint64(self.batch_size) + within
    return {name: drawn(x, index, self.seed, place) for name, x in data.items()}


class InOrderStream(_FromSource):
  """The pass of `resident.InOrder`, bit for bit, from the host."""

  def __init__(self, source: Source, batch_size: int, *, num_workers: int = 2):
    shapes = batch_shapes(source, batch_size, weight=True)
    super().__init__(source, shapes, batch_size, num_workers)

  def num_batches(self, data: Any) -> int:
    return -(-self.count(data) // self.batch_size)

  def get(self, data: Any, step: int, rows: slice) -> dict[str, np.ndarray]:
    n = self.count(data)
    if not 0 <= step < self.num_batches(data):
      raise IndexError(f'a pass has {self.num_batches(data)} batches')
    place = step * self.batch_size + np.arange(*rows.indices(self.batch_size))
    index = np.minimum(place, n - 1)
    weight = (place < n).astype(np.float32)
    return {**self.examples(data, index), 'weight': weight}


class Batches(Iterator[Batch]):
  """Batches in order; see `batches`. Also a context manager that closes."""

  def __init__(
    self,
    iterator: Any,
    start: int,
    stop: int,
    shared: SharedBatches | None = None,
    workers: Sequence[Any] = (),
  ):
    self._pipeline, self._shared = [iterator], shared
    self._start, self._step, self._stop = start, start, stop
    self._at_hand: collections.deque[tuple[int, Any]] = collections.deque()
    closing, closed = threading.Event(), threading.Event()
    if workers:
      # A thread made now, since none can be made while the interpreter leaves.
      threading.Thread(
        target=end_workers, args=(workers, closing, closed), daemon=True
      ).start()
    # Runs at close, when the object is collected, or at exit: there before
    # multiprocessing asks the workers by SIGTERM, which they ignore, and waits.
    self._close = util.Finalize(
      self, _close, args=(self._pipeline, shared, closing, closed), exitpriority=100
    )

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> Batch:
    """The next batch. Raises BatchError, or the DataError that a `get` raised."""
    if self._step >= self._stop or not self._close.still_active():
      self.close()
      raise StopIteration
    try:
      if not self._at_hand:
        found = next(self._pipeline[0])
        self._at_hand.extend([found] if self._shared is None else found)
      step, batch = self._at_hand.popleft()
      if isinstance(batch, Exception):
        raise batch
      if step != self._step:
        raise BatchError(f'Batch {self._step}: the pipeline gave batch {step}.')
    except (BatchError, ConfigError):
      self.close()
      raise
    except Exception as error:
      self.close()
      raise BatchError(
        f'Batch {self._step}: {error} (Out of memory, or /dev/shm too small for '
        'the batches that wait there, are the usual reasons.)'
      ) from error
    self._step += 1
    if self._shared is None:
      return batch
    ring = self._shared.ring
    if ring is not None and isinstance(batch, Layout):
      return ring.take(batch)
    # A copy frees the shared memory now, not when the last reader is collected, which
    # may be at exit, when Grain can no longer do it.
    return {name: np.array(x) for name, x in batch.items()}

  def close(self) -> None:
    """Ends threads and workers, the latter within seconds, whatever they do."""
    self._close()

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *exception) -> None:
    self.close()


def batches(
  dataset: Streamed,
  data: Any,
  start: int,
  stop: int | None,
  rows: slice,
  *,
  num_workers: int | None = None,
  buffer: int = 2,
) -> Batches:
  """Those rows of batches `start` to `stop - 1`, made ahead of their use.

  Workers are spawned processes. They get `dataset` and `data` once: large arrays as
  memory that all of them share, memory-mapped files by their name, all else pickled.
  They ignore SIGINT and SIGTERM (what to do about those is this process's to decide),
  end by themselves when this process is gone, and never touch an accelerator. A script
  that uses them needs `if __name__ == '__main__':`, as always with spawn.

  Args:
    dataset: its `get` is called with `data`, the step and `rows`; picklable.
    data: what `dataset.load` gave.
    start: first step.
    stop: step after the last; None: of the pass, or 2**31 - 1 where there is no end.
    rows: of the global batch: those of this process.
    num_workers: processes; 0: threads of this one; None: `dataset.num_workers`. Never
      more than there are batches, and none for a single one.
    buffer: batches that wait for their use: for each worker (at least 2, and two more
      are in its hands and on their way), or in total where there are none. Workers send
      small batches up to AT_ONCE together; so many count as one here.

  Returns:
    An iterator; close it. The arrays that it gives are the caller's; those of workers
    may lie where they were made, in memory that is used again once nothing refers to
    them (a reader that holds more than LENT batches gets copies).

  Raises:
    ValueError: an impossible argument.
  """
  if stop is None:
    count = dataset.num_batches(data)
    stop = 2**31 - 1 if count is None else count
  workers = dataset.num_workers if num_workers is None else num_workers
  for name, value, holds in (
    ('start', start, 0 <= start),
    ('stop', stop, start <= stop < 2**31),
    ('num_workers', workers, workers >= 0),
    ('buffer', buffer, buffer >= 1),
  ):
    if not holds:
      raise ValueError(f'batches: {name}={value} is not allowed.')
  workers = min(workers, stop - start) if stop - start > 1 else 0
  source = WholeBatches(dataset, data, start, stop, rows)
  if not workers:
    return Batches(Threaded(source, min(buffer, 4), buffer), start, stop)
  import grain  # Not before it is needed: it takes a second.

  inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  # Grain has two queues a worker, of this size each: one on either side of the pipe.
  queues = grain.MultiprocessingOptions(
    num_workers=workers, per_worker_buffer_size=max(1, buffer // 2)
  )
  size = batch_bytes(dataset.shapes)
  at_once, ring = _at_once(size, (stop - start) // workers), None
  if size and is_possible():
    # As many elements wait in each worker's queues, are on their way or in the making.
    slots = at_once * (2 * queues.per_worker_buffer_size + 3) + LENT
    # Twice the size: a source may make an array there and hand over another.
    ring = Ring(workers, at_once, slots, 2 * size)
  shared = SharedBatches(source, ring, at_once)
  pipeline = grain.MapDataset.source(shared).to_iter_dataset(inline)
  iterator = iter(pipeline.mp_prefetch(queues, worker_init_fn=begin_worker))
  try:
    return Batches(iterator, start, stop, shared, start_workers(iterator, workers))
  except Exception as error:
    shared.close()
    if type(error).__name__ != 'UnparsedFlagAccessError':
      raise
    raise ConfigError(
      'stream_workers: worker processes need absl flags that are parsed: call '
      'absl.flags.FLAGS.mark_as_parsed() first where no launcher did, or use 0.'
    ) from error


def _at_once(size: int, most: int) -> int:
  """Batches that a worker sends together, of so many bytes each; 0: not known."""
  return max(1, min(AT_ONCE, AT_ONCE_BYTES // size, most)) if size else 1


def _close(
  pipeline: list,
  shared: SharedBatches | None,
  closing: threading.Event,
  closed: threading.Event,
) -> None:
  closing.set()
  pipeline.pop().close()
  closed.set()
  if shared is not None:
    shared.close()
    _free_elements()


def _free_elements() -> None:
  """Frees the shared memory of elements that Grain had made and nobody took.

  They hang in cycles of tracebacks and are freed by a thread; at exit both come too
  late, with complaints of leaks and of modules that are gone.
  """
  gc.collect()
  with contextlib.suppress(ImportError, AttributeError):  # No public name; cosmetic.
    from grain._src.python.ipc.shared_memory_array import SharedMemoryArray

    if (thread := SharedMemoryArray._del_thread_pool) is not None:
      thread.apply(int)  # After all that it was given before.
