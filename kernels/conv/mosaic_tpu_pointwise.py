"""1x1 convolutions as a Pallas matrix product for TPUs, with what follows fused.

Images are on sublanes where XLA has them there (see mosaic_tpu_halo), else columns.
What is there is filled up in VMEM to whole tiles, so that a block [.., .., sublanes,
channels] is a matrix without a copy; what the extra rows of that matrix give is never
written. Products of float32 are exact to float32 (precision 'highest'), sums are in
float32.
"""

import functools
import math
from typing import Any, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from kernels.conv import epilogue
from kernels.conv.case import Case, Operands
from kernels.dispatch import Refusal, known

Array = jax.Array
SUBLANES = 8
ROWS = 512  # Of a block, as a matrix.
NAME = 'conv_1x1'


def bare(case: Case) -> Case:
  """The convolution alone."""
  return case._replace(scale=False, shift=False, residual=False, activation=None)


def extras(
  case: Case, operands: Any, block: int, channel: Any, of_out: pl.BlockSpec, view: Any
) -> tuple[list, list]:
  """(specs, arrays) of what follows the sum in `case`, for `finish`.

  Args:
    operands: Operands, or None for a bare case.
    block: channels of a block.
    channel: index of a step's block of channels, of the indices of the grid.
    of_out, view: of y.
  """
  specs, args = [], []
  for is_there, name in ((case.scale, 'scale_O'), (case.shift, 'shift_O')):
    if is_there:
      specs.append(pl.BlockSpec((1, block), lambda *ids: (0, channel(*ids))))
      args.append(getattr(operands, name).reshape(1, -1))
  if case.residual:
    specs.append(of_out)
    args.append(view(operands.residual))
  return specs, args


def finish(case: Case, total: Array, refs: Any, at: Any) -> Array:
  """The epilogue of float32 sums.

  Args:
    refs: of `extras`.
    at: index of the residual.
  """
  left = list(refs)
  scale = left.pop(0)[...] if case.scale else None
  shift = left.pop(0)[...] if case.shift else None
  residual = left.pop(0)[at].reshape(total.shape) if case.residual else None
  return epilogue.apply(case, total, scale, shift, residual)


class Blocks(NamedTuple):
  """Of an array [A, B, S, ..]: S on sublanes, and of as many as fill the last tile.

  Attributes:
    axes: [A, B, S] of [N, H, W], as XLA prefers it.
    shape: A, B, S.
    block: of them.
    k, n: channels of a block that are summed over, and that are given.
  """

  axes: tuple[int, ...]
  shape: tuple[int, ...]
  block: tuple[int, ...]
  k: int
  n: int

  @property
  def matrix(self) -> int:
    """Rows of a block as a matrix."""
    return math.prod(self.block)

  @property
  def grid(self) -> tuple[int, int, int]:
    a, b, s = (pl.cdiv(n, m) for n, m in zip(self.shape, self.block, strict=True))
    return a, b, s

  def view(self, x_NHWC: Array) -> Array:
    return x_NHWC.transpose(*self.axes, 3)

  def back(self, y: Array) -> Array:
    """[N, H, W, C] of what `view` gave."""
    return y.transpose(*(self.axes.index(axis) for axis in range(3)), 3)


def refusal(case: Case) -> Refusal | None:
  """Why a 1x1 `case` is not computed; None: it is."""
  if case.stride != (1, 1):
    return Refusal(f'stride={case.stride} of a 1x1 kernel', 'stride=1')
  if case.padding != ((0, 0), (0, 0)):
    return Refusal(f'padding={case.padding} of a 1x1 kernel', 'padding=0')
  return None


def _blocks(case: Case, k: int, n: int, config: Mapping[str, Any]) -> Blocks:
  """k channels are summed over, n given; config: rows, channels and features of one."""
  config = known(config, ('rows', 'channels', 'features'))
  axes = (1, 2, 0) if case.batch % SUBLANES == 0 else (0, 1, 2)
  shape = tuple((case.batch, case.height, case.width)[axis] for axis in axes)
  tile = 32 // jnp.dtype(case.dtype).itemsize
  left, block = config.get('rows') or ROWS, []
  for size, multiple in zip(shape[::-1], (tile, 1, 1), strict=True):
    full = pl.cdiv(size, multiple) * multiple
    block.insert(0, min(full, max(left // multiple * multiple, multiple)))
    left //= block[0]
  return Blocks(
    axes, shape, tuple(block), min(k, config.get('channels') or 1024),
    min(n, config.get('features') or 256),
  )  # fmt: skip


def forward(
  case: Case, operands: Operands, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """y [N, H, W, O] in the dtype of x."""
  x, w = operands.x_NHWC, operands.w_HWIO
  return _product(case, x, w, operands, False, interpret, config)


def input_gradient(
  case: Case, dy: Array, w: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  return _product(bare(case), dy, w, None, True, interpret, config)


def _product(case, x, w, operands, turned: bool, interpret, config) -> Array:
  """x @ w and the epilogue; `turned`: x @ w^T."""
  k, n = x.shape[3], case.channels if turned else case.features
  b = _blocks(case, k, n, config)
  of_out = pl.BlockSpec((*b.block, b.n), lambda i, j, s, o, c: (i, j, s, o))
  specs, args = extras(case, operands, b.n, lambda i, j, s, o, c: o, of_out, b.view)
  of_w = pl.BlockSpec((1, 1, b.k, b.n), lambda i, j, s, o, c: (0, 0, c, o))
  if turned:
    of_w = pl.BlockSpec((1, 1, b.n, b.k), lambda i, j, s, o, c: (0, 0, o, c))
  out = jax.ShapeDtypeStruct((*b.shape, n), x.dtype)
  y = pl.pallas_call(
    functools.partial(_kernel, case, b, k, turned),
    grid=(*b.grid, pl.cdiv(n, b.n), pl.cdiv(k, b.k)),
    out_shape=out,
    in_specs=[
      pl.BlockSpec((*b.block, b.k), lambda i, j, s, o, c: (i, j, s, c)), of_w, *specs
    ],
    out_specs=of_out,
    scratch_shapes=[pltpu.VMEM((b.matrix, b.n), jnp.float32)] * (b.k < k),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel',) * 4 + ('arbitrary',)
    ),
    cost_estimate=_cost(math.prod(b.shape) * k * n, x, w, out),
    name=NAME + ('_input_gradient' if turned else ''),
    interpret=interpret,
  )(b.view(x), w, *args)  # fmt: skip
  return b.back(y)


def _cost(products: int, *arrays: Any) -> pl.CostEstimate:
  moved = sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)
  return pl.CostEstimate(flops=2 * products, bytes_accessed=moved, transcendentals=0)


def _precision(dtype: Any) -> Any:
  return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _zero_from(x: Array, axis: int, stop: Any) -> Array:
  """x with 0 from index `stop` on."""
  return jnp.where(lax.broadcasted_iota(jnp.int32, x.shape, axis) < stop, x, 0)


def _kernel(case: Case, b: Blocks, k: int, turned: bool, x_ref, w_ref, *refs):
  def product(c):
    x_MK = x_ref[...].reshape(b.matrix, b.k)
    w = w_ref[0, 0]
    if k % b.k:  # What is beyond the last channel may be nan: both are cleared.
      x_MK = _zero_from(x_MK, 1, k - c * b.k)
      w = _zero_from(w, 1 if turned else 0, k - c * b.k)
    return lax.dot_general(
      x_MK,
      w,
      (((1,), (1 if turned else 0,)), ((), ())),
      precision=_precision(x_MK.dtype),
      preferred_element_type=jnp.float32,
    )

  def give(sum_MN, extra, y_ref):
    y_MN = finish(case, sum_MN, extra, ...)
    y_ref[...] = y_MN.astype(y_ref.dtype).reshape(y_ref.shape)

  if b.k == k:
    *extra, y_ref = refs
    return give(product(0), extra, y_ref)
  *extra, y_ref, sum_ref = refs
  c = pl.program_id(4)

  @pl.when(c == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  sum_ref[...] += product(c)

  @pl.when(c == pl.num_programs(4) - 1)
  def _():
    give(sum_ref[...], extra, y_ref)


def filter_gradient(
  case: Case, x: Array, dy: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dw [1, 1, C, O] in float32: x^T dy, summed over the rows block by block."""
  k, n = case.channels, case.features
  b = _blocks(case, k, n, config)
  b = b._replace(k=min(b.k, 512))
  out = jax.ShapeDtypeStruct((1, 1, k, n), jnp.float32)
  return pl.pallas_call(
    functools.partial(_filter_kernel, b),
    grid=(pl.cdiv(k, b.k), pl.cdiv(n, b.n), *b.grid),
    out_shape=out,
    in_specs=[
      pl.BlockSpec((*b.block, b.k), lambda c, o, i, j, s: (i, j, s, c)),
      pl.BlockSpec((*b.block, b.n), lambda c, o, i, j, s: (i, j, s, o)),
    ],
    out_specs=pl.BlockSpec((1, 1, b.k, b.n), lambda c, o, i, j, s: (0, 0, c, o)),
    scratch_shapes=[pltpu.VMEM((b.k, b.n), jnp.float32)],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel',) * 2 + ('arbitrary',) * 3
    ),
    cost_estimate=_cost(math.prod(b.shape) * k * n, x, dy, out),
    name=NAME + '_filter_gradient',
    interpret=interpret,
  )(b.view(x), b.view(dy))


def _filter_kernel(b: Blocks, x_ref, dy_ref, dw_ref, sum_ref):
  ids = [pl.program_id(axis) for axis in (2, 3, 4)]
  first, last = True, True
  for i, n in zip(ids, b.grid, strict=True):
    first, last = first & (i == 0), last & (i == n - 1)

  @pl.when(first)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  def matrix(ref):
    """With 0 in the rows that are not of the array: they may hold nan."""
    a = ref[...]
    for axis, (i, size, of) in enumerate(zip(ids, b.block, b.shape, strict=True)):
      if of % size:
        a = _zero_from(a, axis, of - i * size)
    return a.reshape(b.matrix, ref.shape[3])

  x_MK = matrix(x_ref)
  sum_ref[...] += lax.dot_general(
    x_MK,
    matrix(dy_ref),
    (((0,), (0,)), ((), ())),
    precision=_precision(x_MK.dtype),
    preferred_element_type=jnp.float32,
  )

  @pl.when(last)
  def _():
    dw_ref[0, 0] = sum_ref[...]
