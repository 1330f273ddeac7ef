"""dk and dv of attention on Hopper GPUs: blocks of keys walk over the queries.

See kernels/attention/mosaic_gpu_backward.py.
"""

from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.attention import masks
from kernels.attention.case import Case
from kernels.attention.mosaic_gpu_blocks import (
  BY_COLUMN,
  MATRIX,
  ROWS,
  Scores,
  Span,
  anew,
  load,
  load_bias,
  matrices,
  out_length,
  produce,
  rounded,
  store,
  tile_copies,
)  # fmt: skip
from kernels.attention.mosaic_gpu_dq import slopes, weights

Array = jax.Array


def query_span(
  case: Case, queries: int, keys: tuple[Any, Any], own: tuple[Any, Any]
) -> Span:
  """Blocks of `queries` that see some of keys [first, stop), and that see all `own`."""
  low, high = masks.query_range(case, *keys)
  first, stop = lax.div(low, queries), lax.div(high + queries - 1, queries)
  stop = jnp.maximum(first, stop)
  if case.segments:
    return Span(first, first, first, stop)
  low, high = jnp.int32(0), jnp.int32(rounded(case.q_len, queries))
  if case.causal:
    low = jnp.maximum(low, own[1] - 1)
  if case.window is not None:
    left, right = case.window
    high = jnp.minimum(high, own[0] + left + 1)
    if not case.causal:
      low = jnp.maximum(low, own[1] - 1 - right)
  seen_first = jnp.clip(lax.div(low + queries - 1, queries), first, stop)
  seen_stop = jnp.clip(lax.div(high, queries), seen_first, stop)
  return Span(first, seen_first, seen_stop, stop)


def walk_queries(case: Case, found: Span, step: Any, carry: Any) -> Any:
  """Folds step(j, carry, masked) over the blocks of a span of queries."""
  plain = lambda j, carry: step(j, carry, False)
  partly = lambda j, carry: step(j, carry, True)
  if case.causal or case.window is not None:
    carry = lax.fori_loop(found.first, found.seen_first, partly, carry)
  if not case.segments:
    carry = lax.fori_loop(found.seen_first, found.seen_stop, plain, carry)
  if case.segments or case.window is not None:
    carry = lax.fori_loop(found.seen_stop, found.stop, partly, carry)
  return carry


def of_keys(case, matrix_args, named_args, interpret, plan, wanted) -> list[Array]:
  """Those of dk and dv that are `wanted`, [B, M, G, K]."""
  n, dtype = plan.compute, jnp.dtype(case.dtype)
  rows = n * ROWS
  tiles = -(-case.kv_len // rows)
  has_bias, want_dk, want_dv = 'bias' in named_args, 'dk' in wanted, 'dv' in wanted

  def attention_dkv(q_ref, k_ref, v_ref, do_ref, *refs):
    named = dict(zip(named_args, refs[: len(named_args)], strict=True))
    refs = list(refs[len(named_args) :])
    out_refs = [refs.pop(0) for _ in wanted]
    k_s = refs.pop(0)
    v_s = refs.pop(0) if want_dk else None
    q_s, do_s, lse_s, delta_s, *refs = refs
    bias_s = refs.pop(0) if has_bias else None
    own_full, q_full, do_full, q_free, do_free, *bias_barriers = refs
    batch, kv_head = lax.axis_index('batch'), lax.axis_index('head')
    start = lax.axis_index('tile') * rows
    group = lax.axis_index('warpgroup')
    program = (start, jnp.minimum(start + rows, case.kv_len))

    @pl.when(group == n)
    def _():
      compat.give_registers(n, interpret)
      zero = named['zero'][0]
      found = query_span(case, plan.across, program, program)
      count = found.stop - found.first
      for i in range(n):
        row = start + i * ROWS
        load(k_ref, batch, kv_head, row, k_s, i, own_full.at[i], zero, interpret)
        if v_s is not None:
          load(v_ref, batch, kv_head, row, v_s, i, own_full.at[i], zero, interpret)

      def fetch(j, slot, again):
        # Of all heads that share the keys, one after the other.
        head = kv_head * case.group + lax.div(j, count)
        query = (found.first + lax.rem(j, count)) * plan.across

        def fetch_row(name, target, barrier):
          row = named[name].at[batch, head, pl.ds(query, plan.across)]
          plgpu.copy_gmem_to_smem(row, target.at[slot], barrier.at[slot])

        again(q_free)
        load(q_ref, batch, head, query, q_s, slot, q_full.at[slot], zero, interpret)
        fetch_row('lse', lse_s, q_full)
        if bias_s is not None:
          full, free = bias_barriers
          again(free)
          target = bias_s.at[slot]
          load_bias(named['bias'], batch, head, start, query, target, full.at[slot])
        again(do_free)
        load(do_ref, batch, head, query, do_s, slot, do_full.at[slot], zero, interpret)
        fetch_row('delta', delta_s, do_full)

      frees = (q_free, do_free, *bias_barriers[1:])
      produce(fetch, frees, jnp.int32(0), count * case.group, plan.stages)

    @pl.when(group < n)
    def _():
      compat.take_registers(n, interpret)
      zero = named['zero'][0]
      row = start + group * ROWS
      keys = (row, jnp.minimum(row + ROWS, case.kv_len))
      found = query_span(case, plan.across, program, keys)
      count = found.stop - found.first
      shape = (ROWS, plan.across)

      def spread(ref, slot):
        x = compat.load(ref.at[slot], BY_COLUMN, interpret)
        return lax.broadcast_in_dim(x, shape, (1,))

      def of_head(h, sums):
        head = kv_head * case.group + h
        scores = Scores(case, named, batch, head, interpret, transposed=True)

        def step(j, sums, masked):
          sums = dict(zip(wanted, sums, strict=True))
          slot = lax.rem(h * count + j - found.first, plan.stages)
          if plan.stages == 1:
            slot = anew(slot, j, zero)
          query = j * plan.across
          plgpu.barrier_wait(q_full.at[slot])
          own = anew(group, j, zero)
          s = compat.multiply(k_s.at[own], q_s.at[slot], interpret, transpose_b=True)
          lse = spread(lse_s, slot)
          bias = None
          if bias_s is not None:
            plgpu.barrier_wait(bias_barriers[0].at[slot])
            bias = bias_s.at[slot, pl.ds(group * ROWS, ROWS)]
          p, slope = weights(scores, s, lse, query, row, bias, masked)
          if bias_s is not None:
            plgpu.barrier_arrive(bias_barriers[1].at[slot])
          kept, more = None, 1.0
          if case.dropout_rate:
            kept, more = scores.kept(shape, query, row), 1 / (1 - case.dropout_rate)
          drop = lambda x: x if kept is None else jnp.where(kept, x * more, 0.0)
          plgpu.barrier_wait(do_full.at[slot])
          if want_dv:
            used = drop(p).astype(dtype)
            sums['dv'] = compat.multiply(
              used, do_s.at[slot], interpret, start=sums['dv']
            )
          if v_s is not None:
            dp = compat.multiply(
              v_s.at[own], do_s.at[slot], interpret, transpose_b=True
            )
            ds = slopes(p, drop(dp), spread(delta_s, slot), slope).astype(dtype)
            sums['dk'] = compat.multiply(ds, q_s.at[slot], interpret, start=sums['dk'])
          plgpu.barrier_arrive(do_free.at[slot])
          plgpu.barrier_arrive(q_free.at[slot])
          return tuple(sums.values())

        return walk_queries(case, found, step, sums)

      plgpu.barrier_wait(own_full.at[group])
      zeros = compat.full((ROWS, case.head_dim), 0.0, MATRIX, interpret)
      sums = (zeros,) * len(wanted)
      if case.group == 1:
        sums = of_head(jnp.int32(0), sums)
      else:
        sums = lax.fori_loop(0, case.group, of_head, sums)
      outs = zip(wanted, sums, out_refs, strict=True)
      holders = (k_s,) if v_s is None else (k_s, v_s)
      for (name, total, out_ref), held in zip(outs, holders, strict=False):
        factor = case.scale if name == 'dk' else 1.0
        held[group] = (total * factor).astype(dtype)
        plgpu.commit_smem()
        store(held, group, out_ref, batch, kv_head, row, zero, interpret)
      plgpu.wait_smem_to_gmem(0)

  scratch = [matrices(n, ROWS, case)] * (2 if want_dk else 1)
  scratch += [matrices(plan.stages, plan.across, case)] * 2
  scratch += [plgpu.SMEM((plan.stages, plan.across), jnp.float32)] * 2
  own = tile_copies(case.kv_len, ROWS, case.head_dim) * (2 if want_dk else 1)
  walked = 1 + tile_copies(case.q_len, plan.across, case.head_dim)
  barriers = [(own, n)] + [(walked, plan.stages)] * 2 + [(n, plan.stages)] * 2
  if has_bias:
    dtype_of_bias = named_args['bias'].dtype
    scratch.append(plgpu.SMEM((plan.stages, rows, plan.across), dtype_of_bias))
    barriers += [(1, plan.stages), (n, plan.stages)]
  batch, _, heads, head_dim = matrix_args[1].shape
  length = out_length(case.kv_len, rows, interpret)
  outs = compat.kernel(
    attention_dkv,
    interpret=interpret,
    out_type=[jax.ShapeDtypeStruct((batch, length, heads, head_dim), dtype)]
    * len(wanted),
    scratch_types=scratch + compat.barriers(barriers),
    grid=(heads, tiles, batch),
    grid_names=('head', 'tile', 'batch'),
    num_threads=n + 1,
    thread_name='warpgroup',
  )(*matrix_args, *named_args.values())
  return [out[:, : case.kv_len] for out in outs]
