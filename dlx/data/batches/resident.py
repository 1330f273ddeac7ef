"""Data sets whose arrays lie on every device; batches are gathered inside the step.

Shuffled   the training stream: an endless row of epochs, each a fresh permutation
InOrder    one pass, every example once: evaluation
Whole      the full arrays as one batch: a graph, a small table

Their streamed forms: streamed.py; what chooses: choose.py; of your own: generated.py.
"""

from typing import Any, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.permutation import stream_rows
from dlx.data.dataset import Loaded, Resident, Shapes, Source
from dlx.data.sources import Arrays, batch_shapes, loaded_for, num_examples, read
from dlx.errors import ConfigError


class _FromSource(Resident):
  """A resident data set whose arrays are the fields of one source."""

  def __init__(self, source: Source, shapes: Shapes):
    self.source = source
    self.shapes = (shapes,)
    self.size = source.size

  def load(self, data_dir=None) -> Loaded:
    return self._in_memory(read(self.source, data_dir))

  def _in_memory(self, found: Loaded) -> Loaded:
    return found._replace(data={k: np.asanyarray(x) for k, x in found.data.items()})

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """ShapeDtypeStructs of the arrays that `load` gives.

    Raises:
      ConfigError: the source does not declare its size.
    """
    size = self.source.size
    if size is None:
      raise ConfigError(
        f'{self.source.name}/{self.source.split}: the number of examples is known only '
        'once the data was read: choose a data set that declares its size, or load it '
        'first.'
      )
    return {
      name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype)
      for name, x in self.source.shapes.items()
    }


def _gather(arrays: Arrays, index) -> dict[str, jax.Array]:
  # The indices are in range by construction: no clamping, no filling.
  one = lambda x: jnp.asarray(x).at[index].get(mode='promise_in_bounds')
  return {name: one(x) for name, x in arrays.items()}


class Shuffled(_FromSource):
  """The training stream of dlx/data/batches/permutation.py: endless, nothing dropped.

  Attributes:
    batch_size: rows of one global batch; may exceed the number of examples.
    seed: of the order; may be traced.
    shuffle: False: the order of the source in every epoch, whatever the seed.
  """

  def __init__(self, source: Source, batch_size: int, seed: Any, shuffle: bool = True):
    super().__init__(source, batch_shapes(source, batch_size))
    self.batch_size = batch_size
    self.seed = seed
    self.shuffle = shuffle

  def load(self, data_dir=None) -> Loaded:
    return self._in_memory(loaded_for(self.source, self.batch_size, data_dir))

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    rows = jnp.arange(self.batch_size, dtype=jnp.uint32)
    n = num_examples(arrays)
    seed = self.seed if self.shuffle else None
    return _gather(arrays, stream_rows(seed, step, rows, n, self.batch_size))


def pass_rows(step: jax.Array, n: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
  """What batch `step` of one pass over n examples holds.

  Returns:
    The number of each example, int32 [B], and its weight, f32 [B]: the last batch is
    filled up with example n - 1 of weight 0; past the end every weight is 0.
  """
  last = np.uint32(-(-n // batch_size))
  # `start` is below n + batch_size: no overflow.
  start = jnp.minimum(jnp.asarray(step).astype(jnp.uint32), last) * np.uint32(
    batch_size
  )
  place = start + jnp.arange(batch_size, dtype=jnp.uint32)
  index = jnp.minimum(place, np.uint32(n - 1)).astype(jnp.int32)
  return index, (place < np.uint32(n)).astype(jnp.float32)


class InOrder(_FromSource):
  """One pass in the order of the source; every example counts once.

  Batches have a field `weight` f32[B], 1 for an example. The last batch is filled up
  with copies of the last example, of weight 0: real rows, since 0 * nan is nan.
  """

  def __init__(self, source: Source, batch_size: int):
    super().__init__(source, batch_shapes(source, batch_size, weight=True))
    self.batch_size = batch_size

  def num_batches(self, data: Arrays) -> int:
    return -(-num_examples(data) // self.batch_size)

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    index, weight = pass_rows(step, num_examples(arrays), self.batch_size)
    return {**_gather(arrays, index), 'weight': weight}


class Whole(_FromSource):
  """The full arrays as one batch at every step, replicated.

  A field has the leading axis N of the source; where the source is one example, as a
  graph is, that axis is left out. There is no `weight`: masks are fields of the source.

  Attributes:
    fields: the fields of the batch; None: all.
  """

  def __init__(self, source: Source, fields: Sequence[str] | None = None):
    fields = tuple(source.shapes if fields is None else fields)
    for name in fields:
      if name not in source.shapes:
        raise ConfigError(
          f'{source.name}/{source.split}: field {name!r} is not allowed: must be one '
          f'of {", ".join(source.shapes)}.'
        )
    super().__init__(source, {})
    whole = source.shapes if source.size == 1 else self.array_shapes()
    self.shapes = ({name: whole[name] for name in fields},)
    self.placement = dict.fromkeys(fields, P())
    self.fields = fields

  def num_batches(self, data: Arrays) -> int:
    del data
    return 1

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    del step
    one = self.source.size == 1
    return {name: arrays[name][0] if one else arrays[name] for name in self.fields}
