"""Attention on Hopper GPUs in blocks that stay on the chip: forward, in Mosaic GPU.

After arXiv:2205.14135, 2307.08691 and 2407.08608. A program computes `compute` times 64
queries of a head: one warpgroup loads blocks of keys and values with the TMA into
`stages` buffers, the others multiply (wgmma), keep the running maximum and sum of the
softmax in registers, and free the buffers. Blocks that no query of the program sees are
not loaded, and only blocks that some query sees partly are masked. Past the end of an
array the TMA reads zeros and writes nothing.

Under `interpret` the loads, the barriers and what they order are simulated; products,
layouts, and stores past the end of an array are not (kernels/mosaic_gpu_compat.py).
Nothing here was run on a GPU: it is compiled for one, and registers and instructions of
the program are read (kernels/static/h200.py).

B, L, M, H, G, K as in kernels/attention/case.py.
"""

import math
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.attention import masks
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_gpu_backward import NAMES as BACKWARD_NAMES
from kernels.attention.mosaic_gpu_backward import backward
from kernels.attention.mosaic_gpu_blocks import (
  BY_ROW,
  MATRIX,
  Config,
  Scores,
  anew,
  extras,
  load,
  load_bias,
  produce,
  span,
  store,
  walk,
)  # fmt: skip
from kernels.attention.mosaic_gpu_launch import (
  ROWS,
  Blocks,
  dense_bias,
  launch,
  memory,
  rounded,
  staged,
)  # fmt: skip
from kernels.dispatch import Refusal

__all__ = ['backward', 'configs', 'forward', 'refusal']

Array = jax.Array

HEAD_DIMS = (16, 32, 64, 128, 256)
DTYPES = ('bfloat16', 'float16')
LOWEST = -5e29  # Where maxima start: far below scores, far above masks.MASKED.


def refusal(case: Case) -> Refusal | None:
  """Why the case is not computed here; both directions."""
  if case.dtype not in DTYPES:
    return Refusal(f'dtype={case.dtype} has no wgmma with float32 sums', DTYPES[0])
  if case.head_dim not in HEAD_DIMS:
    larger = [k for k in HEAD_DIMS if k > case.head_dim]
    nearest = f'head_dim={(larger or HEAD_DIMS[-1:])[0]}'
    return Refusal(f'head_dim={case.head_dim} is not one of {HEAD_DIMS}', nearest)
  if not case.q_len or not case.kv_len or not case.batch:
    return Refusal(f'there is nothing: {case.q_len=}, {case.kv_len=}, {case.batch=}')
  if case.bias is not None:
    _, _, rows, columns = case.bias
    if columns != case.kv_len or rows not in (1, case.q_len):
      return Refusal(f'bias={case.bias} has no row of {case.kv_len} keys')
    if rows > 1 and (case.q_len % 8 or case.kv_len % 8):
      # The TMA reads rows that start at multiples of 16 bytes; the backward pass reads
      # columns.
      reason = (
        f'bias={case.bias} for each query has rows or columns of no multiple of 8'
      )
      return Refusal(reason, 'q_len and kv_len of multiples of 8')
  return None


def blocks(case: Case, config: Config | None = None) -> Blocks:
  """The sizes asked for as compute, keys and stages, or else those that fit.

  Raises:
    ValueError: a name or size in `config` that is not allowed.
  """
  others = BACKWARD_NAMES  # One dict of a tuned row serves both directions.
  config = {k: v for k, v in (config or {}).items() if k not in others}
  # What scores need beside products takes registers, and a dense bias memory.
  busy = case.head_dim > 64 and (case.dropout_rate or case.soft_cap is not None)
  wide = case.head_dim > 128 or busy or dense_bias(case)
  keys = config.pop('keys', 64 if wide else 128)
  compute = config.pop('compute', 2)
  stages = config.pop('stages', 0)
  if config or compute not in (1, 2, 3) or keys not in (64, 128, 192, 256):
    raise ValueError(
      f'{config=}, {compute=}, {keys=} is not allowed: must be compute 1 to 3, keys '
      '64, 128, 192 or 256, stages 1 or more.'
    )
  return staged(case, Blocks(compute, keys, stages), own=1)


def forward(
  case: Case,
  operands: Operands,
  *,
  interpret: Any = False,
  config: Config | None = None,
) -> tuple[Array, Array]:
  """(o [B, L, H, K] in q's dtype, log sum exp of the scores [B, H, L]).

  Scores of -5e29 and below, of a bias, count as of keys that are not seen.

  Args:
    case: one that `refusal` does not refuse.
    operands: its arrays.
    interpret: True or compat.simulator(...): simulated on the CPU.
    config: any of compute, keys (of a block) and stages.
  """
  plan = blocks(case, config)
  n = plan.compute
  rows = n * ROWS
  q_rows, kv_rows = rounded(case.q_len, rows), rounded(case.kv_len, plan.across)
  more = extras(case, operands, q_rows, kv_rows)

  def attention_forward(
    q_ref, k_ref, v_ref, *refs,
    q_s, own_full, k_s, k_full, k_free, v_s, v_full, v_free, lse_s, bias=None,
  ):  # fmt: skip
    *more_refs, o_ref, lse_ref = refs
    named = dict(zip(more, more_refs, strict=True))
    batch, head = lax.axis_index('batch'), lax.axis_index('head')
    # The last queries of a causal case have most to do: they start first.
    start = q_rows - rows - lax.axis_index('tile') * rows
    group = lax.axis_index('warpgroup')
    scores = Scores(case, named, batch, head, interpret, bias)
    program = (start, jnp.minimum(start + rows, case.q_len))

    @pl.when(group == n)
    def _():
      compat.give_registers(n, interpret)
      zero = named['zero'][0]
      found = span(case, plan.across, program, program)
      for i in range(n):
        row = start + i * ROWS
        load(q_ref, batch, head, row, q_s, i, own_full.at[i], zero, interpret)
      kv_head = lax.div(head, jnp.int32(case.group))

      def fetch(j, slot, again):
        key = j * plan.across
        again(k_free)
        load(k_ref, batch, kv_head, key, k_s, slot, k_full.at[slot], zero, interpret)
        if bias is not None:
          again(bias.free)
          load_bias(named['bias'], batch, head, start, key, bias, slot)
        again(v_free)
        load(v_ref, batch, kv_head, key, v_s, slot, v_full.at[slot], zero, interpret)

      frees = (k_free, v_free) if bias is None else (k_free, v_free, bias.free)
      produce(fetch, frees, found.first, found.stop, plan.stages)

    @pl.when(group < n)
    def _():
      compat.take_registers(n, interpret)
      zero = named['zero'][0]
      row = start + group * ROWS
      own = (row, jnp.minimum(row + ROWS, case.q_len))
      found = span(case, plan.across, program, own)
      shape = (ROWS, plan.across)
      over = lambda x, shape: lax.broadcast_in_dim(x, shape, (0,))

      def step(j, carry, masked):
        o, top, total = carry
        slot, key = lax.rem(j - found.first, plan.stages), j * plan.across
        plgpu.barrier_wait(k_full.at[slot])
        q = q_s.at[anew(group, j, zero)]
        s = compat.multiply(q, k_s.at[slot], interpret, transpose_b=True)
        plgpu.barrier_arrive(k_free.at[slot])
        s, _ = scores.score(s, row, key, slot, group)
        if masked:
          s = jnp.where(scores.visible(shape, row, key), s, masks.MASKED)
        new_top = jnp.maximum(top, s.max(axis=1))
        less = jnp.exp2(top - new_top)
        p = jnp.exp2(s - over(new_top, shape))
        total = total * less + p.sum(axis=1)
        if case.dropout_rate:
          p = jnp.where(scores.kept(shape, row, key), p, 0.0)
        o = o * over(less, o.shape)
        plgpu.barrier_wait(v_full.at[slot])
        o = compat.multiply(p.astype(case.dtype), v_s.at[slot], interpret, start=o)
        plgpu.barrier_arrive(v_free.at[slot])
        return o, new_top, total

      plgpu.barrier_wait(own_full.at[group])
      full = lambda shape, value, layout: compat.full(shape, value, layout, interpret)
      carry = (
        full((ROWS, case.head_dim), 0.0, MATRIX),
        full((ROWS,), LOWEST, BY_ROW),
        full((ROWS,), 0.0, BY_ROW),
      )
      o, top, total = walk(case, found, plan.across, step, carry)
      some = total > 0
      safe = jnp.where(some, total, 1.0)
      o = o * over(1 / (safe * (1 - case.dropout_rate)), o.shape)
      q_s[group] = o.astype(case.dtype)
      lse = jnp.where(some, top * math.log(2) + jnp.log(safe), -jnp.inf)
      lse_s[group] = lse
      plgpu.commit_smem()
      store(q_s, group, o_ref, batch, head, row, zero, interpret)
      plgpu.copy_smem_to_gmem(
        lse_s.at[group], lse_ref.at[batch, head, pl.ds(row, ROWS)]
      )
      plgpu.wait_smem_to_gmem(0)

  held = memory(case, plan, ('q',), ('k', 'v'), more.get('bias'))
  held['lse_s'] = plgpu.SMEM((n, ROWS), jnp.float32)
  args = (operands.q_BLHK, operands.k_BMGK, operands.v_BMGK, *more.values())
  lse_type = jax.ShapeDtypeStruct((case.batch, case.q_heads, q_rows), jnp.float32)
  o, lse = launch(
    attention_forward, case, plan, held, args, interpret, more_outs=[lse_type]
  )
  return o, lse[..., : case.q_len]


def configs(case: Case) -> list[dict[str, int]]:
  """Block sizes worth trying on a device (kernels/tune.py), one change at a time."""
  del case
  found: list[dict[str, int]] = [{}]
  found += [{'compute': n, 'keys': m} for n in (1, 2, 3) for m in (64, 128, 192)]
  found += [{'dq_compute': n} for n in (1, 3)] + [{'dq_across': n} for n in (32, 128)]
  found += [{'dkv_compute': n} for n in (1, 3)] + [{'dkv_across': n} for n in (32, 128)]
  return found
