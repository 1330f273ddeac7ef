"""A cache of the last M tokens, token t at place t mod M: that of a sliding window."""

import jax
import jax.numpy as jnp

Array = jax.Array


def held(length: Array | int, capacity: int) -> Array:
  """int32 [M]: which token lies at each place after `length` tokens; below 0: none."""
  place_M = jnp.arange(capacity, dtype=jnp.int32)
  last = jnp.asarray(length, jnp.int32) - 1
  return last - (last - place_M) % capacity


def put_in_ring(old_BMGK: Array, new_BTGK: Array, length: Array | int) -> Array:
  """The places after tokens `length` to `length` + T - 1, of which the last M stay."""
  capacity, count = old_BMGK.shape[1], new_BTGK.shape[1]
  kept = min(count, capacity)
  token_T = length + jnp.arange(count - kept, count, dtype=jnp.int32)
  new = new_BTGK[:, count - kept :].astype(old_BMGK.dtype)
  return old_BMGK.at[:, token_T % capacity].set(new)
