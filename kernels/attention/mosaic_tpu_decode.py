"""Flash attention for TPU of one query an example, as a new token has it: forward.

Such a call reads keys and values once and computes little. Query heads that share a
head of keys are the rows of its products, [r, K] by [m, K] and [r, m] by [m, K], so
keys are read once a group, and scores lie as they are written, keys over lanes. o is
read and written as [B, H, K] and log sums as [B, 1, H]: with an axis of one query
before the last, memory is padded to 2 and to 128 of it.

Of keys with segments only the blocks from the first to the last that the query sees are
loaded: a cache filled to a length costs that length. Keys and values are read as
[B, G, M, K]. A cache that is stored so, and turned by a transpose where it is passed,
is not copied; one stored as [B, M, G, K] is, whole, at each call
(tests/kernels/attention_decode_test.py).

Has never run on a TPU, as the rest of kernels/attention/mosaic_tpu.py.
"""

import functools
import math
from typing import Any, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from kernels.attention import masks
from kernels.attention import mosaic_tpu_tile as tiles
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_tpu_tile import Ref

Array = jax.Array

# Of keys in a block, and twice of its scores: with values and two buffers of each, 4 of
# the 16 MiB that v5e grants a kernel.
BLOCK_BYTES = 2**20


class Form(NamedTuple):
  """How a case is cut.

  Attributes:
    rows: query heads of a program.
    members: heads of keys of them.
    keys: of a block.
    seen: keys 0 to seen - 1 are visible, segments aside.
    log_sums: whether they are written.
  """

  rows: int
  members: int
  keys: int
  seen: int
  log_sums: bool = True


class _Refs(NamedTuple):
  """What the kernel reads; None: not part of the case."""

  q: Ref
  k: Ref
  v: Ref
  seed: Ref = None
  first: Ref = None
  stop: Ref = None
  q_segment: Ref = None
  bias: Ref = None
  kv_segment: Ref = None


def takes(case: Case) -> bool:
  """Whether the case is computed here: one query, and heads that fit on the chip."""
  return case.q_len == 1 and _most_keys(case) >= tiles.LANES


def _heads(case: Case) -> int:
  """Query heads of a program: whole groups, and a multiple of 8 or all there are."""
  rows = math.lcm(case.group, tiles.SUBLANES)
  return case.q_heads if case.q_heads % rows else rows


def _most_keys(case: Case) -> int:
  rows = _heads(case)
  whole = -(-case.head_dim // tiles.LANES) * tiles.LANES
  row_bytes = rows // case.group * whole * jnp.dtype(case.dtype).itemsize
  most = min(BLOCK_BYTES // row_bytes, BLOCK_BYTES // (2 * 4 * rows))
  return most // tiles.LANES * tiles.LANES


def _kernel(case: Case, form: Form, *refs: Ref):
  """Grid (b, stripe, n): the n-th of the key blocks of example b, for a stripe of
  query heads and all heads of keys that they read."""
  names = _names(case)
  given = _Refs(**dict(zip(names, refs)))
  o_ref, *lse_refs, top_ref, total_ref, sum_ref = refs[len(names) :]
  b, stripe, n = (pl.program_id(axis) for axis in range(3))
  j, there = _block(form, given.first, given.stop, b, n)

  @pl.when(n == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, masks.MASKED)
    total_ref[...] = jnp.zeros_like(total_ref)
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(there)
  def _():
    key = tiles.numbers(j * form.keys, (1, form.keys), 1)
    visible = None
    if form.seen % form.keys:
      visible = key < form.seen
    if case.segments:
      row = pl.ds(lax.rem(b, jnp.int32(tiles.stripes(case.batch))), 1)
      same = given.kv_segment[row, :] == given.q_segment[b]
      visible = same if visible is None else visible & same
    # As 32 bits: rows of half of them lie in pairs, and a group may begin within one.
    q = given.q[0].astype(jnp.float32)
    for member in range(form.members):
      rows = slice(member * case.group, (member + 1) * case.group)
      k, v = given.k[0, member], given.v[0, member]
      if form.seen % form.keys:
        v = tiles.clean(v, j * form.keys, form.seen)
      s = _scores(case, given, q[rows].astype(k.dtype), k, rows)
      s = s if visible is None else jnp.where(visible, s, masks.MASKED)
      before = top_ref[rows]
      top = jnp.maximum(before, s.max(axis=1, keepdims=True))
      shrink, p = jnp.exp2(before - top), jnp.exp2(s - top)
      top_ref[rows] = top
      total_ref[rows] = total_ref[rows] * shrink + p.sum(axis=1, keepdims=True)
      if case.dropout_rate:
        seed = tuple(given.seed[i].astype(jnp.uint32) for i in range(2))
        first = b * case.q_heads + stripe * form.rows + rows.start
        head = tiles.numbers(first, (case.group, 1), 0)
        stay = masks.keep(case.dropout_rate, seed, head, jnp.zeros_like(head), key)
        p = jnp.where(stay, p, 0)
      more = tiles.product(p.astype(v.dtype), v, (1, 0))
      sum_ref[rows] = sum_ref[rows] * shrink + more

  @pl.when(n == pl.num_programs(2) - 1)
  def _():
    top, total = top_ref[...], total_ref[...]
    # NaN is not hidden: the total has it also where a maximum ignores it.
    some = jnp.logical_not(top <= tiles.HIDDEN) | (total != total)
    share = jnp.where(some, 1 / (total * (1 - case.dropout_rate)), 0)
    o_ref[0] = (sum_ref[...] * share).astype(o_ref.dtype)
    for lse_ref in lse_refs:
      lse = jnp.where(some, top / tiles.LOG2_E + jnp.log(total), -jnp.inf)
      # A column into its place in the row of all heads.
      shape = form.rows, case.q_heads
      head = tiles.numbers(stripe * form.rows, shape, 0)
      here = head == tiles.numbers(0, shape, 1)
      row = jnp.where(here, lse, 0).sum(axis=0, keepdims=True)
      lane = tiles.numbers(-stripe * form.rows, row.shape, 1)
      mine = (lane >= 0) & (lane < form.rows)
      lse_ref[0] = jnp.where(mine, row, lse_ref[0])


def _scores(case: Case, given: _Refs, q: Array, k: Array, rows: slice) -> Array:
  """Times log2(e), of a group of heads [r, m]."""
  s = tiles.product(q, k, (1, 1))
  if case.soft_cap is None:
    s = s * (case.scale * tiles.LOG2_E)
  else:
    s = jnp.tanh(s * (case.scale / case.soft_cap)) * (case.soft_cap * tiles.LOG2_E)
  if given.bias is None:
    return s
  bias = given.bias[0].astype(jnp.float32)
  return s + (bias if bias.shape[0] == 1 else bias[rows]) * tiles.LOG2_E


def _block(form: Form, first: Ref, stop: Ref, b: Any, n: Any) -> tuple[Any, Any]:
  """(n-th block of the keys of example b, whether there is one); past the end the last
  one again, for which nothing is loaded."""
  if first is None:
    return n, n >= 0
  found = first[b] + n
  return jnp.maximum(jnp.minimum(found, stop[b] - 1), 0), found < stop[b]


def _names(case: Case) -> list[str]:
  """Of _Refs, in the order in which the kernel gets them."""
  names = ['seed'] * bool(case.dropout_rate)
  names += ['first', 'stop', 'q_segment'] * case.segments
  names += ['q', 'k', 'v'] + ['bias'] * (case.bias is not None)
  return names + ['kv_segment'] * case.segments


def _reads(case: Case, form: Form, operands: Operands) -> tiles.Call:
  """The arrays, in the order of `_names`."""
  names = _names(case)
  count = names.index('q')

  def spec(shape, index):
    def of(b, stripe, n, *scalars):
      known = dict(zip(names[:count], scalars))
      j, _ = _block(form, known.get('first'), known.get('stop'), b, n)
      return index(b, stripe, j)

    return pl.BlockSpec(shape, of)

  kv = spec(
    (1, form.members, form.keys, case.head_dim), lambda b, stripe, j: (b, stripe, j, 0)
  )
  scalars: list[Array] = []
  arrays = [operands.q_BLHK[:, 0], *map(tiles.head_major, operands[1:3])]
  specs = [_heads_spec(case, form), kv, kv]
  if case.dropout_rate:
    assert operands.seed is not None
    scalars.append(lax.bitcast_convert_type(operands.seed, jnp.int32))
  if operands.bias is not None:
    arrays.append(operands.bias[:, :, 0])
    single = [n == 1 for n in arrays[-1].shape]
    full = (1, form.rows, form.keys)
    specs.append(
      spec(
        tuple(1 if one else n for one, n in zip(single, full)),
        lambda *at: tuple(0 if one else i for one, i in zip(single, at)),
      )
    )
  if case.segments:
    of_q, of_kv = operands.q_segment_BL, operands.kv_segment_BM
    assert of_q is not None and of_kv is not None
    scalars += [*_range(form, of_q, of_kv), of_q[:, 0]]
    arrays.append(of_kv)
    n = tiles.stripes(case.batch)
    specs.append(
      spec((n, form.keys), lambda b, stripe, j: (lax.div(b, jnp.int32(n)), j))
    )
  return tiles.Call(scalars, arrays, specs)


def _range(form: Form, q_segment: Array, kv_segment: Array) -> tuple[Array, Array]:
  """(first, stop) of the key blocks of each example [B]; of no key: stop is 0."""
  key = jnp.arange(form.seen, dtype=jnp.int32)[None]
  same = kv_segment[:, : form.seen] == q_segment
  first = jnp.where(same, key, form.seen).min(axis=1)
  stop = jnp.where(same, key + form.keys, 0).max(axis=1)
  return first // form.keys, stop // form.keys


def _heads_spec(case: Case, form: Form) -> pl.BlockSpec:
  """Of [B, H, K], by stripes of heads."""
  return pl.BlockSpec(
    (1, form.rows, case.head_dim), lambda b, stripe, n, *_: (b, stripe, 0)
  )


def forward(
  case: Case, operands: Operands, *,
  interpret: Any = False, config: Mapping[str, int] = {}, log_sums: bool = True,
) -> tuple[Array, Array | None]:  # fmt: skip
  """(o [B, 1, H, K] in q's dtype, log sum exp of the scores [B, H, 1] float32 or None).

  Args:
    case: one that `takes` takes.
    interpret, config: as kernels/attention/mosaic_tpu.py has them; of config block_kv
      is used alone.
    log_sums: whether they are computed.

  Raises:
    ValueError: a size in config that is not allowed.
  """
  # At least the first block, also where no key is visible.
  seen = max(masks.key_range(case, 0, 1)[1], 1)
  default = dict.fromkeys(tiles.BLOCK_SIZES, tiles.LANES)
  default |= dict(block_kv=_most_keys(case))
  blocks, _ = tiles.sizes(case._replace(kv_len=seen), config, default)
  rows = _heads(case)
  form = Form(rows, rows // case.group, blocks.keys, seen, log_sums)
  shape = jax.ShapeDtypeStruct
  outputs: list[tuple[Any, pl.BlockSpec]] = [
    (
      shape((case.batch, case.q_heads, case.head_dim), operands.q_BLHK.dtype),
      _heads_spec(case, form),
    )
  ]
  if log_sums:
    outputs.append(
      (
        shape((case.batch, 1, case.q_heads), jnp.float32),
        pl.BlockSpec((1, 1, case.q_heads), lambda b, *_: (b, 0, 0)),
      )
    )
  pairs = case.batch * case.q_heads * seen
  kv_bytes = case.batch * case.kv_heads * seen * case.head_dim * 2
  o, *lse = tiles.run(
    functools.partial(_kernel, case, form),
    'dlx_attention_decode',
    (case.batch, case.q_heads // rows, blocks.kv_blocks),
    _reads(case, form, operands),
    outputs,
    [(rows, 1), (rows, 1), (rows, case.head_dim)],
    # Stripes too where their log sums are one block.
    2 if log_sums else 1,
    pl.CostEstimate(
      flops=4 * pairs * case.head_dim,
      transcendentals=pairs,
      bytes_accessed=kv_bytes * jnp.dtype(case.dtype).itemsize,
    ),
    interpret,
  )
  return o[:, None], lse[0].swapaxes(1, 2) if lse else None


def configs(case: Case) -> list[dict[str, int]]:
  """Block sizes worth trying on a device (kernels/tune.py)."""
  most = _most_keys(case)
  sizes = [most // 4, most // 2, 2 * most]
  return [{}] + [{'block_kv': n} for n in sizes if n >= tiles.LANES]
