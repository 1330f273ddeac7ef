"""Which blocks of keys a block of queries needs, and the other way round.

A function of block numbers alone: of Python numbers for a grid's size, of traced int32
in index maps and kernels.
"""

from typing import Any, Callable, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from kernels.attention import masks
from kernels.attention.case import Case

Array = jax.Array
Int = Any  # A Python number or a traced int32.


class Blocks(NamedTuple):
  """Sizes of blocks. The last one of an axis may hang over its end.

  Attributes:
    queries, keys: in one block.
    q_blocks, kv_blocks: how many there are.
  """

  queries: int
  keys: int
  q_blocks: int
  kv_blocks: int


def make(case: Case, queries: int, keys: int) -> Blocks:
  """Blocks of at most so many queries and keys."""
  return Blocks(queries, keys, -(-case.q_len // queries), -(-case.kv_len // keys))


def of_keys(case: Case, blocks: Blocks, i: Int) -> tuple[Int, Int]:
  """(first, stop) of the key blocks that query block i needs; none: stop <= first."""
  start = i * blocks.queries
  stop = _least(start + blocks.queries, case.q_len)
  return _cover(case, masks.key_range(case, start, stop), blocks.keys)


def of_queries(case: Case, blocks: Blocks, j: Int) -> tuple[Int, Int]:
  """(first, stop) of the query blocks that key block j needs; none: stop <= first."""
  start = j * blocks.keys
  stop = _least(start + blocks.keys, case.kv_len)
  return _cover(case, masks.query_range(case, start, stop), blocks.queries)


def most(of: Callable, case: Case, blocks: Blocks, count: int) -> int:
  """The longest range that `of` gives for numbers below `count`, 1 or more."""
  ranges = (of(case, blocks, i) for i in range(count))
  return max(1, *(stop - first for first, stop in ranges))


def nth(of: Callable, case: Case, blocks: Blocks, i: Int, n: Int) -> tuple[Int, Any]:
  """(n-th block of the range, whether there is one).

  Past its end the last one again: a pipeline that is asked for the block that it has
  loads nothing.
  """
  first, stop = of(case, blocks, i)
  return jnp.maximum(jnp.minimum(first + n, stop - 1), 0), first + n < stop


def segment_bounds(ids: Array, block: int) -> Array:
  """[B, S] -> int32 [2 B n]: of each of the n blocks the least number, then the largest
  of each. Two blocks whose ranges do not meet have no pair of one segment."""
  whole = ids.shape[1] // block * block
  parts = [ids[:, :whole].reshape(ids.shape[0], -1, block)]
  if whole < ids.shape[1]:
    parts.append(ids[:, None, whole:])
  bounds = (
    jnp.concatenate([reduce(part, axis=2) for part in parts if part.size], axis=1)
    for reduce in (jnp.min, jnp.max)
  )
  return jnp.concatenate([bound.reshape(-1) for bound in bounds])


def segments_meet(
  q_bounds: Any, kv_bounds: Any, blocks: Blocks, batch: int, b: Int, i: Int, j: Int
) -> Array:
  """Whether query block i and key block j of example b may share a segment.

  Args:
    q_bounds, kv_bounds: from `segment_bounds`, arrays or references.
    blocks, batch: B.
    b, i, j: traced int32.
  """
  q, kv = b * blocks.q_blocks + i, b * blocks.kv_blocks + j
  q_low, q_high = q_bounds[q], q_bounds[batch * blocks.q_blocks + q]
  kv_low, kv_high = kv_bounds[kv], kv_bounds[batch * blocks.kv_blocks + kv]
  return (q_low <= kv_high) & (kv_low <= q_high)


def _cover(case: Case, indices: tuple[Int, Int], size: int) -> tuple[Int, Int]:
  """Blocks of a range of indices."""
  low, high = indices
  if case.window is not None:
    # An empty range in the middle of a block: only a window leaves the other's end.
    empty = low >= high
    known = isinstance(empty, bool)
    high = (0 if empty else high) if known else jnp.where(empty, 0, high)
  return _divide(low, size), _divide(high + size - 1, size)


def _least(a: Int, b: int) -> Int:
  return min(a, b) if isinstance(a, int) else jnp.minimum(a, b)


def _divide(a: Int, b: int) -> Int:
  # Of numbers that are not negative. `//` of traced numbers asks Mosaic for their sign,
  # whose lowering of jax 0.10.2 wants to know the device: none when compiling ahead.
  return a // b if isinstance(a, int) else lax.div(a, jnp.int32(b))
