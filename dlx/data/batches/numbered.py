"""The training stream with the number and the epoch of each example.

For what an example needs another turn of in every epoch, as an alternating flip does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.permutation import stream_epochs
from dlx.data.batches.resident import Shuffled
from dlx.data.batches.streamed import ShuffledStream
from dlx.data.dataset import Dataset
from dlx.data.sources import indexed, num_examples
from dlx.errors import ConfigError

EPOCH = 'epoch'


def numbered(stream: Dataset) -> Dataset:
  """The same batches with two more fields, both int32 [B].

  `index` is the number of the example in its source, `epoch` how often the stream
  had given all examples before (of the count the lower 31 bits).

  Args:
    stream: of dlx/data/batches/choose.py, on the devices or from the host.

  Raises:
    ConfigError: another kind of data set, or one that has a field `index`.
  """
  if isinstance(stream, Shuffled):
    return _Numbered(indexed(stream.source), stream.batch_size, stream.seed)
  if isinstance(stream, ShuffledStream):
    source = indexed(stream.source)
    workers = stream.num_workers
    return _NumberedStream(source, stream.batch_size, stream.seed, num_workers=workers)
  raise ConfigError(
    f'Numbers of the examples of {type(stream).__name__} are not known: must be the '
    'training stream of a source.'
  )


def _and_epoch(shapes):
  (only,) = shapes
  return ({**only, EPOCH: only['index']},)


class _Numbered(Shuffled):
  def __init__(self, *args: Any):
    super().__init__(*args)
    self.shapes = _and_epoch(self.shapes)

  def get(self, arrays, step: jax.Array) -> dict[str, jax.Array]:
    rows = jnp.arange(self.batch_size, dtype=jnp.uint32)
    epoch = stream_epochs(step, rows, num_examples(arrays), self.batch_size)
    return {**super().get(arrays, step), EPOCH: epoch}


class _NumberedStream(ShuffledStream):
  def __init__(self, *args: Any, **options: Any):
    super().__init__(*args, **options)
    self.shapes = _and_epoch(self.shapes)

  def get(self, data: Any, step: int, rows: slice) -> dict[str, np.ndarray]:
    wanted = np.arange(*rows.indices(self.batch_size), dtype=np.uint32)
    n = self.count(data)
    epoch = stream_epochs(step, wanted, n, self.batch_size, xp=np)
    return {**super().get(data, step, rows), EPOCH: epoch}
