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
  Scores,
  Span,
  anew,
  load,
  load_bias,
  produce,
  store,
)  # fmt: skip
from kernels.attention.mosaic_gpu_dq import weights
from kernels.attention.mosaic_gpu_launch import ROWS, launch, memory, rounded

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
  n, rows = plan.compute, plan.compute * ROWS
  want_dk, want_dv = 'dk' in wanted, 'dv' in wanted

  def attention_dkv(
    q_ref, k_ref, v_ref, do_ref, *refs,
    k_s, own_full, q_s, q_full, q_free, do_s, do_full, do_free, lse_s, delta_s,
    v_s=None, bias=None,
  ):  # fmt: skip
    named = dict(zip(named_args, refs, strict=False))
    out_refs = refs[len(named_args) :]
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
        if bias is not None:
          again(bias.free)
          load_bias(named['bias'], batch, head, start, query, bias, slot)
        again(do_free)
        load(do_ref, batch, head, query, do_s, slot, do_full.at[slot], zero, interpret)
        fetch_row('delta', delta_s, do_full)

      frees = (q_free, do_free) if bias is None else (q_free, do_free, bias.free)
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
        scores = Scores(case, named, batch, head, interpret, bias, transposed=True)

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
          p, capped = weights(scores, s, lse, query, row, masked, slot, group)
          kept, more = None, 1.0
          if case.dropout_rate:
            kept, more = scores.kept(shape, query, row), 1 / (1 - case.dropout_rate)
          drop = lambda x: x if kept is None else jnp.where(kept, x * more, 0.0)
          plgpu.barrier_wait(do_full.at[slot])
          if want_dv:
            used = drop(p).astype(case.dtype)
            sums['dv'] = compat.multiply(
              used, do_s.at[slot], interpret, start=sums['dv']
            )
          if v_s is not None:
            dp = compat.multiply(
              v_s.at[own], do_s.at[slot], interpret, transpose_b=True
            )
            ds = (capped * (drop(dp) - spread(delta_s, slot))).astype(case.dtype)
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
        held[group] = (total * factor).astype(case.dtype)
        plgpu.commit_smem()
        store(held, group, out_ref, batch, kv_head, row, zero, interpret)
      plgpu.wait_smem_to_gmem(0)

  own = ('k', 'v') if want_dk else ('k',)
  beside = ('lse', 'delta')
  held = memory(case, plan, own, ('q', 'do'), named_args.get('bias'), beside)
  args = (*matrix_args, *named_args.values())
  return launch(attention_dkv, case, plan, held, args, interpret, outs=len(wanted))
