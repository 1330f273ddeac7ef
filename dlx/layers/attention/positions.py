"""Positions that enter the scores: who is near enough to be seen, biases by distance.

L queries, M keys, H heads. All is computed from the positions of queries and keys, so
that a part of the tokens (those behind a cache) gets what it gets in the whole.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import Relative

Array = jax.Array


def visible(
  query_L: Array, key_M: Array, *, causal: bool = False, window: int | None = None
) -> Array | None:
  """bool [1, 1, L, M], True where a query sees a key; None: everywhere.

  Args:
    query_L: int, positions of the queries.
    key_M: int, of the keys; below 0: no key, hidden where causal or with a window.
    causal: keys after the query are hidden.
    window: W; keys that are W or more away are hidden.
  """
  if not causal and window is None:
    return None
  distance_LM = query_L[:, None] - key_M[None]
  seen_LM = jnp.broadcast_to(key_M[None] >= 0, distance_LM.shape)
  if causal:
    seen_LM &= distance_LM >= 0
  if window is not None:
    seen_LM &= jnp.abs(distance_LM) < window
  return seen_LM[None, None]


def alibi_slopes(num_heads: int) -> np.ndarray:
  """float64 [H], by how much the scores of each head fall a token (arXiv:2108.12409).

  2^(-8 h / H), h = 1 to H, where H is a power of 2. Others, as in the authors' code:
  those of the power of 2 below, then every second one of the power above.
  """
  power = 1 << (num_heads.bit_length() - 1)
  slopes = lambda n: 2.0 ** (-8 * np.arange(1, n + 1) / n)
  return np.concatenate([slopes(power), slopes(2 * power)[::2][: num_heads - power]])


def alibi_bias(
  query_L: Array, key_M: Array, num_heads: int, dtype: Any = jnp.float32
) -> Array:
  """[1, H, L, M]: minus the slope of the head times the distance."""
  chex.assert_rank([query_L, key_M], 1)
  distance_LM = jnp.abs(query_L[:, None] - key_M[None]).astype(dtype)
  slope_H = jnp.asarray(alibi_slopes(num_heads), dtype)
  return -slope_H[None, :, None, None] * distance_LM[None, None]


def buckets(query_L: Array, key_M: Array, form: Relative, *, causal: bool) -> Array:
  """int32 [L, M]: the row of the table for each distance (arXiv:1910.10683).

  Of n rows of a direction the first n / 2 are distances 0, 1, ...; distance d beyond
  has row n/2 + floor(n/2 log(d / (n/2)) / log(max_distance / (n/2))), at most n - 1.
  Causal: keys after the query, which nobody sees, have row 0. Otherwise they have the
  second half of the table.
  """
  chex.assert_rank([query_L, key_M], 1)
  behind_LM = query_L[:, None] - key_M[None]
  rows, first_LM = form.num_buckets, 0
  if causal:
    distance_LM = jnp.maximum(behind_LM, 0)
  else:
    rows //= 2
    first_LM = jnp.where(behind_LM < 0, rows, 0)
    distance_LM = jnp.abs(behind_LM)
  # The least distance of each row past n / 2: whole numbers, no logarithm is rounded.
  single = rows // 2
  share = np.arange(1, rows - single) / (rows - single)
  edges = np.ceil(single * (form.max_distance / single) ** share - 1e-9)
  beyond_LM = jnp.searchsorted(jnp.asarray(edges, jnp.int32), distance_LM, side='right')
  row_LM = jnp.where(distance_LM < single, distance_LM, single + beyond_LM)
  return (first_LM + row_LM).astype(jnp.int32)
