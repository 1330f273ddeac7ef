"""dq of attention on Hopper GPUs: blocks of queries walk over the keys.

See kernels/attention/mosaic_gpu_backward.py.
"""

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.attention.mosaic_gpu_blocks import (
  BY_ROW,
  MATRIX,
  Scores,
  anew,
  load,
  load_bias,
  produce,
  span,
  store,
  walk,
)  # fmt: skip
from kernels.attention.mosaic_gpu_launch import ROWS, launch, memory

Array = jax.Array


def weights(scores: Scores, product, lse, query, key, masked: bool, slot, group):
  """(weights, these times the slope of the cap) of a block.

  The second is all that the slope of the scores needs: to keep the cap's slope beside
  the weights until then, in dq of width 128 with cap, dropout and window, spilled 176
  bytes (ptxas 13.0, jax 0.10.2).

  Args:
    scores: of the program.
    product: q k^T.
    lse: log sums in base 2, spread over the block.
    query, key, slot, group: as in `Scores.score`.
    masked: whether some weights are 0.
  """
  s, slope = scores.score(product, query, key, slot, group)
  p = jnp.exp2(s - lse)
  if masked:
    # Where keys are rows, those past the end are not stored.
    seen = scores.visible(p.shape, query, key, keys_end=not scores.transposed)
    p = jnp.where(seen, p, 0.0)
  return p, p if slope is None else p * slope


def of_queries(case, matrix_args, named_args, interpret, plan) -> Array:
  """dq [B, L, H, K]."""
  n, rows = plan.compute, plan.compute * ROWS
  tiles = -(-case.q_len // rows)

  def attention_dq(
    q_ref, k_ref, v_ref, do_ref, *refs,
    q_s, do_s, own_full, k_s, k_full, k_free, v_s, v_full, v_free, bias=None,
  ):  # fmt: skip
    *named_refs, dq_ref = refs
    named = dict(zip(named_args, named_refs, strict=True))
    batch, head = lax.axis_index('batch'), lax.axis_index('head')
    start = (tiles - 1 - lax.axis_index('tile')) * rows
    group = lax.axis_index('warpgroup')
    program = (start, jnp.minimum(start + rows, case.q_len))

    @pl.when(group == n)
    def _():
      compat.give_registers(n, interpret)
      zero = named['zero'][0]
      found = span(case, plan.across, program, program)
      for i in range(n):
        row = start + i * ROWS
        load(q_ref, batch, head, row, q_s, i, own_full.at[i], zero, interpret)
        load(do_ref, batch, head, row, do_s, i, own_full.at[i], zero, interpret)
      kv_head = lax.div(head, jnp.int32(case.group))

      def fetch(j, slot, again):
        key = j * plan.across
        again(k_free)
        load(k_ref, batch, kv_head, key, k_s, slot, k_full.at[slot], zero, interpret)
        again(v_free)
        load(v_ref, batch, kv_head, key, v_s, slot, v_full.at[slot], zero, interpret)
        if bias is not None:
          again(bias.free)
          load_bias(named['bias'], batch, head, start, key, bias, slot)

      frees = (k_free, v_free) if bias is None else (k_free, v_free, bias.free)
      produce(fetch, frees, found.first, found.stop, plan.stages)

    @pl.when(group < n)
    def _():
      compat.take_registers(n, interpret)
      zero = named['zero'][0]
      row = start + group * ROWS
      found = span(
        case, plan.across, program, (row, jnp.minimum(row + ROWS, case.q_len))
      )
      shape = (ROWS, plan.across)
      scores = Scores(case, named, batch, head, interpret, bias)
      over = lambda x: lax.broadcast_in_dim(x, shape, (0,))
      lse, delta = (
        compat.load(named[name].at[batch, head, pl.ds(row, ROWS)], BY_ROW, interpret)
        for name in ('lse', 'delta')
      )

      def step(j, dq, masked):
        slot, key = lax.rem(j - found.first, plan.stages), j * plan.across
        if plan.stages == 1:
          slot = anew(slot, j, zero)
        plgpu.barrier_wait(k_full.at[slot])
        own = anew(group, j, zero)
        s = compat.multiply(q_s.at[own], k_s.at[slot], interpret, transpose_b=True)
        _, p = weights(scores, s, over(lse), row, key, masked, slot, group)
        plgpu.barrier_wait(v_full.at[slot])
        dp = compat.multiply(do_s.at[own], v_s.at[slot], interpret, transpose_b=True)
        plgpu.barrier_arrive(v_free.at[slot])
        if case.dropout_rate:
          more = 1 / (1 - case.dropout_rate)
          dp = jnp.where(scores.kept(shape, row, key), dp * more, 0.0)
        ds = (p * (dp - over(delta))).astype(case.dtype)
        dq = compat.multiply(ds, k_s.at[slot], interpret, start=dq)
        plgpu.barrier_arrive(k_free.at[slot])
        return dq

      plgpu.barrier_wait(own_full.at[group])
      dq = compat.full((ROWS, case.head_dim), 0.0, MATRIX, interpret)
      dq = walk(case, found, plan.across, step, dq)
      q_s[group] = (dq * case.scale).astype(case.dtype)
      plgpu.commit_smem()
      store(q_s, group, dq_ref, batch, head, row, zero, interpret)
      plgpu.wait_smem_to_gmem(0)

  held = memory(case, plan, ('q', 'do'), ('k', 'v'), named_args.get('bias'))
  args = (*matrix_args, *named_args.values())
  (dq,) = launch(attention_dq, case, plan, held, args, interpret)
  return dq
