"""Who sees whom, and which weights are dropped: the same arithmetic in every backend.

All is computed from indices, elementwise, so that a kernel can do it for its block.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.attention.case import Case

Array = jax.Array

MASKED = -1e30  # A score that no maximum of real scores falls below; exp of it is 0.


def visible(
  case: Case,
  query: Array,
  key: Array,
  q_segment: Array | None = None,
  kv_segment: Array | None = None,
) -> Array | None:
  """bool, where a query sees a key; None: everywhere.

  Args:
    case: of it causal and window are used.
    query, key: int32 indices, of shapes that broadcast with each other.
    q_segment, kv_segment: their segments, likewise.
  """
  found = None

  def both(more):
    return more if found is None else jnp.logical_and(found, more)

  if case.causal:
    found = both(key <= query)
  if case.window is not None:
    left, right = case.window
    found = both(key >= query - left)
    if not case.causal:
      found = both(key <= query + right)
  if q_segment is not None:
    found = both(q_segment == kv_segment)
  return found


def key_range(case: Case, first: int | Array, stop: int | Array):
  """(first, stop) of the keys that queries `first` to `stop` - 1 may see.

  Segments aside. For no such keys stop is at most first. Numbers or traced int32.
  """
  low, high = 0, case.kv_len
  least, most = _bounds(first, stop)
  if case.causal:
    high = least(high, stop)
  if case.window is not None:
    left, right = case.window
    low = most(low, first - left)
    if not case.causal:
      high = least(high, stop + right)
  return low, high


def _bounds(first: int | Array, stop: int | Array) -> Any:
  if isinstance(first, int) and isinstance(stop, int):
    return min, max
  return jnp.minimum, jnp.maximum


def query_range(case: Case, first: int | Array, stop: int | Array):
  """(first, stop) of the queries that may see keys `first` to `stop` - 1."""
  low, high = 0, case.q_len
  least, most = _bounds(first, stop)
  if case.causal:
    low = most(low, first)
  if case.window is not None:
    left, right = case.window
    high = least(high, stop + left)
    if not case.causal:
      low = most(low, first - right)
  return low, high


def _mix(x: Array) -> Array:
  """A bijection of uint32 in which every bit of x reaches every bit (murmur3's)."""
  x = x ^ (x >> 16)
  x = x * jnp.uint32(0x85EBCA6B)
  x = x ^ (x >> 13)
  x = x * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def keep(
  rate: float, seed: tuple[Array, Array], head: Array, query: Array, key: Array
) -> Array:
  """bool, which weights stay: a function of the indices alone, not of blocks.

  Args:
    rate: probability that one is dropped.
    seed: two uint32 numbers.
    head: int32, batch * H + head.
    query, key: int32 indices; all shapes broadcast with each other.
  """
  u32 = lambda x: jnp.asarray(x).astype(jnp.uint32)
  row = _mix(u32(query) ^ _mix(u32(head) ^ seed[0]))
  bits = _mix(u32(key) * jnp.uint32(0x9E3779B9) ^ row ^ seed[1])
  # 24 of the bits, compared as signed numbers: some kernels have no unsigned ones.
  return (bits >> 8).astype(jnp.int32) >= jnp.int32(round(rate * 2**24))


def seed_of_head(seed: tuple[Array, Array], head: int | Array) -> tuple[Array, Array]:
  """The seed by which head 0 keeps what `head` keeps by `seed`."""
  return jnp.asarray(head).astype(jnp.uint32) ^ seed[0], seed[1]
