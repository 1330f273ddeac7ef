"""Gradients of flash attention for TPU: one kernel for dq, one for dk and dv.

Each adds its sums up in one order, so the same operands give the same bits. Scores are
computed again, transposed as in the forward kernel; see kernels/attention/mosaic_tpu.py
also for what is skipped, what is copied, and that no TPU has run this.
"""

import functools
from typing import Any, Mapping

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from kernels.attention import blocks as blocks_lib
from kernels.attention import masks, reference
from kernels.attention import mosaic_tpu_chips as chips
from kernels.attention import mosaic_tpu_tile as tiles
from kernels.attention.blocks import Blocks
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_tpu_tile import Inputs, Part, Ref, Tile

Array = jax.Array

# exp2(s - NONE) is 0 for every score, also a hidden one: for queries without keys.
NONE = -masks.MASKED


def _sums(
  case: Case, blocks: Blocks, tile: Tile, part: Part, lse_ref: Ref, delta_ref: Ref
) -> tuple[Array, Array]:
  """(log sum in base 2, delta) of the part's queries, rows [1, l]."""
  columns = slice(part.query, part.query + part.queries)
  row = tiles.head_row(case, tile)
  # Rows whole, then the part: see `tiles.scores`.
  lse, delta = lse_ref[row][:, columns], delta_ref[row][:, columns]
  query = tiles.numbers(tile.i * blocks.queries + part.query, lse.shape, 1)
  none = (lse == -jnp.inf) | (query >= case.q_len)
  return (
    jnp.where(none, NONE, lse * tiles.LOG2_E),
    jnp.where(query < case.q_len, delta, 0),
  )


def _delta(o: Array, do: Array, dlse: Array | None) -> Array:
  """reference.delta. The product of it is not an einsum here: the one there made the
  compiler for tpu7x copy o, in float32."""
  found = (reference.wide(o) * reference.wide(do)).sum(axis=3).transpose(0, 2, 1)
  return found if dlse is None else found - jnp.where(jnp.isfinite(dlse), dlse, 0)


def _slopes(
  case: Case, blocks: Blocks, inputs: Inputs, tile: Tile, part: Part,
  q: Array, k: Array, v: Array, do: Array, lse: Array, delta: Array,
) -> tuple[Array, Array]:  # fmt: skip
  """(weights after dropout, slopes of the scores before scaling), of a part [m, l]."""
  s, capped = tiles.scores(case, blocks, inputs, tile, part, k, q)
  p = jnp.exp2(s - lse)
  dp = tiles.product(v, do, (1, 1))
  used = p
  if case.dropout_rate:
    stay = tiles.kept(case, blocks, inputs, tile, part)
    more = 1 / (1 - case.dropout_rate)
    used, dp = jnp.where(stay, p * more, 0), jnp.where(stay, dp * more, 0)
  ds = p * (dp - delta)
  if capped is not None:
    ds = ds * (1 - capped * capped)
  return used, ds


def _queries_kernel(case: Case, blocks: Blocks, parts: list[Part], *refs: Ref):
  """dq. Grid (b, i, head, n): the n-th of the key blocks that query block i needs."""
  inputs, rest = tiles.named(case, refs)
  do_ref, lse_ref, delta_ref, dq_ref, sum_ref = rest
  b, i, head, n = (pl.program_id(axis) for axis in range(4))
  j, there = blocks_lib.nth(blocks_lib.of_keys, case, blocks, i, n)
  tile = Tile(b, head, i, j)

  @pl.when(n == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(tiles.within(case, blocks, inputs, tile, there))
  def _():
    for part in parts:
      q, do = (ref[0, 0, part.columns, :] for ref in (inputs.q, do_ref))
      k, v = (ref[0, 0, part.rows, :] for ref in (inputs.k, inputs.v))
      if case.kv_len % blocks.keys:
        first = tile.j * blocks.keys + part.key
        k, v = (tiles.clean(x, first, case.kv_len) for x in (k, v))
      sums = _sums(case, blocks, tile, part, lse_ref, delta_ref)
      _, ds = _slopes(case, blocks, inputs, tile, part, q, k, v, do, *sums)
      sum_ref[:, part.columns] += tiles.product(k, ds.astype(k.dtype), (0, 0))

  @pl.when(n == pl.num_programs(3) - 1)
  def _():
    dq_ref[0, 0] = (sum_ref[...] * case.scale).T.astype(dq_ref.dtype)


def _keys_kernel(case: Case, blocks: Blocks, parts: list[Part], *refs: Ref):
  """dk, dv. Grid (b, kv head, j, head of the group, n): the n-th of the query blocks
  that key block j needs."""
  inputs, rest = tiles.named(case, refs)
  do_ref, lse_ref, delta_ref, dk_ref, dv_ref, dk_sum_ref, dv_sum_ref = rest
  b, kv_head, j, member, n = (pl.program_id(axis) for axis in range(5))
  i, there = blocks_lib.nth(blocks_lib.of_queries, case, blocks, j, n)
  tile = Tile(b, kv_head * case.group + member, i, j)

  @pl.when((member == 0) & (n == 0))
  def _():
    dk_sum_ref[...] = jnp.zeros_like(dk_sum_ref)
    dv_sum_ref[...] = jnp.zeros_like(dv_sum_ref)

  @pl.when(tiles.within(case, blocks, inputs, tile, there))
  def _():
    for part in parts:
      q, do = (ref[0, 0, part.columns, :] for ref in (inputs.q, do_ref))
      k, v = (ref[0, 0, part.rows, :] for ref in (inputs.k, inputs.v))
      if case.q_len % blocks.queries:
        first = tile.i * blocks.queries + part.query
        q, do = (tiles.clean(x, first, case.q_len) for x in (q, do))
      sums = _sums(case, blocks, tile, part, lse_ref, delta_ref)
      p, ds = _slopes(case, blocks, inputs, tile, part, q, k, v, do, *sums)
      dv_sum_ref[part.rows, :] += tiles.product(p.astype(do.dtype), do, (1, 0))
      dk_sum_ref[part.rows, :] += tiles.product(ds.astype(q.dtype), q, (1, 0))

  @pl.when((member == case.group - 1) & (n == pl.num_programs(4) - 1))
  def _():
    dk_ref[0, 0] = (dk_sum_ref[...] * case.scale).astype(dk_ref.dtype)
    dv_ref[0, 0] = dv_sum_ref[...].astype(dv_ref.dtype)


def backward(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None,
  *, interpret: Any = False, config: Mapping[str, int] = {},
) -> tuple[Array, Array, Array]:  # fmt: skip
  """(dq, dk, dv) from what `forward` gave and the slopes of it.

  Args:
    interpret: as in `forward`.
    config: of both kernels, as there.

  Raises:
    ValueError: a size in config that is not allowed.
  """
  block = 256 if case.head_dim > 128 or case.dtype == 'float32' else 512
  default = dict(block_q=block, block_kv=block)
  (blocks, q_parts), (_, kv_parts) = (
    tiles.sizes(case, config, default | dict(part_q=cut.part_q, part_kv=cut.part_kv))
    for cut in chips.cuts()[1:]
  )
  delta = _delta(o, do, dlse)
  more = [tiles.head_major(do), lse, delta]

  def reads(place):
    call = tiles.reads(case, blocks, operands, place)
    sums = tiles.sums_spec(case, blocks, place)
    specs = [tiles.rows_spec(blocks, case.head_dim, place), sums, sums]
    return call._replace(arrays=call.arrays + more, specs=call.specs + specs)

  def of_queries(b, i, head, n, *_):
    j, _ = blocks_lib.nth(blocks_lib.of_keys, case, blocks, i, n)
    return Tile(b, head, i, j)

  def of_keys(b, kv_head, j, member, n, *_):
    i, _ = blocks_lib.nth(blocks_lib.of_queries, case, blocks, j, n)
    return Tile(b, kv_head * case.group + member, i, j)

  like = lambda heads, length: jax.ShapeDtypeStruct(
    (case.batch, heads, length, case.head_dim), operands.q_BLHK.dtype
  )
  kv_spec = pl.BlockSpec(
    (1, 1, blocks.keys, case.head_dim), lambda b, kv_head, j, *_: (b, kv_head, j, 0)
  )
  (dq,) = tiles.run(
    functools.partial(_queries_kernel, case, blocks, q_parts),
    'dlx_attention_backward_q',
    (
      case.batch,
      blocks.q_blocks,
      case.q_heads,
      blocks_lib.most(blocks_lib.of_keys, case, blocks, blocks.q_blocks),
    ),
    reads(of_queries),
    [
      (
        like(case.q_heads, case.q_len),
        tiles.rows_spec(blocks, case.head_dim, of_queries),
      )
    ],
    [(case.head_dim, blocks.queries)],
    1,
    tiles.cost(case, blocks, 3),
    interpret,
  )
  dk, dv = tiles.run(
    functools.partial(_keys_kernel, case, blocks, kv_parts),
    'dlx_attention_backward_kv',
    (
      case.batch,
      case.kv_heads,
      blocks.kv_blocks,
      case.group,
      blocks_lib.most(blocks_lib.of_queries, case, blocks, blocks.kv_blocks),
    ),
    reads(of_keys),
    [(like(case.kv_heads, case.kv_len), kv_spec)] * 2,
    [(blocks.keys, case.head_dim)] * 2,
    2,
    tiles.cost(case, blocks, 4),
    interpret,
  )
  return tiles.head_major(dq), tiles.head_major(dk), tiles.head_major(dv)
