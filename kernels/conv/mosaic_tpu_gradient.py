"""Gradient of the filter of a depthwise convolution as a Pallas kernel for TPUs.

dw[a, b, c] = sum over n, h, w of dy[n, h, w, c] p[n, stride h + a, stride w + b, c],
p the padded x. The grid goes through images and rows one after the other and adds to
float32 sums in VMEM: the same bits in every run.
"""

import functools
from typing import Any, Mapping

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from kernels.conv import mosaic_tpu_halo as halo
from kernels.conv.case import Case
from kernels.conv.mosaic_tpu_halo import SUBLANES, Layout

Array = jax.Array
NAME = 'conv_depthwise_filter_gradient'


def layout(case: Case, config: Mapping[str, Any]) -> Layout:
  """The blocks of a case."""
  before = (case.padding[0][0], case.padding[1][0])
  shape = (case.batch, case.height, case.width, case.channels)
  return halo.plan(
    shape, case.out_shape, case, before, stride=case.stride, config=config, wide=1
  )


def filter_gradient(
  case: Case, x: Array, dy: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dw [kh, kw, 1, C] in float32. Arguments as mosaic_tpu.forward has them."""
  blocks = layout(case, config)
  order = lambda c, n, h: (n, c, h)
  specs = halo.in_specs(blocks, order)
  images, channels, rows = blocks.grid
  taps = case.kernel[0] * case.kernel[1]
  of_taps = (*case.kernel, blocks.channels)
  dw = pl.pallas_call(
    functools.partial(_kernel, blocks),
    grid=(channels, images, rows),
    out_shape=jax.ShapeDtypeStruct((*case.kernel, case.channels), jnp.float32),
    in_specs=[*specs, blocks.spec(blocks.rows, blocks.width, lambda h: h, order)],
    out_specs=pl.BlockSpec(of_taps, lambda c, n, h: (0, 0, c)),
    scratch_shapes=[
      pltpu.VMEM(blocks.scratch, jnp.float32),
      pltpu.VMEM(blocks.slopes, jnp.float32),
      pltpu.VMEM((*case.kernel[::-1], SUBLANES, blocks.channels), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary')
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * taps * dy.size,
      bytes_accessed=(x.size + dy.size) * x.dtype.itemsize,
      transcendentals=0,
    ),
    name=NAME,
    interpret=interpret,
  )(*[blocks.view(x)] * len(specs), blocks.view(dy))
  return dw.reshape(*case.kernel, 1, case.channels)


def _kernel(layout: Layout, *refs: Any):
  *x_refs, dy_ref, dw_ref, p_ref, dy_wide_ref, sum_ref = refs
  batch, block = pl.program_id(1), pl.program_id(2)

  @pl.when((batch == 0) & (block == 0))
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  halo.clear(layout, p_ref)
  images = 1
  if not layout.inner:  # The last block may have fewer.
    images = jnp.minimum(layout.images, layout.shape[0] - batch * layout.images)

  def of_image(n, _):
    halo.fill(layout, block, x_refs, n, p_ref)
    _fill_slopes(layout, block, dy_ref, n, dy_wide_ref)
    halo.groups(layout, functools.partial(_add, layout, p_ref, dy_wide_ref, sum_ref))

  lax.fori_loop(0, images, of_image, None)

  last = (batch == pl.num_programs(1) - 1) & (block == pl.num_programs(2) - 1)

  @pl.when(last)
  def _():
    for b in range(layout.kernel[1]):
      dw_ref[:, pl.ds(b, 1)] = sum_ref[b].sum(1, keepdims=True)


def _fill_slopes(layout: Layout, block: Any, dy_ref: Any, n: Any, to_ref: Any):
  """dy of an image in float32, 0 where the block is larger than the array."""
  height, width = layout.out[1:3]

  def copy(h):
    dy = dy_ref[layout.at(n, h)].astype(jnp.float32)
    if layout.width > width:
      dy = jnp.where(lax.broadcasted_iota(jnp.int32, dy.shape, 0) < width, dy, 0)
    if height % layout.rows:
      dy = jnp.where(block * layout.rows + h < height, dy, 0)
    to_ref[h] = dy

  halo.each(layout.rows, copy)


def _add(layout: Layout, p_ref, dy_ref, sum_ref, row, column, first):
  """Adds a group of rows; rows before `first` were in the last group."""
  height, width = layout.kernel
  columns = pl.ds(column, layout.chunk)
  slopes = [dy_ref[row + i, columns] for i in range(layout.group)]
  if first is not None:
    slopes = [jnp.where(row + i >= first, s, 0) for i, s in enumerate(slopes)]
  for b in range(width):
    begin, end = halo.span(layout, b)
    if begin == end:
      continue
    sums: list[Any] = [None] * height
    for r, uses in halo.tap_rows(layout):
      x = halo.load(layout, p_ref, row, column, r, b)
      for a, i in uses:
        term = x * slopes[i][begin:end]
        sums[a] = term if sums[a] is None else sums[a] + term
    parts = [total.reshape(-1, SUBLANES, layout.channels).sum(0) for total in sums]
    sum_ref[b] += jnp.stack(parts)
