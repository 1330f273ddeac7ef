"""Flash attention (arXiv:2205.14135, 2307.08691) for TPU, in Pallas: forward.

Scores are held transposed, keys by queries [m, l]: maxima and sums of a query then run
over sublanes, elementwise, and what belongs to a query is one row, where [l, m] has a
reduction over lanes and a broadcast column for each. o is accumulated as [K, l] and
transposed once a query block. Exponentials are of base 2.

A tile is a block of queries by a block of keys. Key blocks that no query of the block
sees for causality or a window are neither loaded nor computed. Blocks whose segments do
not meet are loaded and not computed. Inside a tile no half is skipped.

The kernels read [B, H, S, K]. XLA gives that order to whoever makes q, k and v where it
can: it does for `einsum('bld,dhk->blhk')`; a matrix product to [B, L, H K] with a
reshape after it is copied, and so are arguments and results of the whole program in
the default order (tests/kernels/static_tpu_test.py counts the copies).

One query an example, as a new token has it, is mosaic_tpu_decode.py's.

Has never run on a TPU: compiled for TPUs, and run in Pallas' interpreters.
"""

import functools
from typing import Any, Mapping

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from kernels.attention import blocks as blocks_lib
from kernels.attention import masks
from kernels.attention import mosaic_tpu_chips as chips
from kernels.attention import mosaic_tpu_decode as decode
from kernels.attention import mosaic_tpu_tile as tiles
from kernels.attention.blocks import Blocks
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_tpu_backward import backward
from kernels.attention.mosaic_tpu_tile import Part, Ref, Tile
from kernels.dispatch import Refusal

__all__ = ['backward', 'configs', 'forward', 'refusal', 'values']

Array = jax.Array


def refusal(case: Case) -> Refusal | None:
  """Why the case is not computed here; None: it is. The same for both directions."""
  if case.dtype not in ('bfloat16', 'float32'):
    return Refusal(f'dtype={case.dtype} is not computed', 'bfloat16 or float32')
  if case.head_dim % tiles.SUBLANES or not 0 < case.head_dim <= 256:
    nearest = min(
      max(-(-case.head_dim // tiles.SUBLANES) * tiles.SUBLANES, tiles.SUBLANES), 256
    )
    reason = f'head_dim={case.head_dim} is not a multiple of 8 up to 256'
    return Refusal(reason, f'head_dim={nearest}')
  if not (case.batch and case.q_len and case.kv_len):
    return Refusal('an axis is empty', 'one of each')
  return None


def _kernel(case: Case, blocks: Blocks, parts: list[Part], ahead: int, *refs: Ref):
  """Grid (b, i, head, n): the n-th of the key blocks that query block i needs."""
  inputs, (o_ref, *lse_refs, top_ref, total_ref, sum_ref) = tiles.named(case, refs)
  b, i, head, n = (pl.program_id(axis) for axis in range(4))
  j, there = blocks_lib.nth(blocks_lib.of_keys, case, blocks, i, n)
  tile = Tile(b, head, i, j)

  @pl.when(n == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, masks.MASKED)
    total_ref[...] = jnp.zeros_like(total_ref)
    sum_ref[...] = jnp.zeros_like(sum_ref)

  def scores(part):
    k, q = inputs.k[0, 0, part.rows, :], inputs.q[0, 0, part.columns, :]
    return tiles.scores(case, blocks, inputs, tile, part, k, q)[0]

  def add(part, shrink, p):
    v = inputs.v[0, 0, part.rows, :]
    if case.kv_len % blocks.keys:
      v = tiles.clean(v, j * blocks.keys + part.key, case.kv_len)
    sums = sum_ref[:, part.columns] * shrink
    sum_ref[:, part.columns] = sums + tiles.product(v, p.astype(v.dtype), (0, 0))

  @pl.when(tiles.within(case, blocks, inputs, tile, there))
  def _():
    # Products of parts to come are asked for before the exponentials of this one, and
    # what these are summed to after those of the next one, so that the compiler has
    # both kinds of work under way; how far ahead, mosaic_tpu_chips.py says.
    ready = [scores(part) for part in parts[:ahead]]
    columns = {part.query: (slice(None), part.columns) for part in parts}
    tops = {query: top_ref[at] for query, at in columns.items()}
    totals = {query: total_ref[at] for query, at in columns.items()}
    waiting = []
    for n, part in enumerate(parts):
      if n + ahead < len(parts):
        ready.append(scores(parts[n + ahead]))
      s, before = ready.pop(0), tops[part.query]
      top = jnp.maximum(before, s.max(axis=0, keepdims=True))
      shrink, p = jnp.exp2(before - top), jnp.exp2(s - top)
      tops[part.query] = top
      # A sum for each sublane: they are added up once, at the end.
      sums = p.reshape(-1, tiles.SUBLANES, part.queries).sum(axis=0)
      totals[part.query] = totals[part.query] * shrink + sums
      if case.dropout_rate:
        p = jnp.where(tiles.kept(case, blocks, inputs, tile, part), p, 0)
      if waiting:
        add(*waiting.pop())
      waiting.append((part, shrink, p))
    add(*waiting.pop())
    for query, at in columns.items():
      top_ref[at], total_ref[at] = tops[query], totals[query]

  @pl.when(n == pl.num_programs(3) - 1)
  def _():
    top, total = top_ref[...], total_ref[...].sum(axis=0, keepdims=True)
    # NaN is not hidden: the total has it also where a maximum ignores it.
    seen = jnp.logical_not(top <= tiles.HIDDEN) | (total != total)
    share = jnp.where(seen, 1 / (total * (1 - case.dropout_rate)), 0)
    o_ref[0, 0] = (sum_ref[...] * share).T.astype(o_ref.dtype)
    for lse_ref in lse_refs:
      lse = jnp.where(seen, top / tiles.LOG2_E + jnp.log(total), -jnp.inf)
      lse_ref[tiles.head_row(case, tile)] = lse


def values(case: Case, operands: Operands, **options: Any) -> Array:
  """o alone, for which no log sum is computed or written; options of `forward`."""
  return forward(case, operands, log_sums=False, **options)[0]


def forward(
  case: Case, operands: Operands, *, interpret: Any = False,
  config: Mapping[str, int] = {}, log_sums: bool = True,
) -> tuple[Array, Any]:  # fmt: skip
  """(o [B, L, H, K] in q's dtype, log sum exp of the scores [B, H, L] float32).

  Args:
    interpret: False: compiled; True: Pallas' interpreter; a pltpu.InterpretParams: the
      one that simulates a TPU's memories, and can look for races.
    config: block_q and block_kv: queries and keys of a tile; part_q and part_kv: of
      what is computed of it at once. Multiples of 128.
    log_sums: whether they are given, or None in their place.

  Raises:
    ValueError: a size in config that is not allowed.
  """
  if decode.takes(case):
    return decode.forward(
      case, operands, interpret=interpret, config=config, log_sums=log_sums
    )
  cut = chips.cuts().forward
  default = dict(block_q=512, block_kv=512, part_q=cut.part_q, part_kv=cut.part_kv)
  blocks, parts = tiles.sizes(case, config, default)

  def place(b, i, head, n, *_):
    j, _ = blocks_lib.nth(blocks_lib.of_keys, case, blocks, i, n)
    return Tile(b, head, i, j)

  n = blocks_lib.most(blocks_lib.of_keys, case, blocks, blocks.q_blocks)
  rows = (case.batch, case.q_heads, case.q_len)
  outputs = [
    (
      jax.ShapeDtypeStruct((*rows, case.head_dim), operands.q_BLHK.dtype),
      tiles.rows_spec(blocks, case.head_dim, place),
    )
  ]
  if log_sums:
    sums = jax.ShapeDtypeStruct(rows, jnp.float32)
    outputs.append((sums, tiles.sums_spec(case, blocks, place)))
  o, *lse = tiles.run(
    functools.partial(_kernel, case, blocks, parts, cut.ahead),
    'dlx_attention_forward',
    (case.batch, blocks.q_blocks, case.q_heads, n),
    tiles.reads(case, blocks, operands, place),
    outputs,
    [(rows, blocks.queries) for rows in (1, tiles.SUBLANES, case.head_dim)],
    # Heads too: the rows of a block of the log sums are written one by one.
    2 if log_sums else 1,
    tiles.cost(case, blocks, 2),
    interpret,
  )
  return tiles.head_major(o), lse[0] if lse else None


def configs(case: Case) -> list[dict[str, int]]:
  """Tile sizes worth trying on a device (kernels/tune.py)."""
  if decode.takes(case):
    return decode.configs(case)
  found: list[dict[str, int]] = [{}]
  found += [{'block_q': q, 'block_kv': kv} for q in (256, 512) for kv in (512, 1024)]
  found += [{'part_q': q, 'part_kv': kv} for q in (256, 512) for kv in (256, 512)]
  return found
