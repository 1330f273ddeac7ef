"""Sentences in buckets of like length, so that little of a batch is padding.

A bucket holds the sentences of some lengths, filled up to the longest of them. Pairs of
sentences, too, have one length: that of the longer. An epoch
is a fixed number of blocks of steps, each block of one bucket; which, is a permutation
of the blocks that depends on (seed, epoch) alone. So the shape of a batch is known on
the host without its data, and the batch inside jit without the batches before it.
"""

import functools
import itertools
from typing import Any, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.permutation import permute
from dlx.data.dataset import Loaded, Resident, Source
from dlx.data.sources import batch_shapes, read
from dlx.data.text import vocabulary
from dlx.errors import ConfigError, DataError


def bucket_sizes(
  length_counts: Sequence[int], lengths: Sequence[int]
) -> tuple[int, ...]:
  """Sentences of each bucket; those above the longest one are cut to it.

  Args:
    length_counts: entry i is the number of sentences of i + 1 tokens.
    lengths: of the buckets, rising.

  Raises:
    ConfigError: lengths that do not rise, or a bucket without a sentence.
  """
  lengths = tuple(lengths)
  if (
    not lengths or lengths[0] < 1 or any(a >= b for a, b in itertools.pairwise(lengths))
  ):
    raise ConfigError(
      f'bucket_lengths={lengths} is not allowed: must be one or more rising numbers of '
      'at least 1.'
    )
  edges = (0, *lengths[:-1], max(len(length_counts), lengths[-1]))
  sizes = tuple(sum(length_counts[a:b]) for a, b in itertools.pairwise(edges))
  if 0 in sizes:
    length = lengths[sizes.index(0)]
    raise ConfigError(
      f'bucket_lengths={lengths} is not allowed: no sentence belongs to the bucket of '
      f'{length} tokens; leave it out.'
    )
  return sizes


def lengths_of_least_padding(
  length_counts: Sequence[int], most: int
) -> tuple[int, ...]:
  """The lengths of at most `most` buckets that fill up with the fewest tokens.

  Exact, in time and memory of the square of the longest length.

  Args:
    length_counts: entry i is the number of sentences of i + 1 tokens, the last not 0.
    most: buckets, at least 1; each is one more program to compile.
  """
  up_to_L = np.cumsum(length_counts, dtype=np.float64)
  ends = np.arange(1, len(up_to_L) + 1)
  # Of the sentences up to a length the tokens with k buckets, the last that long.
  tokens_L, starts = up_to_L * ends, []
  for _ in range(most - 1):
    # Row: where the last bucket begins, behind that length. Column: where it ends.
    each_LL = tokens_L[:, None] + (up_to_L[None] - up_to_L[:, None]) * ends
    each_LL[np.tri(len(ends), dtype=bool)] = np.inf
    begin_L = each_LL.argmin(0)
    fewer_L = each_LL[begin_L, np.arange(len(ends))] < tokens_L
    starts.append(np.where(fewer_L, begin_L, -1))
    tokens_L = np.where(fewer_L, each_LL.min(0), tokens_L)
  found = [len(ends) - 1]
  for start_L in reversed(starts):
    if start_L[found[-1]] >= 0:
      found.append(int(start_L[found[-1]]))
  return tuple(i + 1 for i in reversed(found))


@functools.lru_cache(maxsize=16)
def _slots(seed: int, epoch: int, blocks: int) -> tuple[int, ...]:
  """The slot of each block of an epoch: a permutation of [0, blocks)."""
  n = np.arange(blocks, dtype=np.uint32)
  high, low = np.zeros_like(n), np.full_like(n, epoch)
  return tuple(permute(n, blocks, seed, high, low, xp=np).tolist())


class Bucketed(Resident):
  """The training stream of a set of sentences, in batches of a few lengths.

  A batch has the fields of the source, those of tokens int32 [B, T] with the T of its
  bucket.
  In an epoch every sentence is seen at least once. A bucket whose sentences do not fill
  its blocks is filled up with the first of its order; that is less than
  `batch_size * block_steps` rows a bucket.

  Attributes:
    lengths: T of each bucket.
    sizes: sentences of each bucket.
    steps: of an epoch, by bucket.
    steps_per_epoch: steps in which every sentence is seen.
  """

  def __init__(
    self,
    source: Source,
    length_counts: Sequence[int],
    *,
    lengths: Sequence[int],
    batch_size: int,
    seed: int,
    block_steps: int = 1,
    fields: Sequence[str] = ('tokens',),
  ):
    """Reads nothing.

    Args:
      source: of `tokens` int32 [L], 0 from the end of the sentence on, and more fields.
      length_counts: entry i counts sentences of i + 1 tokens; checked on load.
      lengths: of the buckets, rising; sentences are cut at the last.
      batch_size: rows of one global batch.
      seed: of the order, a plain number.
      block_steps: steps in a row with one bucket.
      fields: those of tokens; a row is as long as the longest of them.
    """
    if block_steps < 1:
      raise ConfigError(
        f'bucket_block_steps={block_steps} is not allowed: must be at least 1.'
      )
    width = max(source.shapes[name].shape[0] for name in fields)
    self.fields = tuple(fields)
    self.source, self.batch_size, self.seed = source, batch_size, seed
    self.block_steps = block_steps
    self.lengths = tuple(lengths)
    self.length_counts = _cut(length_counts, width)
    self.sizes = bucket_sizes(self.length_counts, self.lengths)
    self.size = sum(self.sizes)
    rows = batch_size * block_steps
    blocks = [-(-n // rows) for n in self.sizes]
    self._first = tuple(itertools.accumulate(blocks, initial=0))
    self.steps = tuple(n * block_steps for n in blocks)
    self.steps_per_epoch = self._first[-1] * block_steps
    shapes = batch_shapes(source, batch_size)
    self.shapes = tuple(
      {
        **shapes,
        **dict.fromkeys(fields, jax.ShapeDtypeStruct((batch_size, n), np.int32)),
      }
      for n in self.lengths
    )

  def shape_id(self, step: int) -> int:
    epoch, block = divmod(int(step) // self.block_steps, self._first[-1])
    slot = _slots(self.seed, epoch, self._first[-1])[block]
    return int(np.searchsorted(self._first, slot, side='right')) - 1

  def load(self, data_dir=None) -> Loaded:
    """`FIELD/T` of each bucket: its sentences in the order of the source.

    Raises:
      DataError: other lengths than declared.
    """
    loaded = read(self.source, data_dir)
    of_fields = [vocabulary.lengths(loaded.data[name]) for name in self.fields]
    length_N = np.max(of_fields, axis=0)
    check_lengths(self.source, length_N, self.length_counts)
    data = {}
    for low, high in itertools.pairwise((0, *self.lengths)):
      top = high if high < self.lengths[-1] else np.inf
      rows = np.flatnonzero((length_N > low) & (length_N <= top))
      for name, x in loaded.data.items():
        x = x[rows]
        data[f'{name}/{high}'] = _fit(x, high) if name in self.fields else x
    return Loaded(data, loaded.origin)

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {
      f'{name}/{length}': jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
      for shapes, length, size in zip(self.shapes, self.lengths, self.sizes)
      for name, x in shapes.items()
    }

  def get(
    self, arrays: Any, step: jax.Array, shape_id: int = 0
  ) -> dict[str, jax.Array]:
    """Batch `step`, which must be one of bucket `shape_id`."""
    length, n = self.lengths[shape_id], self.sizes[shape_id]
    # uint32 throughout: steps are below 2**31.
    block = jnp.asarray(step).astype(jnp.uint32)
    block, within = block // np.uint32(self.block_steps), block % self.block_steps
    blocks = self._first[-1]
    epoch = (block // np.uint32(blocks))[None]
    offset = (block % np.uint32(blocks))[None]
    slot = permute(offset, blocks, self.seed, jnp.zeros_like(epoch), epoch)[0]
    # Slots of a bucket lie together: place of the batch among those of its bucket.
    batch = (slot - self._first[shape_id]) * self.block_steps + within.astype(jnp.int32)
    rows = batch * self.batch_size + jnp.arange(self.batch_size, dtype=jnp.int32)
    place = rows.astype(jnp.uint32) % np.uint32(n)
    high = jnp.full_like(place, 1 + shape_id)  # 0 is the order of the blocks.
    low = jnp.broadcast_to(epoch, place.shape)
    index = permute(place, n, self.seed, high, low)
    one = lambda name: (
      arrays[f'{name}/{length}'].at[index].get(mode='promise_in_bounds')
    )
    return {name: one(name) for name in self.shapes[shape_id]}


def _cut(length_counts: Sequence[int], width: int) -> tuple[int, ...]:
  """Counts after sentences were cut at `width` tokens."""
  counts = tuple(length_counts)
  if len(counts) <= width:
    return counts
  return (*counts[: width - 1], sum(counts[width - 1 :]))


def _fit(tokens_NT: np.ndarray, length: int) -> np.ndarray:
  """Rows cut at `length`, or filled up with padding."""
  missing = max(0, length - tokens_NT.shape[1])
  return np.pad(tokens_NT, ((0, 0), (0, missing)))[:, :length]


def check_lengths(source: Source, length_N: np.ndarray, declared: Sequence[int]):
  """Raises DataError unless as many sentences have each length as was declared."""
  found = np.bincount(length_N, minlength=len(declared) + 1)
  wanted = np.zeros_like(found)
  wanted[1 : len(declared) + 1] = declared
  if (found != wanted).any():
    i = int(np.argmax(found != wanted))
    raise DataError(
      f'{source.name}/{source.split}: expected {wanted[i]} sentences of {i} tokens, '
      f'found {found[i]}: replace the files by undamaged ones, or correct the declared '
      'lengths.'
    )
