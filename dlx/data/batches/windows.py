"""Windows of one long text, for language models that read characters or tokens.

Windows           endless windows of L + 1 tokens in shuffled order
ContinuingWindows endless windows, each row's where that of the step before ended
AllWindows        one pass: every token but the first of the text is predicted once

A source holds one field, one token an example, in the order of the text. A window of
L + 1 tokens is L inputs and the L tokens after them.
"""

from typing import Any, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.permutation import stream_rows
from dlx.data.dataset import MAX, ROWS, Loaded, Resident, Source
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError

Arrays = Mapping[str, Any]


# Along the tokens only where the axis divides them: L + 1 of a window, L that count.
TOKENS = P(*ROWS, 'sequence')


class _OfText(Resident):
  """What both kinds share; `field` is the only field of the source."""

  placement = {'token': TOKENS, 'counts': TOKENS}

  def __init__(self, source: Source, batch_size: int, length: int):
    if list(source.shapes.values())[0].shape != () or len(source.shapes) != 1:
      raise ConfigError(
        f'{source.name}/{source.split} is no text: must have one field, one token an '
        'example.'
      )
    if not 1 <= batch_size <= MAX:
      raise ConfigError(f'batch_size={batch_size} is not allowed: must be at least 1.')
    if length < 1:
      raise ConfigError(f'length={length} is not allowed: must be at least 1.')
    if source.size is not None and source.size <= length:
      raise ConfigError(
        f'length={length} is not allowed on {source.name}/{source.split}: must be '
        f'below {source.size}, the tokens of the text.'
      )
    self.source, self.batch_size, self.length = source, batch_size, length
    self.field = next(iter(source.shapes))
    self.size = source.size

  def _token_shape(self) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((self.batch_size, self.length + 1), np.int32)

  def load(self, data_dir=None) -> Loaded:
    loaded = read(self.source, data_dir)
    if len(loaded.data[self.field]) <= self.length:
      raise DataError(
        f'{self.source.name}/{self.source.split}: expected more than {self.length} '
        f'tokens, found {len(loaded.data[self.field])}: set a shorter length.'
      )
    return loaded

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """ShapeDtypeStructs of the arrays that `load` gives.

    Raises:
      ConfigError: the source does not declare its size.
    """
    if self.source.size is None:
      raise ConfigError(
        f'{self.source.name}/{self.source.split}: the number of tokens is known only '
        'once the text was read: choose a text that declares its size.'
      )
    declared = self.source.shapes[self.field]
    return {self.field: jax.ShapeDtypeStruct((self.source.size,), declared.dtype)}

  def _windows(self, arrays: Arrays, start_B) -> jax.Array:
    index_BW = start_B[:, None] + jnp.arange(self.length + 1)[None]
    tokens = jnp.asarray(arrays[self.field])
    # In range by construction: no clamping, no filling.
    return tokens.at[index_BW].get(mode='promise_in_bounds').astype(jnp.int32)


class Windows(_OfText):
  """Endless windows in shuffled order; a batch holds `token` int32 [B, L + 1].

  Every window is seen once before one is seen again. With stride 1 a window starts at
  every token, which short runs cannot tell from starts drawn at random; with stride L
  the windows of an epoch share no target, and up to L - 1 targets at the end of the
  text are left out.

  Attributes:
    batch_size: B.
    length: L.
    seed: of the order; may be traced.
    stride: tokens between the starts of neighbouring windows.
  """

  def __init__(
    self, source: Source, batch_size: int, length: int, seed: Any, *, stride: int = 1
  ):
    super().__init__(source, batch_size, length)
    if stride < 1:
      raise ConfigError(f'stride={stride} is not allowed: must be at least 1.')
    self.seed, self.stride = seed, stride
    self.shapes = ({'token': self._token_shape()},)

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    # The last window starts at n - 1 - length.
    count = (len(arrays[self.field]) - self.length - 1) // self.stride + 1
    rows = jnp.arange(self.batch_size, dtype=jnp.uint32)
    place_B = stream_rows(self.seed, step, rows, count, self.batch_size)
    return {'token': self._windows(arrays, place_B * self.stride)}


class ContinuingWindows(_OfText):
  """Endless windows that go on, row by row, for a state that is carried between steps.

  The text is cut into B parts of equal length; row b reads part b from its begin to its
  end, L tokens a step, and begins anew in the next epoch. At the end of a part fewer
  than L targets are left out; each epoch begins one token later than the one before
  wherever that leaves as many windows, so that they are others in each.

  A batch holds `token` int32 [B, L + 1] and `reset` bool [B], whether a part begins.

  Attributes:
    batch_size: B.
    length: L.
  """

  placement = {}

  def __init__(self, source: Source, batch_size: int, length: int):
    super().__init__(source, batch_size, length)
    if source.size is not None:
      self._parts(source.size)
    self.shapes = (
      {
        'token': self._token_shape(),
        'reset': jax.ShapeDtypeStruct((batch_size,), np.bool_),
      },
    )

  def _parts(self, size: int) -> tuple[int, int]:
    """(targets of a part, steps of an epoch)."""
    targets = (size - 1) // self.batch_size
    if targets < self.length:
      raise ConfigError(
        f'length={self.length} is not allowed on {self.source.name}/'
        f'{self.source.split}: must be at most {targets}, the tokens of each of '
        f'{self.batch_size} parts.'
      )
    return targets, targets // self.length

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    targets, steps = self._parts(len(arrays[self.field]))
    left = targets - steps * self.length
    epoch, at = step // steps, step % steps
    first_B = jnp.arange(self.batch_size, dtype=jnp.int32) * targets
    start_B = first_B + epoch % (left + 1) + at * self.length
    return {
      'token': self._windows(arrays, start_B),
      'reset': jnp.broadcast_to(at == 0, (self.batch_size,)),
    }


class AllWindows(_OfText):
  """One pass: every token but the first of the text is a target exactly once.

  A batch holds `token` int32 [B, L + 1], `counts` f32 [B, L], 1 for a target that
  counts, and `weight` f32 [B], the share of a window's targets that count. Windows do
  not overlap, but for the last, which ends where the text ends and counts only what no
  other window has; so the mean over windows of the mean over counted targets, weighted
  by `weight`, is the mean over all targets. Padding repeats the last window, with
  weight 0 and, so that no mean is 0/0, its `counts`.
  """

  def __init__(self, source: Source, batch_size: int, length: int):
    super().__init__(source, batch_size, length)
    rows = (batch_size,)
    self.shapes = (
      {
        'token': self._token_shape(),
        'counts': jax.ShapeDtypeStruct((*rows, length), np.float32),
        'weight': jax.ShapeDtypeStruct(rows, np.float32),
      },
    )

  def _count(self, arrays: Arrays) -> int:
    """Windows of a pass."""
    return -(-(len(arrays[self.field]) - 1) // self.length)

  def num_batches(self, data: Arrays) -> int:
    return -(-self._count(data) // self.batch_size)

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    count, targets = self._count(arrays), len(arrays[self.field]) - 1
    last = np.uint32(self.num_batches(arrays))
    first = jnp.minimum(jnp.asarray(step).astype(jnp.uint32), last)
    place_B = first * np.uint32(self.batch_size) + jnp.arange(
      self.batch_size, dtype=jnp.uint32
    )
    row_B = jnp.minimum(place_B, np.uint32(count - 1)).astype(jnp.int32)
    start_B = jnp.minimum(row_B * self.length, targets - self.length)
    skipped_B = row_B * self.length - start_B  # Targets that the window before has.
    counts_BL = (jnp.arange(self.length)[None] >= skipped_B[:, None]).astype(
      jnp.float32
    )
    real_B = (place_B < np.uint32(count)).astype(jnp.float32)
    return {
      'token': self._windows(arrays, start_B),
      'counts': counts_BL,
      'weight': real_B * counts_BL.mean(1),
    }
