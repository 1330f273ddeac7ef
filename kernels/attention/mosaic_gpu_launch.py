"""What the attention kernels for Hopper GPUs are launched with: sizes, shared memory.

See kernels/attention/mosaic_gpu.py; the letters are those of kernels/attention/case.py.
"""

from typing import Any, Callable, NamedTuple, Sequence

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.attention.case import Case

Array = jax.Array

ROWS = 64  # Of a warpgroup's product.
SHARED_LIMIT = 227 * 1024  # Bytes of a program's shared memory.


class Blocks(NamedTuple):
  """Sizes of a kernel.

  Attributes:
    compute: warpgroups that multiply, each ROWS queries (of dk and dv: keys).
    across: keys (of dk and dv: queries) of a block that is walked over.
    stages: such blocks on the chip at a time.
  """

  compute: int
  across: int
  stages: int


class Bias(NamedTuple):
  """Blocks of a dense bias, [stages, compute ROWS, across], and their barriers."""

  blocks: Any
  full: Any
  free: Any


def rounded(n: int, block: int) -> int:
  return -(-n // block) * block


def dense_bias(case: Case) -> bool:
  """Whether the bias has a number for each query and key."""
  return case.bias is not None and case.bias[2] > 1


def shared_bytes(case: Case, plan: Blocks, own: int, beside: int) -> int:
  """Of shared memory; 4 KiB are for barriers and the reductions of the compiler."""
  row, rows = 2 * case.head_dim, plan.compute * ROWS
  held = rows * (own * row + 4) + plan.stages * plan.across * (2 * row + 4 * beside)
  if dense_bias(case):  # float32 at most.
    held += 4 * plan.stages * rows * plan.across
  return held + 4096


def staged(case: Case, plan: Blocks, own: int, beside: int = 0) -> Blocks:
  """`plan`; where its stages are 0, with as many as fit, 1 to 4.

  Args:
    case: what is asked.
    plan: the sizes asked for.
    own: how many matrices of a program's own rows there are.
    beside: how many numbers come with a row that is walked over.
  """
  if plan.stages:
    return plan
  tried = (plan._replace(stages=n) for n in (4, 3, 2))
  held = lambda found: shared_bytes(case, found, own, beside)
  fits = (found for found in tried if held(found) <= SHARED_LIMIT)
  return next(fits, plan._replace(stages=1))


def transforms(head_dim: int) -> tuple[Any, ...]:
  """How wgmma wants 16-bit matrices of so many columns in shared memory."""
  width = min(head_dim, 64)
  return compat.TilingTransform((8, width)), compat.SwizzleTransform(2 * width)


def tile_copies(length: int, rows: int, head_dim: int) -> int:
  """TMA loads of a matrix [rows, K]: one, where the length is whole tiles."""
  return 1 if length % 8 == 0 else rows // 8 * max(head_dim // 64, 1)


def memory(
  case: Case,
  plan: Blocks,
  own: Sequence[str],
  walked: Sequence[str],
  bias: Array | None,
  beside: Sequence[str] = (),
) -> dict[str, Any]:
  """Shared memory and barriers of a program, by the names of the body's arguments.

  For each x of `own`, x_s [compute, ROWS, K], and the barriers own_full [compute]; for
  each of `walked`, x_s [stages, across, K] and the barriers x_full, x_free [stages]; of
  `beside`, x_s [stages, across], loaded with one of `walked` each; and bias, a Bias.

  Args:
    case: what is asked.
    plan: the sizes.
    own: matrices of the program's own rows: queries, or keys if 'k' is one of them.
    walked: matrices of the rows that it walks over.
    bias: dense, or None.
    beside: float32 rows of numbers.
  """
  n, stages = plan.compute, plan.stages
  lengths = (case.q_len, case.kv_len) if 'q' in own else (case.kv_len, case.q_len)
  tiled = transforms(case.head_dim)
  matrices = lambda *shape: plgpu.SMEM(
    (*shape, case.head_dim), jnp.dtype(case.dtype), transforms=tiled
  )
  barriers = lambda arrivals, count: plgpu.Barrier(
    num_arrivals=arrivals, num_barriers=count
  )
  held: dict[str, Any] = {f'{name}_s': matrices(n, ROWS) for name in own}
  copies = len(own) * tile_copies(lengths[0], ROWS, case.head_dim)
  held['own_full'] = barriers(copies, n)
  copies = tile_copies(lengths[1], plan.across, case.head_dim) + bool(beside)
  for name in walked:
    held[f'{name}_s'] = matrices(stages, plan.across)
    held[f'{name}_full'] = barriers(copies, stages)
    held[f'{name}_free'] = barriers(n, stages)
  for name in beside:
    held[f'{name}_s'] = plgpu.SMEM((stages, plan.across), jnp.float32)
  if bias is not None:
    blocks = plgpu.SMEM((stages, n * ROWS, plan.across), bias.dtype)
    held['bias'] = Bias(blocks, barriers(1, stages), barriers(n, stages))
  return held


def launch(
  body: Callable[..., None],
  case: Case,
  plan: Blocks,
  held: dict[str, Any],
  args: Sequence[Array],
  interpret: Any,
  *,
  outs: int = 1,
  more_outs: Sequence[jax.ShapeDtypeStruct] = (),
) -> list[Array]:
  """The matrices that `body` computes of each head and block of rows, and `more_outs`.

  They are of queries, [B, L, H, K], or of keys, [B, M, G, K], if these are walked over
  by queries. A program's place is (head, tile, batch), its threads are the warpgroups.

  Args:
    body: of refs of args and of results, and of `held` by name.
    case, plan: what is asked, and the sizes.
    held: of `memory`.
    args: arrays in global memory.
    interpret: see compat.
    outs: how many matrices.
    more_outs: of other results.
  """
  rows = plan.compute * ROWS
  if 'k_full' in held:  # Keys are walked over.
    length, heads = case.q_len, case.q_heads
  else:
    length, heads = case.kv_len, case.kv_heads
  # The simulator cannot cut a store at the end of an array.
  written = rounded(length, rows) if interpret else length
  shape = (case.batch, written, heads, case.head_dim)
  results = compat.kernel(
    body,
    interpret=interpret,
    out_type=[jax.ShapeDtypeStruct(shape, case.dtype)] * outs + [*more_outs],
    scratch_types=held,
    grid=(heads, -(-length // rows), case.batch),
    grid_names=('head', 'tile', 'batch'),
    num_threads=plan.compute + 1,
    thread_name='warpgroup',
  )(*args)
  return [x[:, :length] for x in results[:outs]] + [*results[outs:]]
