"""Attention block by block in XLA (arXiv:2112.05682): any case, on any platform.

Scores exist for one block of queries and one of keys at a time, so that temporary
memory grows with the number of tokens and not with its square; blocks that the causal
mask or the window leave empty are not computed. Sums are in float32 or wider; products
have operands of the dtype of q, and for float32 the precision that jax is set to. Where
the scores are few there is one block.

Letters as in kernels/attention/case.py; l and m: queries and keys of a block, R: heads
of queries that share one of keys. A block of scores is [B, G, l, R, m]: in this order
no product has to transpose it, and keys are not repeated.
"""

import math
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from kernels.attention import masks
from kernels.attention.case import Case, Operands
from kernels.attention.reference import delta, wide

Array = jax.Array

ALL_BYTES = 2**22  # Scores of at most so many bytes are one block.
BLOCK_BYTES = 2**24  # Of a block, as long as it is not smaller than the least.
MOST_SCORES = 2**18  # Of a block, per head.
LEAST, MOST_QUERIES = 128, 512


class Span(NamedTuple):
  """A block of queries or keys: `size` of them from `start`.

  The last block of a ragged number begins early; what the one before it has already is
  below `fresh`.

  Attributes:
    start: int or int32.
    size: int.
    fresh: the first that no block before this one has; None: all are fresh.
  """

  start: int | Array
  size: int
  fresh: int | Array | None

  @property
  def index(self) -> Array:
    """int32 [size]."""
    return self.start + jnp.arange(self.size, dtype=jnp.int32)


def refusal(case: Case) -> None:
  del case


def blocks(case: Case) -> tuple[int, int]:
  """How many queries and how many keys make a block."""
  size = 8 if case.dtype == 'float64' else 4
  per_score = size * case.batch * case.q_heads
  if per_score * case.q_len * case.kv_len <= ALL_BYTES:
    return case.q_len, case.kv_len
  queries = min(case.q_len, MOST_QUERIES)
  most = min(MOST_SCORES, BLOCK_BYTES // per_score)
  while queries > LEAST and queries * LEAST > most:
    queries = max(queries // 2, LEAST)
  keys = max(LEAST, 2 ** int(math.log2(max(most // queries, 1))))
  return queries, min(case.kv_len, keys)


def forward(case: Case, operands: Operands) -> tuple[Array, Array]:
  """(o [B, L, H, K] in q's dtype, log sum exp of the scores [B, H, L])."""
  sizes = blocks(case)
  dtype = wide(operands.q_BLHK).dtype
  zero = _zero(operands)
  shape = (case.batch, case.kv_heads, sizes[0], case.group)

  def row(i, found):
    queries = _span(case.q_len, sizes[0], i)

    def column(j, state):
      top, total, o = state
      keys = _span(case.kv_len, sizes[1], j)
      s, _ = _scores(case, operands, queries._replace(fresh=None), keys)
      higher = jnp.maximum(top, s.max(axis=-1))
      level = jnp.where(jnp.isneginf(higher), 0, higher)
      p = jnp.exp(s - level[..., None])
      shrink = jnp.exp(top - level)
      total = shrink * total + p.sum(axis=-1)
      if case.dropout_rate:
        stay = _kept(case, operands, queries, keys)
        p = jnp.where(stay, p / (1 - case.dropout_rate), 0)
      v = _take(operands.v_BMGK, 1, keys)
      return higher, total, shrink[..., None] * o + _product('bglrm,bmgk->bglrk', p, v)

    state = (
      jnp.full(shape, -jnp.inf, dtype) + zero,
      jnp.zeros(shape, dtype) + zero,
      jnp.zeros((*shape, case.head_dim), dtype) + zero,
    )
    seen = masks.key_range(case, queries.start, queries.start + queries.size)
    top, total, o = _over(case.kv_len, sizes[1], seen, column, state)
    none = total == 0
    o = o / jnp.where(none, 1, total)[..., None]
    lse = jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, total)) + top)
    o = o.transpose(0, 2, 1, 3, 4).reshape(case.batch, -1, case.q_heads, case.head_dim)
    lse = lse.transpose(0, 1, 3, 2).reshape(case.batch, case.q_heads, -1)
    return _put(found[0], 1, queries, o), _put(found[1], 2, queries, lse)

  found = (
    jnp.zeros_like(operands.q_BLHK) + zero.astype(operands.q_BLHK.dtype),
    jnp.zeros((case.batch, case.q_heads, case.q_len), dtype) + zero,
  )
  return _over(case.q_len, sizes[0], (0, case.q_len), row, found)


def backward(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) from what `forward` gave and the slopes of it."""
  sizes = blocks(case)
  q, k, v = operands.q_BLHK, operands.k_BMGK, operands.v_BMGK
  zero = _zero(operands, do)
  along = delta(o, do, dlse)

  def column(j, found):
    dq, dk, dv = found
    keys = _span(case.kv_len, sizes[1], j)

    def row(i, state):
      dq, dk, dv = state
      queries = _span(case.q_len, sizes[0], i)
      p, _, da = _slopes(case, operands, queries, keys, lse, do, along)
      dv += _product('bglrm,blgrk->bmgk', p, _queries(case, do, queries))
      dk += _product('bglrm,blgrk->bmgk', da, _queries(case, q, queries))
      more = _product('bglrm,bmgk->blgrk', da, _take(k, 1, keys))
      old = _take(dq, 1, queries)
      return _put(dq, 1, queries, old + more.reshape(old.shape)), dk, dv

    tile = jnp.zeros((case.batch, keys.size, *k.shape[2:]), wide(k).dtype) + zero
    seen = masks.query_range(case, keys.start, keys.start + keys.size)
    dq, *tiles = _over(case.q_len, sizes[0], seen, row, (dq, tile, tile))
    # Keys that are not fresh got nothing here.
    dk, dv = (
      _put(d, 1, keys, _take(d, 1, keys) + tile)
      for d, tile in zip((dk, dv), tiles, strict=True)
    )
    return dq, dk, dv

  found = tuple(jnp.zeros(x.shape, wide(x).dtype) + zero for x in (q, k, v))
  found = _over(case.kv_len, sizes[1], (0, case.kv_len), column, found)
  return tuple(d.astype(x.dtype) for d, x in zip(found, (q, k, v), strict=True))


def bias_gradient(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> Array:
  """Of the bias, in its shape and dtype; holds no more than that and a block."""
  bias = operands.bias
  assert bias is not None
  sizes = blocks(case)
  along = delta(o, do, dlse)
  summed = tuple(axis for axis, n in enumerate(bias.shape) if n == 1)

  def column(j, found):
    keys = _span(case.kv_len, sizes[1], j)

    def row(i, found):
      queries = _span(case.q_len, sizes[0], i)
      _, ds, _ = _slopes(case, operands, queries, keys, lse, do, along)
      ds = ds.transpose(0, 1, 3, 2, 4)
      ds = ds.reshape(case.batch, case.q_heads, *ds.shape[3:])
      old = _tile(found, queries, keys)
      new = old + ds.sum(summed, keepdims=True).astype(found.dtype)
      axes = ((2, queries), (3, keys))
      starts = [span.start if found.shape[axis] > 1 else 0 for axis, span in axes]
      starts = [jnp.asarray(start, jnp.int32) for start in (0, 0, *starts)]
      return lax.dynamic_update_slice(found, new, starts)

    seen = masks.query_range(case, keys.start, keys.start + keys.size)
    return _over(case.q_len, sizes[0], seen, row, found)

  # Where nothing is summed every number is written once, and needs no wider dtype.
  dtype = wide(bias).dtype if summed else bias.dtype
  found = jnp.zeros(bias.shape, dtype) + _zero(operands, do).astype(dtype)
  found = _over(case.kv_len, sizes[1], (0, case.kv_len), column, found)
  return found.astype(bias.dtype)


def _scores(case, operands, queries: Span, keys: Span) -> tuple[Array, Array | None]:
  """(scores, -inf where not seen or not fresh; slope of the cap, None: 1)."""
  q = _queries(case, operands.q_BLHK, queries)
  s = case.scale * _product('blgrk,bmgk->bglrm', q, _take(operands.k_BMGK, 1, keys))
  slope = None
  if case.soft_cap is not None:
    bent = jnp.tanh(s / case.soft_cap)
    s, slope = case.soft_cap * bent, 1 - bent * bent
  if operands.bias is not None:
    s = s + _grouped(case, wide(_tile(operands.bias, queries, keys)))
  query, key = queries.index[:, None], keys.index[None, :]
  as_scores = lambda x: None if x is None else x[None, None, :, None, :]
  seen = [as_scores(masks.visible(case, query, key))]
  seen += [
    None if span.fresh is None else as_scores(index >= span.fresh)
    for span, index in ((queries, query), (keys, key))
  ]
  if operands.q_segment_BL is not None and operands.kv_segment_BM is not None:
    of_query = _take(operands.q_segment_BL, 1, queries)[:, None, :, None, None]
    of_key = _take(operands.kv_segment_BM, 1, keys)[:, None, None, None, :]
    seen.append(of_query == of_key)
  for part in seen:
    if part is not None:
      s = jnp.where(part, s, -jnp.inf)
  return s, slope


def _slopes(case, operands, queries: Span, keys: Span, lse, do, along):
  """(weights after dropout, slopes of the scores after the cap, and of q k^T)."""
  s, cap_slope = _scores(case, operands, queries, keys)
  level = _rows(case, _take(lse, 2, queries))
  p = jnp.exp(s - jnp.where(jnp.isneginf(level), 0, level))
  dp = _product(
    'blgrk,bmgk->bglrm', _queries(case, do, queries), _take(operands.v_BMGK, 1, keys)
  )
  used = p
  if case.dropout_rate:
    stay, more = _kept(case, operands, queries, keys), 1 / (1 - case.dropout_rate)
    used, dp = jnp.where(stay, p * more, 0), jnp.where(stay, dp * more, 0)
  ds = p * (dp - _rows(case, _take(along, 2, queries)))
  da = ds if cap_slope is None else ds * cap_slope
  return used, ds, case.scale * da


def _kept(case: Case, operands: Operands, queries: Span, keys: Span) -> Array:
  """bool, which weights of a block are not dropped."""
  assert operands.seed is not None
  head = jnp.arange(case.batch * case.q_heads, dtype=jnp.int32)
  return masks.keep(
    case.dropout_rate,
    (operands.seed[0], operands.seed[1]),
    head.reshape(case.batch, case.kv_heads, 1, case.group, 1),
    queries.index[None, None, :, None, None],
    keys.index[None, None, None, None, :],
  )


def _product(names: str, a: Array, b: Array) -> Array:
  """An einsum of operands in the dtype of b, float32 or wider."""
  dtype = jnp.promote_types(b.dtype, jnp.float32)
  return jnp.einsum(names, a.astype(b.dtype), b, preferred_element_type=dtype)


def _queries(case: Case, x_BLHK: Array, queries: Span) -> Array:
  """[B, l, G, R, K]."""
  x = _take(x_BLHK, 1, queries)
  return x.reshape(*x.shape[:2], case.kv_heads, case.group, case.head_dim)


def _rows(case: Case, x_BHl: Array) -> Array:
  """[B, G, l, R, 1]."""
  return _grouped(case, x_BHl[..., None])


def _grouped(case: Case, x: Array) -> Array:
  """[1 or B, 1 or H, l, m] -> [1 or B, 1 or G, l, 1 or R, m]."""
  heads = (case.kv_heads, case.group) if x.shape[1] > 1 else (1, 1)
  return x.reshape(x.shape[0], *heads, *x.shape[2:]).transpose(0, 1, 3, 2, 4)


def _tile(bias: Array, queries: Span, keys: Span) -> Array:
  """[1 or B, 1 or H, 1 or l, 1 or m]."""
  for axis, span in ((2, queries), (3, keys)):
    if bias.shape[axis] > 1:
      bias = _take(bias, axis, span)
  return bias


def _span(total: int, size: int, i: Any) -> Span:
  if size == total:
    return Span(0, size, None)
  first = jnp.asarray(i * size, jnp.int32)
  if total % size == 0:
    return Span(first, size, None)
  return Span(jnp.minimum(first, total - size), size, first)


def _take(x: Array, axis: int, span: Span) -> Array:
  if span.size == x.shape[axis]:
    return x
  return lax.dynamic_slice_in_dim(x, span.start, span.size, axis)


def _put(x: Array, axis: int, span: Span, new: Array) -> Array:
  new = new.astype(x.dtype)
  if span.size == x.shape[axis]:
    return new
  return lax.dynamic_update_slice_in_dim(x, new, span.start, axis)


def _over(total: int, size: int, seen: tuple, body, state) -> Any:
  """state = body(i, state) for all blocks that have something of the range `seen`."""
  if size == total:
    return body(0, state)
  first, stop = (jnp.asarray(x, jnp.int32) for x in seen)
  stop = jnp.minimum((stop + size - 1) // size, -(-total // size))
  return lax.fori_loop(first // size, stop, body, state)


def _zero(operands: Operands, *more: Array) -> Array:
  """A 0 that is said to vary over a mesh as all operands do, as a loop's carry must."""
  parts = [x for x in (*operands, *more) if x is not None]
  first = (lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(()) for x in parts)
  zeros = (jnp.where(False, x, 0) for x in first)
  return sum((wide(x) for x in zeros), jnp.float32(0)).astype(wide(operands[0]).dtype)
