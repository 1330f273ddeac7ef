"""Convolutions as Pallas kernels for TPUs: depthwise, and 1x1 as a matrix product.

Padding and halo are made in VMEM: no padded or copied image is ever in HBM. Sums are in
float32; scale, shift, residual and activation are applied to the sum before it is
rounded. Of other convolutions `refusal` says why not.
"""

import functools
from typing import Any, Mapping

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from kernels.conv import mosaic_tpu_gradient
from kernels.conv import mosaic_tpu_halo as halo
from kernels.conv import mosaic_tpu_pointwise as pointwise
from kernels.conv.case import Case, Operands
from kernels.conv.mosaic_tpu_halo import Layout
from kernels.dispatch import Refusal

Array = jax.Array
DTYPES = ('float32', 'bfloat16')
KERNELS = range(3, 8)
NAME = 'conv_depthwise'


def refusal(case: Case) -> Refusal | None:
  """Why `case` is not computed; None: it is."""
  if case.dtype not in DTYPES:
    return Refusal(f'dtype={case.dtype}', ' or '.join(DTYPES))
  if min(case.batch, case.channels, case.features, *case.out_shape) < 1:
    return Refusal(f'an empty array: {case}', 'sizes of 1 or more')
  if case.dilation != (1, 1):
    return Refusal(f'dilation={case.dilation}', 'dilation=1')
  if case.kernel == (1, 1) and case.groups == 1:
    return pointwise.refusal(case)
  if not case.depthwise:
    return Refusal(
      f'kernel={case.kernel} with groups={case.groups} of {case.channels} channels',
      'one filter a channel, or a 1x1 kernel with groups=1',
    )
  return _depthwise_refusal(case)


def _depthwise_refusal(case: Case) -> Refusal | None:
  if any(k not in KERNELS for k in case.kernel):
    return Refusal(f'kernel={case.kernel}', f'{KERNELS[0]} to {KERNELS[-1]}')
  if any(s not in (1, 2) for s in case.stride):
    return Refusal(f'stride={case.stride}', 'stride=1 or 2')
  for k, pads in zip(case.kernel, case.padding, strict=True):
    if not all(0 <= pad < k for pad in pads):
      return Refusal(f'padding={pads} for a kernel of {k}', f'0 to {k - 1}')
  try:
    for layout in (_layout, _input_layout, mosaic_tpu_gradient.layout):
      layout(case, {})
  except ValueError:
    return Refusal(f'width={case.width}: rows too long for VMEM', 'narrower images')
  return None


def _layout(case: Case, config: Mapping[str, Any]) -> Layout:
  before = (case.padding[0][0], case.padding[1][0])
  shape = (case.batch, case.height, case.width, case.channels)
  return halo.plan(
    shape, case.out_shape, case, before, stride=case.stride, config=config
  )


def _input_layout(case: Case, config: Mapping[str, Any]) -> Layout:
  """Of the sum over dy: x[g] is read by the h with stride h + a = g + before."""
  shape = (case.batch, case.height, case.width, case.channels)
  before = tuple(
    k - 1 - pads[0] for k, pads in zip(case.kernel, case.padding, strict=True)
  )
  return halo.plan(
    case.out_shape, shape, case, before, spread=case.stride, config=config
  )


def forward(
  case: Case, operands: Operands, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """y [N, H', W', O] in the dtype of x.

  Args:
    case: that `refusal` does not refuse.
    operands: of the case.
    interpret: True or a pltpu.InterpretParams: simulated; False: compiled.
    config: may have images, rows, group, chunk of mosaic_tpu_halo.Layout, or of a block
      of the 1x1 kernel rows (of the matrix), channels and features.
  """
  if case.kernel == (1, 1) and case.groups == 1:
    return pointwise.forward(case, operands, interpret=interpret, config=config)
  x, w = operands.x_NHWC, operands.w_HWIO
  return _correlate(case, _layout(case, config), x, w, operands, interpret)


def input_gradient(
  case: Case, dy: Array, w: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dx [N, H, W, C] in the dtype of dy. Arguments as `forward` has them."""
  if case.kernel == (1, 1) and case.groups == 1:
    return pointwise.input_gradient(case, dy, w, interpret=interpret, config=config)
  case = pointwise.bare(case)
  return _correlate(case, _input_layout(case, config), dy, w, None, interpret)


def filter_gradient(
  case: Case, x: Array, dy: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dw [kh, kw, C / groups, O] in float32; arguments as `forward` has them."""
  if case.kernel == (1, 1) and case.groups == 1:
    return pointwise.filter_gradient(case, x, dy, interpret=interpret, config=config)
  return mosaic_tpu_gradient.filter_gradient(
    case, x, dy, interpret=interpret, config=config
  )


def _correlate(
  case: Case, layout: Layout, x: Array, w: Array, operands: Any, interpret: Any
) -> Array:
  """The layout's sum and the epilogue; without operands of the filter turned."""
  turned = operands is None
  order = lambda n, c, h: (n, c, h)
  of_out = layout.spec(layout.rows, layout.width, lambda h: h, order)
  of_x = halo.in_specs(layout, order)
  of_w = pl.BlockSpec((*layout.kernel, layout.channels), lambda n, c, h: (0, 0, c))
  specs, args = pointwise.extras(
    case, operands, layout.channels, lambda n, c, h: c, of_out, layout.view
  )
  taps = layout.kernel[0] * layout.kernel[1]
  out = jax.ShapeDtypeStruct(layout.viewed(layout.out), x.dtype)
  y = pl.pallas_call(
    functools.partial(_kernel, case, layout, turned),
    grid=layout.grid,
    out_shape=out,
    in_specs=[*of_x, of_w, *specs],
    out_specs=of_out,
    scratch_shapes=[pltpu.VMEM(layout.scratch, jnp.float32)],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',) * 3),
    cost_estimate=pl.CostEstimate(
      flops=2 * taps * out.size,
      bytes_accessed=(x.size + out.size) * x.dtype.itemsize,
      transcendentals=0,
    ),
    name=NAME + ('_input_gradient' if turned else ''),
    interpret=interpret,
  )(*[layout.view(x)] * len(of_x), w.reshape(*layout.kernel, -1), *args)
  return layout.back(y)


def _kernel(case: Case, layout: Layout, turned: bool, *refs: Any):
  n_x = 3 if layout.halo else 1
  x_refs, (w_ref, *extra, y_ref, p_ref) = refs[:n_x], refs[n_x:]
  block = pl.program_id(2)
  halo.clear(layout, p_ref)

  def of_image(n, _):
    halo.fill(layout, block, x_refs, n, p_ref)

    def of_group(row, column, _):
      sums = _sums(layout, turned, w_ref, p_ref, row, column)
      columns = pl.ds(column, layout.chunk)
      for i, total in enumerate(sums):
        at = layout.at(n, row + i, columns)
        y_ref[at] = pointwise.finish(case, total, extra, at).astype(y_ref.dtype)

    halo.groups(layout, of_group)

  lax.fori_loop(0, 1 if layout.inner else layout.images, of_image, None)


def _sums(layout: Layout, turned: bool, w_ref, p_ref, row, column) -> list[Array]:
  """The rows of a group, each [chunk, .., channels] in float32.

  A column of taps is in registers while the rows of the scratch pass, each of which is
  loaded once and added to all rows of y that it is in.
  """
  height, width = layout.kernel
  shape = (layout.chunk, *layout.scratch[2:])
  sums: list[Any] = [None] * layout.group
  # A column that adds to the whole chunk comes first: there is nothing to clear then.
  length = lambda b: -(halo.span(layout, b)[1] - halo.span(layout, b)[0])
  for b in sorted(range(width), key=length):
    first, last = halo.span(layout, b)
    if first == last:
      continue
    of_tap = lambda a, b=b: (height - 1 - a, width - 1 - b) if turned else (a, b)
    taps = []
    for a in range(height):
      down, along = of_tap(a)
      tap = w_ref[down, pl.ds(along, 1)].astype(jnp.float32)
      taps.append(tap.reshape((1,) * (len(shape) - 1) + tap.shape[1:]))
    for r, uses in halo.tap_rows(layout):
      x = halo.load(layout, p_ref, row, column, r, b)
      for a, i in uses:
        term = x * taps[a]
        if sums[i] is None and x.shape == shape:
          sums[i] = term
          continue
        total = jnp.zeros(shape, jnp.float32) if sums[i] is None else sums[i]
        sums[i] = _add(total, term, first, last)
  return [jnp.zeros(shape, jnp.float32) if total is None else total for total in sums]


def _add(total: Array, part: Array, first: int, last: int) -> Array:
  """total with part added to its rows first to last."""
  if part.shape == total.shape:
    return total + part
  pieces = [total[:first], total[first:last] + part, total[last:]]
  return jnp.concatenate([piece for piece in pieces if piece.shape[0]])
