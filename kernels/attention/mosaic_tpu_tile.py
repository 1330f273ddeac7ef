"""What the TPU kernels of attention share: how a tile is read, and its scores.

A tile is a block of queries by a block of keys. Scores are held transposed, keys by
queries [m, l], in base 2: see kernels/attention/mosaic_tpu.py.
"""

import math
from typing import Any, Callable, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from kernels.attention import blocks as blocks_lib
from kernels.attention import masks
from kernels.attention.blocks import Blocks
from kernels.attention.case import Case, Operands

Array = jax.Array
Ref = Any

LANES, SUBLANES = 128, 8
LOG2_E = math.log2(math.e)
# Scores at most this are hidden ones: MASKED, or a bias of that size.
HIDDEN = masks.MASKED / 2
BLOCK_SIZES = ('block_q', 'block_kv', 'part_q', 'part_kv')


class Tile(NamedTuple):
  """Which part of the scores a program is at, in traced int32.

  Attributes:
    b, head: example and query head.
    i, j: blocks of queries and keys.
  """

  b: Any
  head: Any
  i: Any
  j: Any


class Part(NamedTuple):
  """Of a tile, what is computed at once; [m, l] of shapes are its sizes.

  Attributes:
    key, keys: first of its keys in the block, and how many.
    query, queries: likewise.
  """

  key: int
  keys: int
  query: int
  queries: int

  @property
  def rows(self) -> Any:
    """Its keys in a block."""
    return pl.ds(self.key, self.keys)

  @property
  def columns(self) -> Any:
    """Its queries in a block."""
    return pl.ds(self.query, self.queries)


class Inputs(NamedTuple):
  """References that every kernel reads; None: not part of the case."""

  q: Ref
  k: Ref
  v: Ref
  seed: Ref = None
  q_bounds: Ref = None
  kv_bounds: Ref = None
  bias: Ref = None
  q_segment: Ref = None
  kv_segment: Ref = None


class Call(NamedTuple):
  """Arrays that a kernel gets, and how it reads them.

  Attributes:
    scalars: read before the program starts.
    arrays: read by blocks.
    specs: of the arrays.
  """

  scalars: list[Array]
  arrays: list[Array]
  specs: list[pl.BlockSpec]


def sizes(
  case: Case, config: Mapping[str, int], default: Mapping[str, int]
) -> tuple[Blocks, list[Part]]:
  """Blocks, and the parts of a tile, from `config`, and `default` for what it lacks.

  Blocks are no longer than what is there, and parts divide them.

  Raises:
    ValueError: a name or size that is not allowed.
  """
  found = dict(default)
  for name, size in config.items():
    if name not in BLOCK_SIZES or size <= 0 or size % LANES:
      raise ValueError(
        f'config={dict(config)} is not allowed: must be multiples of {LANES} for '
        f'{", ".join(BLOCK_SIZES)}.'
      )
    found[name] = size
  whole = lambda n: -(-n // LANES) * LANES
  block = min(found['block_q'], whole(case.q_len))
  kv_block = min(found['block_kv'], whole(case.kv_len))
  dividing = lambda part, block: part if block % part == 0 else LANES
  queries = dividing(min(found['part_q'], block), block)
  keys = dividing(min(found['part_kv'], kv_block), kv_block)
  parts = [
    Part(key, keys, query, queries)
    for key in range(0, kv_block, keys)
    for query in range(0, block, queries)
  ]
  return blocks_lib.make(case, block, kv_block), parts


def head_major(x_BSHK: Array) -> Array:
  """[B, S, H, K] to [B, H, S, K] and back."""
  return x_BSHK.transpose(0, 2, 1, 3)


def rows_spec(blocks: Blocks, head_dim: int, place: Callable) -> pl.BlockSpec:
  """Of [B, H, L, K] by query blocks; place(*program ids) -> Tile."""

  def index(*ids):
    tile = place(*ids)
    return tile.b, tile.head, tile.i, 0

  return pl.BlockSpec((1, 1, blocks.queries, head_dim), index)


def stripes(count: int) -> int:
  """Rows that a block of [count, S] has: Mosaic wants 8, or all."""
  return min(count, SUBLANES)


def sums_spec(case: Case, blocks: Blocks, place: Callable) -> pl.BlockSpec:
  """Of [B, H, L] by query blocks and up to eight heads; see `head_row`."""

  def index(*ids):
    tile = place(*ids)
    return tile.b, lax.div(tile.head, jnp.int32(stripes(case.q_heads))), tile.i

  return pl.BlockSpec((1, stripes(case.q_heads), blocks.queries), index)


def head_row(case: Case, tile: Tile) -> Any:
  """Index of the row [1, l] of a block of `sums_spec` that is the tile's."""
  return 0, pl.ds(lax.rem(tile.head, jnp.int32(stripes(case.q_heads))), 1), slice(None)


def reads(
  case: Case, blocks: Blocks, operands: Operands, place: Callable[..., Tile]
) -> Call:
  """What every kernel reads, in the order of `named`."""

  def spec(shape, index: Callable[[Tile], tuple]):
    return pl.BlockSpec(shape, lambda *ids: index(place(*ids)))

  def of_keys(t: Tile):
    return t.b, lax.div(t.head, jnp.int32(case.group)), t.j, 0

  scalars, arrays, specs = [], [], []
  if case.dropout_rate:
    assert operands.seed is not None
    scalars.append(lax.bitcast_convert_type(operands.seed, jnp.int32))
  arrays += [head_major(x) for x in operands[:3]]
  kv_spec = spec((1, 1, blocks.keys, case.head_dim), of_keys)
  specs += [rows_spec(blocks, case.head_dim, place), kv_spec, kv_spec]
  if operands.bias is not None:
    full = (1, 1, blocks.queries, blocks.keys)
    single = [n == 1 for n in operands.bias.shape]
    arrays.append(operands.bias)
    specs.append(
      spec(
        tuple(1 if one else n for one, n in zip(single, full)),
        lambda t: tuple(
          0 if one else at for one, at in zip(single, (t.b, t.head, t.i, t.j))
        ),
      )
    )
  if case.segments:
    of_q, of_kv = operands.q_segment_BL, operands.kv_segment_BM
    assert of_q is not None and of_kv is not None
    scalars += [
      blocks_lib.segment_bounds(of_q, blocks.queries),
      blocks_lib.segment_bounds(of_kv, blocks.keys),
    ]
    arrays += [of_q, of_kv]
    n = stripes(case.batch)
    specs += [
      spec((n, blocks.queries), lambda t: (lax.div(t.b, jnp.int32(n)), t.i)),
      spec((n, blocks.keys), lambda t: (lax.div(t.b, jnp.int32(n)), t.j)),
    ]
  return Call(scalars, arrays, specs)


def named(case: Case, refs: tuple[Ref, ...]) -> tuple[Inputs, tuple[Ref, ...]]:
  """References by name, and those that follow them."""
  scalars = ['seed'] * bool(case.dropout_rate)
  scalars += ['q_bounds', 'kv_bounds'] * case.segments
  names = [*scalars, 'q', 'k', 'v'] + ['bias'] * (case.bias is not None)
  names += ['q_segment', 'kv_segment'] * case.segments
  return Inputs(**dict(zip(names, refs))), refs[len(names) :]


def within(case: Case, blocks: Blocks, inputs: Inputs, tile: Tile, there: Any) -> Any:
  """Whether the tile has anything to compute, of one that is `there` by its place."""
  if not case.segments:
    return there
  bounds = inputs.q_bounds, inputs.kv_bounds
  meet = blocks_lib.segments_meet(*bounds, blocks, case.batch, tile.b, tile.i, tile.j)
  return jnp.logical_and(there, meet)


def numbers(tile_start: Any, shape: tuple[int, ...], axis: int) -> Array:
  """int32 indices of queries (axis 1) or keys (axis 0) of a part [m, l]."""
  return tile_start + lax.broadcasted_iota(jnp.int32, shape, axis)


def clean(x: Array, start: Any, stop: int, axis: int = 0) -> Array:
  """x with zeros from index `stop` on, where its block hangs over the end.

  What lies there is whatever the memory holds: 0 times it may be NaN.
  """
  return jnp.where(numbers(start, x.shape, axis) < stop, x, jnp.zeros_like(x))


def product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
  """Sum over axes[0] of a and axes[1] of b, in float32."""
  exact = a.dtype == jnp.float32
  return lax.dot_general(
    a,
    b,
    (((axes[0],), (axes[1],)), ((), ())),
    precision=lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )


def turned(x: Array) -> Array:
  """Transposed, 32 bits wide, also of one row or column."""
  rows, columns = x.shape
  if rows == 1:
    return jnp.broadcast_to(x, (SUBLANES, columns)).T[:, :1]
  if columns == 1:
    return jnp.broadcast_to(x, (rows, LANES)).T[:1]
  return x.T


def scores(
  case: Case, blocks: Blocks, inputs: Inputs, tile: Tile, part: Part, k: Array, q: Array
) -> tuple[Array, Array | None]:
  """(scores times log2(e), MASKED where hidden; tanh of the soft cap) of a part [m, l].

  Args:
    k, q: [m, K] and [l, K].
  """
  s = product(k, q, (1, 1))
  capped = None
  if case.soft_cap is None:
    s = s * (case.scale * LOG2_E)
  else:
    capped = jnp.tanh(s * (case.scale / case.soft_cap))
    s = capped * (case.soft_cap * LOG2_E)
  if inputs.bias is not None:
    _, _, rows, columns = inputs.bias.shape
    bias = inputs.bias[
      0,
      0,
      part.columns if rows > 1 else slice(None),
      part.rows if columns > 1 else slice(None),
    ]
    s = s + turned(bias.astype(jnp.float32)) * LOG2_E
  q_segment = kv_segment = None
  if case.segments:
    b = pl.ds(lax.rem(tile.b, jnp.int32(stripes(case.batch))), 1)
    # Rows whole, then the part: Mosaic loads no row by number at an offset in lanes.
    q_segment = inputs.q_segment[b, :][:, part.query : part.query + part.queries]
    kv_segment = turned(inputs.kv_segment[b, :][:, part.key : part.key + part.keys])
  query, key = places(blocks, tile, part)
  seen = masks.visible(case, query, key, q_segment, kv_segment)
  # The second: a bias of NaN there would make all that is summed over queries NaN.
  for index, stop, size in (
    (key, case.kv_len, blocks.keys),
    (query, case.q_len, blocks.queries if inputs.bias is not None else 1),
  ):
    if stop % size:
      seen = index < stop if seen is None else seen & (index < stop)
  return s if seen is None else jnp.where(seen, s, masks.MASKED), capped


def places(blocks: Blocks, tile: Tile, part: Part) -> tuple[Array, Array]:
  """int32 indices of the queries and of the keys of a part, each [m, l]."""
  shape = part.keys, part.queries
  query = numbers(tile.i * blocks.queries + part.query, shape, 1)
  return query, numbers(tile.j * blocks.keys + part.key, shape, 0)


def kept(case: Case, blocks: Blocks, inputs: Inputs, tile: Tile, part: Part) -> Array:
  """bool [m, l]: weights that are not dropped."""
  seed = tuple(inputs.seed[n].astype(jnp.uint32) for n in range(2))
  query = numbers(tile.i * blocks.queries + part.query, (1, part.queries), 1)
  _, key = places(blocks, tile, part)
  head = tile.b * case.q_heads + tile.head
  return masks.keep(case.dropout_rate, seed, head, query, key)


def run(
  kernel: Callable[..., None], name: str, grid: tuple[int, ...], call: Call,
  outputs: list[tuple[Any, pl.BlockSpec]], scratch: list[tuple[int, int]],
  serial: int, cost: pl.CostEstimate, interpret: Any,
) -> Any:  # fmt: skip
  """The kernel's outputs.

  Args:
    grid: the last `serial` axes run in their order.
    outputs: ShapeDtypeStruct and blocks of each.
    scratch: shapes of float32.
    interpret: True, False, or pltpu.InterpretParams.
  """
  parallel = ('parallel',) * (len(grid) - serial)
  return pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=len(call.scalars),
      grid=grid,
      in_specs=call.specs,
      out_specs=[spec for _, spec in outputs],
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=[shape for shape, _ in outputs],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=parallel + ('arbitrary',) * serial
    ),
    cost_estimate=cost,
    interpret=interpret,
    name=name,
  )(*call.scalars, *call.arrays)


def cost(case: Case, blocks: Blocks, products: int) -> pl.CostEstimate:
  """Of the tiles that are computed, segments aside; `products` of K each."""
  tiles = 0
  for i in range(blocks.q_blocks):
    first, stop = blocks_lib.of_keys(case, blocks, i)
    tiles += max(stop - first, 0)
  pairs = case.batch * case.q_heads * tiles * blocks.queries * blocks.keys
  width = jnp.dtype(case.dtype).itemsize * case.head_dim
  of_q = case.batch * case.q_heads * case.q_len * width
  of_kv = case.batch * case.q_heads * tiles * blocks.keys * width
  return pl.CostEstimate(
    flops=2 * products * pairs * case.head_dim,
    transcendentals=pairs,
    bytes_accessed=2 * (of_q + of_kv),
  )
