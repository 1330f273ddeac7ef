"""Data sets whose batches are made on the host, and the pipeline that makes them ahead.

  ShuffledStream, InOrderStream   the streamed forms of dlx/data/resident.py, same bits
  batches                         their batches in order, by threads or worker processes

The pipeline is Grain's, over a source whose element is one whole batch, so it has no
state but the number of the next step: it begins at any step, and neither the number of
workers nor that of hosts changes a batch.
"""

import io
import mmap
import multiprocessing
from multiprocessing import connection, resource_tracker, util
import os
import pickle
import signal
import threading
import time
import traceback
from typing import Any, Iterator, Mapping, Sequence

import jax
import numpy as np

from dlx.data.dataset import Loaded, Shapes, Source, Streamed
from dlx.data.permutation import stream_rows
from dlx.data.resident import batch_shapes, num_examples, read
from dlx.errors import ConfigError, DataError

Batch = Mapping[str, np.ndarray]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 2.0  # For the batch that a worker is making when it is told to stop.
_SHARED_BYTES = 2**16  # Arrays from this size on reach the workers as shared memory.


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


class ShuffledStream(_FromSource):
  """The training stream of `resident.Shuffled`, bit for bit, from the host."""

  def __init__(
    self, source: Source, batch_size: int, seed: int, *, num_workers: int = 2
  ):
    super().__init__(source, batch_shapes(source, batch_size), batch_size, num_workers)
    self.seed = int(seed)

  def get(self, data: Batch, step: int, rows: slice) -> dict[str, np.ndarray]:
    wanted = np.arange(*rows.indices(self.batch_size))
    n = num_examples(data)
    index = stream_rows(self.seed, step, wanted, n, self.batch_size, xp=np)
    return {name: x[index] for name, x in data.items()}


class InOrderStream(_FromSource):
  """The pass of `resident.InOrder`, bit for bit, from the host."""

  def __init__(self, source: Source, batch_size: int, *, num_workers: int = 2):
    shapes = batch_shapes(source, batch_size, weight=True)
    super().__init__(source, shapes, batch_size, num_workers)

  def num_batches(self, data: Batch) -> int:
    return -(-num_examples(data) // self.batch_size)

  def get(self, data: Batch, step: int, rows: slice) -> dict[str, np.ndarray]:
    n = num_examples(data)
    if not 0 <= step < self.num_batches(data):
      raise IndexError(f'a pass has {self.num_batches(data)} batches')
    place = step * self.batch_size + np.arange(*rows.indices(self.batch_size))
    index = np.minimum(place, n - 1)
    weight = (place < n).astype(np.float32)
    return {**{name: x[index] for name, x in data.items()}, 'weight': weight}


class BatchError(RuntimeError):
  """A batch that could not be made; names the step. A note has a worker's traceback."""


class Batches(Iterator[Batch]):
  """Batches in order; see `batches`. Also a context manager that closes."""

  def __init__(
    self,
    iterator: Any,
    start: int,
    stop: int,
    shared: '_SharedSource | None' = None,
    workers: Sequence[Any] = (),
  ):
    self._iterator, self._copies = iterator, bool(workers)
    self._step, self._stop = start, stop
    closing, closed = threading.Event(), threading.Event()
    if workers:
      # A thread made now, since none can be made while the interpreter leaves.
      threading.Thread(
        target=_end_workers, args=(workers, closing, closed), daemon=True
      ).start()
    # Runs at close, when the object is collected, or at exit: there before
    # multiprocessing asks the workers by SIGTERM, which they ignore, and waits.
    self._close = util.Finalize(
      self, _close, args=(iterator, shared, closing, closed), exitpriority=100
    )

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> Batch:
    """The next batch. Raises BatchError, or the DataError that a `get` raised."""
    if self._step >= self._stop or not self._close.still_active():
      self.close()
      raise StopIteration
    try:
      step, batch = next(self._iterator)
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
    # A copy frees the shared memory now, not when the last reader is collected, which
    # may be at exit, when Grain can no longer do it.
    return {name: np.array(x) for name, x in batch.items()} if self._copies else batch

  def close(self) -> None:
    """Ends threads and workers, the latter within seconds, whatever they do."""
    self._close()
    self._iterator = None  # Collected at exit, it would complain of modules gone.

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
      are in its hands and on their way), or in total where there are none.

  Returns:
    An iterator; close it.

  Raises:
    ValueError: an impossible argument.
  """
  import grain

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
  source = _Source(dataset, data, start, stop, rows)
  if not workers:
    threads = grain.ReadOptions(num_threads=min(buffer, 4), prefetch_buffer_size=buffer)
    iterator = iter(grain.MapDataset.source(source).to_iter_dataset(threads))
    iterator.start_prefetch()
    return Batches(iterator, start, stop)
  inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  # Grain has two queues a worker, of this size each: one on either side of the pipe.
  queues = grain.MultiprocessingOptions(
    num_workers=workers, per_worker_buffer_size=max(1, buffer // 2)
  )
  shared = _SharedSource(source)
  pipeline = grain.MapDataset.source(shared).to_iter_dataset(inline)
  iterator = iter(pipeline.mp_prefetch(queues, worker_init_fn=_begin_worker))
  try:
    return Batches(iterator, start, stop, shared, _start(iterator, workers))
  except Exception as error:
    shared.close()
    if type(error).__name__ != 'UnparsedFlagAccessError':
      raise
    raise ConfigError(
      'stream_workers: worker processes need absl flags that are parsed: call '
      'absl.flags.FLAGS.mark_as_parsed() first where no launcher did, or use 0.'
    ) from error


class _Source:
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


class _SharedSource(_Source):
  """A source that is pickled without its large arrays, which lie in shared memory.

  On Linux that is an anonymous file, which workers open through this process's entry in
  /proc: it is not bounded by the size of /dev/shm, has no name to clean up and is freed
  with the last process that has it, however that ends. Elsewhere all is pickled.
  """

  def __init__(self, source: _Source):
    super().__init__(
      source.dataset, source.data, source.start, source.stop, source.rows
    )
    self.file, self.spans, buffers = None, [], []
    shares = hasattr(os, 'memfd_create') and os.path.isdir('/proc/self/fd')

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
    if self.file is not None:
      self.file.close()

  def __reduce__(self):
    path = None if self.file is None else f'/proc/{os.getpid()}/fd/{self.file.fileno()}'
    return _open_source, (self.payload, path, self.spans)


def _dumps(source: _Source, buffer_callback) -> bytes:
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


def _open_source(payload: bytes, path: str | None, spans: list) -> _Source:
  """In a worker: the source, its large arrays as read-only views of shared memory."""
  if path is None:
    return pickle.loads(payload)
  with open(path, 'rb') as file:
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
  return pickle.loads(payload, buffers=[view[begin:end] for begin, end in spans])


def _begin_worker(index: int, count: int) -> None:
  """In a worker, before it makes anything."""
  del index, count
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
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


def _start(iterator: Any, num_workers: int) -> list:
  """Starts the workers of an iterator at once and returns their processes.

  They are born with signals blocked, until `_begin_worker` ignores them, since a Ctrl-C
  while they import reaches them too. Masks are inherited: from this thread by the one
  that spawns, and from that by the worker.
  """
  # The first spawn would start this helper, which unblocks the signals.
  resource_tracker.ensure_running()
  with _starting:
    before = set(multiprocessing.active_children())
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
      iterator.get_state()  # Makes an iterator for each worker ...
      iterator.start_prefetch()  # ... and a thread that spawns it.
      deadline = time.monotonic() + 10
      while True:
        spawned = [p for p in multiprocessing.active_children() if p not in before]
        if len(spawned) >= num_workers or time.monotonic() > deadline:
          return spawned
        time.sleep(0.005)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _close(
  iterator: Any,
  shared: _SharedSource | None,
  closing: threading.Event,
  closed: threading.Event,
) -> None:
  closing.set()
  iterator.close()
  closed.set()
  if shared is not None:
    shared.close()


def _end_workers(
  workers: Sequence[Any], closing: threading.Event, closed: threading.Event
) -> None:
  """Kills workers that go on for long after they were told to stop.

  Grain waits for the batch that each is making, which may never come.
  """
  closing.wait()
  if not closed.wait(_GRACE_SECONDS):
    for worker in workers:
      worker.kill()
