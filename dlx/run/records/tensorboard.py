"""TensorBoard events, written with TensorBoard's own protos and without TensorFlow.

  with EventWriter(workdir) as events:
    events.scalars(50, {'train/loss': 0.3})

tensorboard's EventFileWriter imports TensorFlow wherever that is installed (through
tensorboard.compat), and so does tensorboard.plugins.hparams.summary. Its RecordWriter
and its protos do not: an event file is a sequence of records, each an Event.
"""

import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import time
from typing import Any, Mapping

from etils import epath
import numpy as np

from dlx.run.records.json_files import flat, is_remote, plain

FILE_BYTES = 2**24  # Object store: a file is uploaded whole until it is this long.
_count = itertools.count()


# Any, since the messages of generated modules are unknown to a type checker.
def _event_pb2() -> Any:
  from tensorboard.compat.proto import event_pb2

  return event_pb2


def _summary_pb2() -> Any:
  from tensorboard.compat.proto import summary_pb2

  return summary_pb2


def _hparams_pb2() -> Any:
  from tensorboard.plugins.hparams import plugin_data_pb2

  return plugin_data_pb2


def bucket_limits() -> np.ndarray:
  """f64[1551]: upper ends of TensorFlow's histogram buckets, 10 % apart, around 0."""
  positive = 1e-12 * 1.1 ** np.arange(774)
  top = np.finfo(np.float64).max
  return np.concatenate([[-top], -positive[::-1], [0.0], positive, [top]])


def histogram_proto(values: Any) -> Any:
  """HistogramProto of the finite entries of an array of any shape.

  Runs of empty buckets are merged into one, as TensorFlow does; at the ends left out.
  """
  x_N = np.asarray(values, np.float64).ravel()
  x_N = x_N[np.isfinite(x_N)]
  limits = bucket_limits()
  # Bucket i holds limits[i - 1] <= x < limits[i]; nothing lies beyond the last.
  which_N = np.minimum(np.searchsorted(limits, x_N, side='right'), len(limits) - 1)
  counts = np.bincount(which_N, minlength=len(limits))
  # Every full bucket, and the last of each run of empty ones between full ones. Those
  # outside would get an edge beyond the least or the largest value.
  full = np.flatnonzero(counts)
  keep = (counts > 0) | np.append(counts[1:] > 0, False)
  keep[: full[0] if full.size else None] = False
  with np.errstate(over='ignore'):
    total, squares = x_N.sum(), np.square(x_N).sum()
  return _summary_pb2().HistogramProto(
    min=x_N.min() if x_N.size else 0.0,
    max=x_N.max() if x_N.size else 0.0,
    num=x_N.size,
    sum=total,
    sum_squares=squares,
    bucket_limit=limits[keep].tolist(),
    bucket=counts[keep].tolist(),
  )


def png(image_HWC: Any) -> bytes:
  """An image as a PNG file.

  Args:
    image_HWC: uint8, C in (1, 3, 4); or uint8[H, W].
  """
  from PIL import Image

  image = np.asarray(image_HWC)
  if image.dtype != np.uint8 or not (
    image.ndim == 2 or image.ndim == 3 and image.shape[-1] in (1, 3, 4)
  ):
    raise ValueError(
      f'An image is uint8 HWC with 1, 3 or 4 channels, not '
      f'{image.dtype}{list(image.shape)}.'
    )
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  out = io.BytesIO()
  Image.fromarray(image).save(out, 'PNG')
  return out.getvalue()


class EventWriter:
  """Writes one events.out.tfevents file a session into a workdir.

  In an object store the file is spooled locally and uploaded whole by `flush`; past
  `FILE_BYTES` the next file begins. On a local disk `flush` is what makes events
  visible. The constructor does no I/O.
  """

  def __init__(self, workdir: Any, purge_step: int | None = None):
    """Prepares a writer.

    Args:
      workdir: where events go.
      purge_step: step that the run was restored at; TensorBoard forgets what earlier
        sessions wrote past it. None: a fresh run.
    """
    self._workdir = epath.Path(workdir)
    self._remote = is_remote(workdir)
    self._purge_step = purge_step
    self._spool: Any = None  # Object store: the folder of the local file.
    self._local: Any = None  # Path of the open file.
    self._file: Any = None
    self._records: Any = None
    self._dirty = False
    self._started = False  # Whether this session's START is written.
    self._written: dict[str, int] = {}  # Last step of each scalar.

  def __enter__(self) -> 'EventWriter':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds scalars by "split/name"; of a vector over members, "split/name/i"."""

    named = {}
    for name, value in values.items():
      x = np.asarray(value, np.float64)
      named |= (
        {name: x}
        if x.ndim == 0
        else {f'{name}/{i}': v for i, v in enumerate(x.ravel())}
      )
    self._written |= dict.fromkeys(named, step)
    self._add(
      step,
      [
        _summary_pb2().Summary.Value(tag=tag, simple_value=float(v))
        for tag, v in named.items()
      ],
    )

  def image(self, step: int, name: str, image_HWC: Any) -> None:
    """Adds an image, uint8 HWC with 1, 3 or 4 channels."""

    height, width, *channels = np.shape(image_HWC)
    image = _summary_pb2().Summary.Image(
      height=height,
      width=width,
      colorspace=channels[0] if channels else 1,
      encoded_image_string=png(image_HWC),
    )
    self._add(step, [_summary_pb2().Summary.Value(tag=name, image=image)])

  def histogram(self, step: int, name: str, values: Any) -> None:
    """Adds a histogram of the finite entries of an array of any shape."""

    self._add(
      step, [_summary_pb2().Summary.Value(tag=name, histo=histogram_proto(values))]
    )

  def hparams(
    self, step: int, config: Mapping[str, Any], metrics: Mapping[str, Any]
  ) -> None:
    """Ends the run's row in the HParams tab: its config and its final metrics.

    Writes no Experiment: TensorBoard takes the first that it finds for all runs below
    its --logdir, and would hide the fields of every other experiment. Without one it
    gathers fields from the rows and metrics from the scalars.
    """
    from tensorboard.plugins.hparams import metadata

    self.scalars(
      step,
      {
        name: value
        for name, value in metrics.items()
        if self._written.get(name) != step
      },
    )
    simple = lambda x: x if isinstance(x, (bool, int, float, str)) else str(x)
    values = {name: simple(x) for name, x in flat(plain(config)).items()}
    # The name of the row: equal configs in several workdirs are one group of trials.
    group = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    start = _hparams_pb2().SessionStartInfo(
      group_name=group, start_time_secs=time.time()
    )
    for name, value in values.items():
      if isinstance(value, bool):
        start.hparams[name].bool_value = value
      elif isinstance(value, str):
        start.hparams[name].string_value = value
      else:
        start.hparams[name].number_value = value
    end = _hparams_pb2().SessionEndInfo(
      status='STATUS_SUCCESS', end_time_secs=time.time()
    )
    data = {
      metadata.SESSION_START_INFO_TAG: _hparams_pb2().HParamsPluginData(
        session_start_info=start
      ),
      metadata.SESSION_END_INFO_TAG: _hparams_pb2().HParamsPluginData(
        session_end_info=end
      ),
    }
    self._add(
      step,
      [
        _summary_pb2().Summary.Value(
          tag=tag,
          tensor=metadata.NULL_TENSOR,
          metadata=metadata.create_summary_metadata(content),
        )
        for tag, content in data.items()
      ],
    )

  def flush(self) -> None:
    """Makes all events so far visible; in an object store by uploading the file."""
    if not self._dirty:
      return
    self._file.flush()
    self._dirty = False
    if self._remote:
      data = self._local.read_bytes()
      (self._workdir / self._local.name).write_bytes(data)
      if len(data) >= FILE_BYTES:
        self._shut()

  def close(self) -> None:
    """Flushes and closes; events after this begin another file."""
    self.flush()
    self._shut()
    if self._spool is not None:
      shutil.rmtree(self._spool)
      self._spool = None

  def _shut(self) -> None:
    if self._file is not None:
      self._file.close()
    self._file = self._records = self._local = None

  def _open(self) -> None:
    from tensorboard.summary.writer import record_writer

    if self._remote and self._spool is None:
      self._spool = pathlib.Path(tempfile.mkdtemp(prefix='dlx-events-'))
    folder = self._spool or pathlib.Path(os.fspath(self._workdir))
    # TensorBoard reads files in the order of their names. The host is left out.
    now = max(time.time(), self._newest() + 1e-6)
    name = (
      f'events.out.tfevents.{int(now):010d}.{int(now % 1 * 1e6):06d}.'
      f'{os.getpid()}.{next(_count)}'
    )
    self._local = folder / name
    self._file = open(self._local, 'xb')
    self._records = record_writer.RecordWriter(self._file)
    self._record(_event_pb2().Event(file_version='brain.Event:2', wall_time=now))
    if not self._started:
      # Events at or past the step of a START are forgotten. The first START of all
      # never purges, so that a fresh run needs one as well.
      step = 0 if self._purge_step is None else self._purge_step + 1
      start = _event_pb2().SessionLog(status=_event_pb2().SessionLog.START)
      self._record(_event_pb2().Event(step=step, session_log=start, wall_time=now))
      self._started = True

  def _newest(self) -> float:
    """When the newest file there was begun: by its host's clock, which may be ahead."""
    if not self._workdir.exists():
      return 0.0
    names = (path.name.split('.') for path in self._workdir.iterdir())
    return max(
      (
        float(f'{parts[3]}.{parts[4]}')
        for parts in names
        if parts[:3] == ['events', 'out', 'tfevents']
        and len(parts) > 4
        and parts[3].isdecimal()
        and parts[4].isdecimal()
      ),
      default=0.0,
    )

  def _add(self, step: int, values: list[Any]) -> None:

    if not values:
      return
    if self._file is None:
      self._open()
    self._record(
      _event_pb2().Event(
        step=int(step),
        wall_time=time.time(),
        summary=_summary_pb2().Summary(value=values),
      )
    )

  def _record(self, event: Any) -> None:
    self._records.write(event.SerializeToString())
    self._dirty = True
