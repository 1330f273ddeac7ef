"""Batches of no file: drawn by a function, or the same arrays at every step.

generated  example i is fn(key of i): samplers, simulations, points of a domain
fixed      the same arrays at every step: a full batch, the points of a boundary; none

Either may have no fields: a run that reads nothing, as reinforcement learning with its
environment in the step. Several at once: `Zipped`.
"""

from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.permutation import position
from dlx.data.batches.resident import pass_rows
from dlx.data.dataset import MAX, Loaded, Resident, Source
from dlx.data.sources import Arrays, as_numbers, batch_shapes, own_origin
from dlx.errors import ConfigError

Fields = Mapping[str, jax.Array]


class Generated(Resident):
  """See `generated`."""

  def __init__(
    self,
    fn: Callable[[jax.Array], Fields],
    batch_size: int,
    seed: Any,
    size: int | None,
    name: str,
  ):
    if size is not None and not 1 <= size <= MAX:
      raise ConfigError(f'{name}: size={size} is not allowed: must be at least 1.')
    # The key is made while tracing: no array is made here.
    shapes = jax.eval_shape(lambda: fn(jax.random.key(0)))
    if not isinstance(shapes, Mapping):
      raise ConfigError(
        f'{name}: fn gives {type(shapes).__name__}: must give the fields of one '
        "example by name, e.g. {'x': x}."
      )
    self._fn, self.batch_size, self.seed, self.size = fn, batch_size, seed, size
    self._origin = {
      'name': name,
      'split': 'train' if size is None else 'test',
      'kind': 'generated',
      'size': size or 'endless',
    }
    source = Source(name, self._origin['split'], shapes, size, lambda _: self.load())
    weight = size is not None
    if shapes:
      self.shapes = (batch_shapes(source, batch_size, weight=weight),)
    else:
      row = jax.ShapeDtypeStruct((batch_size,), np.float32)
      self.shapes = ({'weight': row} if weight else {},)

  def load(self, data_dir=None) -> Loaded:
    del data_dir
    return Loaded({}, self._origin)

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {}

  def num_batches(self, data: Arrays) -> int | None:
    del data
    return None if self.size is None else -(-self.size // self.batch_size)

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    del arrays
    if self.size is not None:
      index_B, weight_B = pass_rows(step, self.size, self.batch_size)
      return {**self._examples(jnp.zeros_like(index_B), index_B), 'weight': weight_B}
    _, low, offset = position(step, MAX, self.batch_size)
    place_B = offset + jnp.arange(self.batch_size, dtype=jnp.uint32)
    return self._examples(low + place_B // np.uint32(MAX), place_B % np.uint32(MAX))

  def _examples(self, epoch_B, place_B) -> dict[str, jax.Array]:
    """Of the numbers epoch * MAX + place."""
    root = jax.random.key(self.seed)
    fold = lambda epoch, place: jax.random.fold_in(
      jax.random.fold_in(root, epoch), place
    )
    return dict(jax.vmap(lambda *number: self._fn(fold(*number)))(epoch_B, place_B))


def generated(
  fn: Callable[[jax.Array], Fields],
  batch_size: int,
  seed: Any,
  *,
  size: int | None = None,
  name: str = 'generated',
) -> Generated:
  """Examples that a function draws, on the devices, inside the step.

  Example i of the stream is a function of (seed, i) alone: batch `step` holds examples
  step * batch_size, ..., whatever the batch size is and however many hosts there are.

  Args:
    fn: pure, of jnp; key -> fields of one example by name, without a batch axis. May
      give none: {}.
    batch_size: rows of one global batch.
    seed: in [0, 2**32); may be traced. Of an evaluation another than of training.
    size: None: without an end, for training. Else one pass over so many examples, for
      an evaluation: batches have `weight` f32[B], 0 for what fills up the last.
    name: for the records.

  Raises:
    ConfigError: an impossible size, or no mapping of fields.
  """
  return Generated(fn, batch_size, seed, size, name)


class Fixed(Resident):
  """See `fixed`."""

  def __init__(self, arrays: Arrays, weight: bool, name: str):
    self._arrays = {k: as_numbers(f'{name}: field {k!r}', x) for k, x in arrays.items()}
    first = next(iter(self._arrays.values()), np.zeros(0))
    self.size: int = len(first) if first.ndim else 1
    self._name = name
    if weight:
      if 'weight' in arrays or not self.size:
        raise ConfigError(
          f'{name}: weight=True is not allowed with fields '
          f'{", ".join(arrays) or "none"}: must have rows, and no field weight.'
        )
      self._arrays['weight'] = np.ones(self.size, np.float32)
    self.shapes = (self.array_shapes(),)
    self.placement = dict.fromkeys(self._arrays, P())

  def load(self, data_dir=None) -> Loaded:
    del data_dir
    origin = own_origin(self._arrays, self._name, 'train', self.size)
    return Loaded(self._arrays, origin)

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    return {name: shape(x) for name, x in self._arrays.items()}

  def num_batches(self, data: Arrays) -> int:
    del data
    return 1

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    del step
    return dict(arrays)


def fixed(arrays: Arrays, *, weight: bool = False, name: str = 'fixed') -> Fixed:
  """The same arrays at every step, whole on every device; one batch is a pass.

  Args:
    arrays: by field, as they are in the batch; their leading axes may differ. {}: a run
      or an evaluation that reads nothing. Numbers of 64 bits become such of 32, unless
      JAX computes with 64.
    weight: adds `weight` f32 [B], 1 a row of the first field: evaluations of
      `supervised` and of tasks read it.
    name: for the records, beside the sha256 of the arrays.

  Raises:
    DataError: a field that is no array of numbers.
    ConfigError: a weight of no rows, or a second one.
  """
  return Fixed(arrays, weight, name)
