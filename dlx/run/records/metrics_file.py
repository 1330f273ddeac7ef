"""metrics.jsonl: a line for every log window and evaluation of a run.

metrics = MetricsFile(workdir)
metrics.write(50, 'train', {'loss': 0.3}, {'seconds': {'train': 1.1, 'total': 1.2}})
"""

import os
import tempfile
from typing import Any, Mapping

from absl import logging
from etils import epath

from dlx.errors import StorageError
from dlx.run.records.json_files import from_text, is_remote, to_text, write_bytes

NAME = 'metrics.jsonl'
PART_BYTES = 2**20  # A part is rewritten whole by every flush until it is this long.


def _parse(line: bytes) -> dict[str, Any] | None:
  """The object of one line of metrics.jsonl; None where the line is no such object."""
  try:
    record = from_text(line)
  except ValueError:
    return None
  ok = isinstance(record, dict) and {'step', 'split', 'metrics'} <= record.keys()
  return record if ok else None


def _whole(data: bytes) -> bytes:
  """Without the half-written last line of a process that was killed."""
  return data[: data.rfind(b'\n') + 1]


def _rewound(data: bytes, step: int, evaluated: int) -> bytes:
  """The lines that a run restored at `step` has already written, byte for byte."""
  kept = []
  for line in _whole(data).splitlines(keepends=True):
    record = _parse(line)
    if record is None:
      logging.warning('%s: dropped a line that is no record: %r', NAME, line[:80])
    elif record['step'] <= (step if record['split'] == 'train' else evaluated):
      kept.append(line)
  return b''.join(kept)


class MetricsFile:
  """metrics.jsonl of a workdir: one object a line, only process 0 writes it.

    {"step": 50, "split": "train", "metrics": {"loss": 0.3}, "time": {...}}

  Numbers are written by repr, what is not finite as json_files.py says, vectors over
  members as lists. All that depends on the clock stands in `time`; everything else is
  equal between equal runs.

  In an object store lines are spooled in a local temporary file and uploaded by
  `flush` as parts metrics-00000.jsonl, metrics-00001.jsonl, ...: the current part is
  rewritten whole, and each session and each MiB begins a new one. `close` writes
  metrics.jsonl out of the parts. The constructor does no I/O.
  """

  def __init__(self, workdir: Any, *, part_bytes: int = PART_BYTES):
    self._workdir = epath.Path(workdir)
    self._path = self._workdir / NAME
    self._remote = is_remote(workdir)
    self._part_bytes = part_bytes
    self._part: Any = None  # Object store: path of the part that is being filled.
    self._file: Any = None  # Local: the file itself. Object store: the spool.
    self._dirty = False

  def __enter__(self) -> 'MetricsFile':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def write(
    self,
    step: int,
    split: str,
    metrics: Mapping[str, Any],
    time: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]] | None = None,
  ) -> None:
    """Adds a line; on a local disk it outlives the process once this returns.

    Args:
      groups: numbers that belong together, as norms by layer; a line without any has no
        such key.

    Raises:
      StorageError: the file was removed or moved since it was opened.
    """
    record = {'step': int(step), 'split': split, 'metrics': metrics}
    record |= {'groups': groups} if groups else {}
    record['time'] = time
    file = self._open() if self._file is None else self._file
    self._check_there()
    # One write call without a buffer: the kernel has all of the line, or the file ends
    # in half a line, which is dropped by the next to open it.
    line = memoryview(to_text(record).encode(errors='backslashreplace') + b'\n')
    while line:  # A disk that fills up takes a part without an error, and then raises.
      line = line[file.write(line) :]
    self._dirty = True

  def flush(self) -> None:
    """Brings all lines to the disk, or to the object store. Raises as `write` does."""
    self._check_there()
    self._flush()

  def _flush(self) -> None:
    if not self._dirty:
      return
    if not self._remote:
      os.fsync(self._file.fileno())
    else:
      self._file.seek(0)
      data = self._file.read()  # Leaves the position at the end, for further lines.
      self._part.write_bytes(data)
      if len(data) >= self._part_bytes:
        self._part = self._path_of_part(int(self._part.stem.split('-')[1]) + 1)
        self._file.seek(0)
        self._file.truncate()
    self._dirty = False

  def close(self) -> None:
    """Flushes; in an object store writes metrics.jsonl. A later `write` reopens."""
    self._shut()
    if self._remote and (parts := self._parts()):
      self._path.write_bytes(b''.join(_whole(p.read_bytes()) for p in parts))

  def read(self) -> list[dict[str, Any]]:
    """All lines so far, of this and of earlier sessions, as dicts."""
    self._flush()
    data = b''.join(_whole(p.read_bytes()) for p in self._stored())
    records = []
    for line in data.splitlines():
      record = _parse(line)
      if record is None:
        logging.warning(
          '%s: ignored a line that is no record: %r', self._path, line[:80]
        )
      else:
        records.append(record)
    return records

  def rewind(self, step: int, evaluated: int) -> None:
    """Drops what a run restored at `step` will write again, so that nothing doubles.

    Drops lines of split 'train' past `step`, of other splits past `evaluated`, and a
    half-written last line. All other lines stay byte for byte.
    """
    self._shut()
    whole = [self._path] if self._path.exists() else []
    for path in (self._parts() if self._remote else []) + whole:
      old = path.read_bytes()
      new = _rewound(old, step, evaluated)
      if new != old:
        write_bytes(path, new)

  def _shut(self) -> None:
    self._flush()
    if self._file is not None:
      self._file.close()
    self._file = self._part = None

  def _check_there(self) -> None:
    """A run that goes on where its workdir is gone would lose all that it does."""
    if self._remote or self._file is None:
      return
    try:
      there = os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
    except FileNotFoundError:
      there = False
    if not there:
      self._file.close()
      self._file, self._dirty = None, False
      raise StorageError(
        f'{self._path} was removed or moved under the run, which ends here: put '
        f'{self._workdir} back and give the same command, or begin anew.'
      )

  def _path_of_part(self, number: int) -> Any:
    return self._workdir / f'metrics-{number:05d}.jsonl'

  def _parts(self) -> list[Any]:
    return sorted(self._workdir.glob('metrics-[0-9]*.jsonl'), key=os.fspath)

  def _stored(self) -> list[Any]:
    """The files that hold the lines, in order: the parts, where there are any."""
    parts = self._parts() if self._remote else []
    return parts or ([self._path] if self._path.exists() else [])

  def _open(self) -> Any:
    if self._remote:
      parts = self._parts()
      if not parts and self._path.exists():  # A workdir that was copied to the store.
        parts = [self._path_of_part(0)]
        parts[0].write_bytes(_whole(self._path.read_bytes()))
      last = int(parts[-1].stem.split('-')[1]) if parts else -1
      self._part = self._path_of_part(last + 1)
      self._file = tempfile.TemporaryFile(prefix='dlx-metrics-')
      return self._file
    self._file = open(os.fspath(self._path), 'ab+', buffering=0)
    self._file.seek(0)
    data = self._file.read()
    if (whole := len(_whole(data))) < len(data):
      self._file.truncate(whole)
    return self._file
