"""What kernels of attention on Hopper GPUs share: copies, walks over blocks, scores.

See kernels/attention/mosaic_gpu.py; the letters are those of kernels/attention/case.py.
"""

import math
from typing import Any, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.attention import masks
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_gpu_launch import ROWS, Bias, dense_bias

Array = jax.Array
Config = Mapping[str, int]

LOG2E = math.log2(math.e)
MATRIX = plgpu.Layout.WGMMA
BY_ROW, BY_COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)


def padded(x: Array, n: int, value: float = 0) -> Array:
  """With a last axis of n; for the few numbers a row, never for q, k, v."""
  more = n - x.shape[-1]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)], constant_values=value)


def extras(
  case: Case, operands: Operands, q_rows: int, kv_rows: int
) -> dict[str, Array]:
  """What scores need beside q and k; its rows as long as whole blocks."""
  found = {'zero': jnp.zeros((1,), jnp.int32)}
  if operands.q_segment_BL is not None and operands.kv_segment_BM is not None:
    found['q_segment'] = padded(operands.q_segment_BL, q_rows)
    found['kv_segment'] = padded(operands.kv_segment_BM, kv_rows)
  if operands.bias is not None:
    bias = operands.bias
    if not dense_bias(case):
      found['bias_row'] = padded(bias[:, :, 0].astype(jnp.float32), kv_rows)
    else:
      small = bias.dtype in (jnp.bfloat16, jnp.float16)
      found['bias'] = bias if small else bias.astype(jnp.float32)
  if case.dropout_rate:
    assert operands.seed is not None
    found['seed'] = operands.seed
  return found


def load(
  source: Any, batch, head, row, target: Any, slot, barrier: Any, zero: Any, interpret
):
  """Starts copies of rows [row, row + n) of a head [B, L, H, K] to target[slot]."""
  rows = target.shape[1]
  if source.shape[1] % 8 == 0:
    block = source.at[batch, pl.ds(row, rows), head]
    plgpu.copy_gmem_to_smem(block, target.at[slot], barrier)
  else:
    start = lambda there, here: plgpu.copy_gmem_to_smem(there, here, barrier)
    _by_tiles(source, batch, head, row, target, slot, start, zero, interpret)


def store(source: Any, slot, target: Any, batch, head, row, zero: Any, interpret):
  """Starts copies of source[slot], [n, K], to rows [row, row + n) of [B, L, H, K]."""
  rows = source.shape[1]
  if target.shape[1] % 8 == 0:
    block = target.at[batch, pl.ds(row, rows), head]
    plgpu.copy_smem_to_gmem(source.at[slot], block)
  else:
    start = lambda there, here: plgpu.copy_smem_to_gmem(here, there)
    _by_tiles(target, batch, head, row, source, slot, start, zero, interpret)


def _by_tiles(array, batch, head, row, held, slot, start, zero, interpret):
  """start(rows of the array, tile in shared memory) for all tiles of held[slot].

  Mosaic GPU describes an array to the TMA in tiles of 8 rows, which it refuses for
  lengths that are no multiple of 8; of these each tile is a copy. A loop whose end the
  compiler knew it would unroll, with spills.
  """
  _, rows, columns = held.shape
  width = min(columns, 64)

  def step(i, _):
    for c in range(columns // width):
      there = array.at[batch, pl.ds(row + i * 8, 8), head, pl.ds(c * width, width)]
      start(there, compat.tile(held, slot, i, c, interpret))

  lax.fori_loop(0, rows // 8 + zero, step, None)


def at_bias(shape: tuple[int, ...], batch: Any, head: Any) -> tuple[Any, Any]:
  """The indices of a batch and head in an array that may have one for all."""
  return batch if shape[0] > 1 else 0, head if shape[1] > 1 else 0


class Span(NamedTuple):
  """Blocks of keys of a program: [first, stop), of them [seen_first, seen_stop) wholly
  visible to some rows."""

  first: Any
  seen_first: Any
  seen_stop: Any
  stop: Any


def span(case: Case, keys: int, rows: tuple[Any, Any], own: tuple[Any, Any]) -> Span:
  """Of blocks of `keys`: what rows [first, stop) see some of, and `own` see all of."""
  low, high = masks.key_range(case, *rows)
  first, stop = lax.div(low, keys), lax.div(high + keys - 1, keys)
  stop = jnp.maximum(first, stop)
  if case.segments:
    return Span(first, first, first, stop)
  low, high = jnp.int32(0), jnp.int32(case.kv_len)
  if case.causal:
    high = jnp.minimum(high, own[0] + 1)
  if case.window is not None:
    left, right = case.window
    low = jnp.maximum(low, own[1] - 1 - left)
    if not case.causal:
      high = jnp.minimum(high, own[0] + right + 1)
  seen_first = jnp.clip(lax.div(low + keys - 1, keys), first, stop)
  return Span(first, seen_first, jnp.clip(lax.div(high, keys), seen_first, stop), stop)


def walk(case: Case, found: Span, keys: int, step: Any, carry: Any) -> Any:
  """Folds step(j, carry, masked) over the blocks of a span."""
  plain = lambda j, carry: step(j, carry, False)
  partly = lambda j, carry: step(j, carry, True)
  if case.window is not None:  # Elsewhere no block before the wholly visible ones.
    carry = lax.fori_loop(found.first, found.seen_first, partly, carry)
  if not case.segments:
    carry = lax.fori_loop(found.seen_first, found.seen_stop, plain, carry)
  if case.segments or case.causal or case.window is not None or case.kv_len % keys:
    carry = lax.fori_loop(found.seen_stop, found.stop, partly, carry)
  return carry


class Scores(NamedTuple):
  """What makes scores of products; see `score`.

  Attributes:
    case: what is asked.
    refs: of `extras`.
    batch, head: of the program.
    interpret: see compat.
    bias: dense, on the chip.
    transposed: keys are rows, queries columns.
  """

  case: Case
  refs: Mapping[str, Any]
  batch: Any
  head: Any
  interpret: Any
  bias: Bias | None
  transposed: bool = False

  def of(self, x_n: Any, shape: tuple[int, ...], queries: bool) -> Array:
    """A number for each query (or key) from global memory, spread over a block."""
    axis = 0 if queries != self.transposed else 1
    x_n = compat.load(x_n, BY_COLUMN if axis else BY_ROW, self.interpret)
    return lax.broadcast_in_dim(x_n, shape, (axis,))

  def indices(self, shape, query, key) -> tuple[Array, Array]:
    """int32 indices of queries and keys of the block that starts at `query`, `key`."""
    iota = lambda axis: compat.iota(shape, axis, MATRIX, self.interpret)
    axis = int(self.transposed)
    return query + iota(axis), key + iota(1 - axis)

  def score(self, product: Array, query, key, slot, group) -> tuple[Array, Any]:
    """(scores times log2(e), slope of the scores by the scaled product; None: 1).

    Args:
      product: q k^T of a block.
      query, key: where the block starts.
      slot: of a dense bias: waited for, and given back.
      group: the warpgroup.
    """
    case, shape, slope = self.case, product.shape, None
    if case.soft_cap is None:
      s = product * (case.scale * LOG2E)
    else:
      # tanh by exp2, as the hardware's own tanh has 11 bits.
      e = jnp.exp2(product * (2 * LOG2E * case.scale / case.soft_cap))
      tanh = 1 - 2 / (e + 1)
      s, slope = tanh * (case.soft_cap * LOG2E), 1 - tanh * tanh
    if 'bias_row' in self.refs:
      ref = self.refs['bias_row']
      at = at_bias(ref.shape, self.batch, self.head)
      n = shape[0 if self.transposed else 1]
      s = s + self.of(ref.at[*at, pl.ds(key, n)], shape, queries=False) * LOG2E
    elif self.bias is not None:
      plgpu.barrier_wait(self.bias.full.at[slot])
      block = self.bias.blocks.at[slot, pl.ds(group * ROWS, ROWS)]
      loaded = compat.load(block, MATRIX, self.interpret).astype(jnp.float32)
      s = s + loaded * LOG2E
      plgpu.barrier_arrive(self.bias.free.at[slot])
    return s, slope

  def visible(self, shape, query, key, keys_end: bool = True) -> Array:
    """bool of a block; `keys_end`: keys past the end are not."""
    case = self.case
    queries, keys = self.indices(shape, query, key)
    q_segment = kv_segment = None
    if case.segments:
      n, m = shape[::-1] if self.transposed else shape
      ref = self.refs['q_segment'].at[self.batch, pl.ds(query, n)]
      q_segment = self.of(ref, shape, queries=True)
      ref = self.refs['kv_segment'].at[self.batch, pl.ds(key, m)]
      kv_segment = self.of(ref, shape, queries=False)
    seen = masks.visible(case, queries, keys, q_segment, kv_segment)
    if seen is None or keys_end:
      inside = keys < case.kv_len
      seen = inside if seen is None else seen & inside
    return seen

  def kept(self, shape, query, key) -> Array:
    """bool of a block: weights that are not dropped."""
    seed = self.refs['seed']
    head = self.batch * self.case.q_heads + self.head
    queries, keys = self.indices(shape, query, key)
    rate = self.case.dropout_rate
    return masks.keep(rate, (seed[0], seed[1]), head, queries, keys)


def load_bias(array: Any, batch, head, row, column, bias: Bias, slot: Any):
  """Starts a copy of the block of a dense bias that starts at `row`, `column`."""
  _, rows, columns = bias.blocks.shape
  at = at_bias(array.shape, batch, head)
  block = array.at[*at, pl.ds(row, rows), pl.ds(column, columns)]
  plgpu.copy_gmem_to_smem(block, bias.blocks.at[slot], bias.full.at[slot])


def produce(fetch: Any, frees: Any, first: Any, stop: Any, stages: int):
  """fetch(j, slot, again) of the blocks first <= j < stop, into `stages` buffers.

  Args:
    fetch: starts copies; before each it calls again(barrier).
    frees: the barriers of buffers that are read no more; all are waited for in the end,
      so that nobody ends while one is in use.
    first, stop: of the blocks.
    stages: of buffers.
  """

  def step(j, _):
    slot = lax.rem(j - first, stages)
    used = j - first >= stages
    wait = lambda barrier: plgpu.barrier_wait(barrier.at[slot])
    fetch(j, slot, lambda barrier: pl.when(used)(lambda: wait(barrier)))

  lax.fori_loop(first, stop, step, None)

  def drain(j, _):
    for barrier in frees:
      plgpu.barrier_wait(barrier.at[lax.rem(j - first, stages)])

  lax.fori_loop(jnp.maximum(first, stop - stages), stop, drain, None)


def anew(index: Any, j: Any, zero: Any) -> Any:
  """`index`, in a form that the compiler does not see to be the same for every j.

  It else computes the descriptors of all parts of a matrix before the loop and keeps
  them in registers: dq for heads of 256 spilled 664 bytes, and none this way (ptxas
  13.0, jax 0.10.2).

  Args:
    index: of a matrix that stays while the loop runs.
    j: counter of the loop.
    zero: int32 0 out of global memory.
  """
  return index + (j & zero)
