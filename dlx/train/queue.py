"""A queue of keys and a momentum encoder (MoCo, arXiv:1911.05722)."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dlx.optim import copies
from dlx.precision import unit
from dlx.state import Array, Key, PyTree


class Queue(NamedTuple):
  """The last N keys, as a ring.

  Attributes:
    keys_ND: in ring order.
    start: int32 scalar, the row of the oldest: the next one to be overwritten.
  """

  keys_ND: Array
  start: Array


def init_queue(key: Key, size: int, width: int, dtype: Any = jnp.float32) -> Queue:
  """A queue of random keys of length 1."""
  keys_ND = unit(jax.random.normal(key, (size, width), dtype))
  return Queue(keys_ND.astype(dtype), jnp.zeros((), jnp.int32))


def push(queue: Queue, new_BD: Array) -> Queue:
  """First in, first out: the new rows take the places of the B oldest.

  Args:
    queue: of N rows; N need not be a multiple of B.
    new_BD: row 0 counts as the oldest of them. Of more than N only the last N stay.
  """
  chex.assert_equal_shape_suffix([queue.keys_ND, new_BD], 1)
  size, count = queue.keys_ND.shape[0], new_BD.shape[0]
  kept = min(size, count)
  place = jnp.arange(count - kept, count, dtype=jnp.int32)
  index = (queue.start + place) % size
  keys_ND = queue.keys_ND.at[index].set(
    new_BD[count - kept :].astype(queue.keys_ND.dtype),
    unique_indices=True,
    mode='promise_in_bounds',
  )
  return Queue(keys_ND, (queue.start + count) % size)


def momentum_update(slow: PyTree, fast: PyTree, momentum: float | Array) -> PyTree:
  """`momentum * slow + (1 - momentum) * fast`, in the dtypes of `slow`.

  `steps.wide_copy` of `fast` is what `slow` begins with.

  Raises:
    ConfigError: `slow` is narrower than float32.
  """
  copies.check_average(slow)
  mix = lambda s, f: (s + (1 - momentum) * (f.astype(s.dtype) - s)).astype(s.dtype)
  return jax.tree.map(mix, slow, fast)
