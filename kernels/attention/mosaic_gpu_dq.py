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
  ROWS,
  Scores,
  anew,
  load,
  load_bias,
  matrices,
  out_length,
  produce,
  span,
  store,
  tile_copies,
  walk,
)  # fmt: skip

Array = jax.Array


def weights(scores: Scores, product, lse, query, key, bias, masked: bool):
  """(weights, slope of the cap or None) of a block; `lse` [rows, columns] in base 2."""
  s, slope = scores.score(product, query, key, bias)
  p = jnp.exp2(s - lse)
  if masked:
    # Where keys are rows, those past the end are not stored.
    seen = scores.visible(p.shape, query, key, keys_end=not scores.transposed)
    p = jnp.where(seen, p, 0.0)
  return p, slope


def slopes(p, dp, delta, slope):
  """Of the scaled products."""
  ds = p * (dp - delta)
  return ds if slope is None else ds * slope


def of_queries(case, matrix_args, named_args, interpret, plan) -> Array:
  """dq [B, L, H, K]."""
  n, dtype = plan.compute, jnp.dtype(case.dtype)
  rows = n * ROWS
  tiles = -(-case.q_len // rows)
  has_bias = 'bias' in named_args

  def attention_dq(q_ref, k_ref, v_ref, do_ref, *refs):
    named = dict(zip(named_args, refs[: len(named_args)], strict=True))
    dq_ref, *refs = refs[len(named_args) :]
    q_s, do_s, k_s, v_s, *refs = refs
    bias_s = refs.pop(0) if has_bias else None
    own_full, k_full, v_full, k_free, v_free, *bias_barriers = refs
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
        if bias_s is not None:
          full, free = bias_barriers
          again(free)
          target = bias_s.at[slot]
          load_bias(named['bias'], batch, head, start, key, target, full.at[slot])

      frees = (k_free, v_free, *bias_barriers[1:])
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
      scores = Scores(case, named, batch, head, interpret)
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
        bias = None
        if bias_s is not None:
          plgpu.barrier_wait(bias_barriers[0].at[slot])
          bias = bias_s.at[slot, pl.ds(group * ROWS, ROWS)]
        p, slope = weights(scores, s, over(lse), row, key, bias, masked)
        if bias_s is not None:
          plgpu.barrier_arrive(bias_barriers[1].at[slot])
        plgpu.barrier_wait(v_full.at[slot])
        dp = compat.multiply(do_s.at[own], v_s.at[slot], interpret, transpose_b=True)
        plgpu.barrier_arrive(v_free.at[slot])
        if case.dropout_rate:
          more = 1 / (1 - case.dropout_rate)
          dp = jnp.where(scores.kept(shape, row, key), dp * more, 0.0)
        ds = slopes(p, dp, over(delta), slope).astype(dtype)
        dq = compat.multiply(ds, k_s.at[slot], interpret, start=dq)
        plgpu.barrier_arrive(k_free.at[slot])
        return dq

      plgpu.barrier_wait(own_full.at[group])
      dq = compat.full((ROWS, case.head_dim), 0.0, MATRIX, interpret)
      dq = walk(case, found, plan.across, step, dq)
      q_s[group] = (dq * case.scale).astype(dtype)
      plgpu.commit_smem()
      store(q_s, group, dq_ref, batch, head, row, zero, interpret)
      plgpu.wait_smem_to_gmem(0)

  scratch = [matrices(n, ROWS, case)] * 2
  scratch += [matrices(plan.stages, plan.across, case)] * 2
  own = 2 * tile_copies(case.q_len, ROWS, case.head_dim)
  walked = tile_copies(case.kv_len, plan.across, case.head_dim)
  barriers = [(own, n)] + [(walked, plan.stages)] * 2 + [(n, plan.stages)] * 2
  if has_bias:
    dtype_of_bias = named_args['bias'].dtype
    scratch.append(plgpu.SMEM((plan.stages, rows, plan.across), dtype_of_bias))
    barriers += [(1, plan.stages), (n, plan.stages)]
  batch, _, heads, head_dim = matrix_args[0].shape
  length = out_length(case.q_len, rows, interpret)
  dq = compat.kernel(
    attention_dq,
    interpret=interpret,
    out_type=jax.ShapeDtypeStruct((batch, length, heads, head_dim), dtype),
    scratch_types=scratch + compat.barriers(barriers),
    grid=(heads, tiles, batch),
    grid_names=('head', 'tile', 'batch'),
    num_threads=n + 1,
    thread_name='warpgroup',
  )(*matrix_args, *named_args.values())
  return dq[:, : case.q_len]
