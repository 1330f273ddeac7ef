"""What a convolution computes, by loops over the taps of the filter: the yardstick.

In float32 or wider. Any case, any derivative.
"""

from typing import Iterator

import jax
from jax import lax
import jax.numpy as jnp

from kernels.conv import epilogue
from kernels.conv.case import Case, Operands
from kernels.conv.epilogue import wide

Array = jax.Array


def refusal(case: Case) -> None:
  del case


def forward(case: Case, operands: Operands) -> Array:
  """y [N, H', W', O] in the dtype of x."""
  x, w = padded(case, wide(operands.x_NHWC)), wide(operands.w_HWIO)
  total = jnp.zeros(_split(case, case.out_shape), x.dtype)
  for kh, kw, seen in taps(case):
    x_NHWGC = x[seen].reshape(_split(case, case.out_shape[:3] + (case.channels,)))
    w_CGO = w[kh, kw].reshape(_split(case, w.shape[2:]))
    total += _product('nhwgc,cgo->nhwgo', x_NHWGC, w_CGO)
  total = total.reshape(case.out_shape)
  y = epilogue.apply(case, total, operands.scale_O, operands.shift_O, operands.residual)
  return y.astype(operands.x_NHWC.dtype)


def input_gradient(case: Case, dy: Array, w: Array) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  w_wide, dy_NHWGO = wide(w), wide(dy).reshape(_split(case, case.out_shape))
  size = (case.batch, case.height, case.width, case.channels)
  dx = padded(case, jnp.zeros(size, dy_NHWGO.dtype))
  for kh, kw, seen in taps(case):
    w_CGO = w_wide[kh, kw].reshape(_split(case, w.shape[2:]))
    part = _product('nhwgo,cgo->nhwgc', dy_NHWGO, w_CGO)
    dx = dx.at[seen].add(part.reshape(dx[seen].shape))
  (top, _), (left, _) = case.padding
  dx = dx[:, top : top + case.height, left : left + case.width]
  return dx.astype(dy.dtype)


def filter_gradient(case: Case, x: Array, dy: Array) -> Array:
  """dw [*kernel, C / groups, O] in float32 or wider."""
  x_padded, dy_NHWGO = (
    padded(case, wide(x)),
    wide(dy).reshape(_split(case, case.out_shape)),
  )
  parts = []
  for _, _, seen in taps(case):
    x_NHWGC = x_padded[seen].reshape(
      _split(case, case.out_shape[:3] + (case.channels,))
    )
    parts.append(_product('nhwgc,nhwgo->cgo', x_NHWGC, dy_NHWGO))
  shape = (*case.kernel, case.channels // case.groups, case.features)
  return jnp.stack(parts).reshape(shape)


def taps(case: Case) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
  """(row, column, the slices of the padded input that this tap of the filter sees)."""
  for kh in range(case.kernel[0]):
    for kw in range(case.kernel[1]):
      starts = (kh * case.dilation[0], kw * case.dilation[1])
      seen = tuple(
        slice(start, start + (n - 1) * stride + 1, stride) if n else slice(0)
        for start, n, stride in zip(starts, case.out_shape[1:3], case.stride)
      )
      yield kh, kw, (slice(None), *seen)


def padded(case: Case, x: Array) -> Array:
  """x with the zeros around it."""
  return lax.pad(
    x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in case.padding), (0, 0, 0))
  )


def _split(case: Case, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The last axis as groups and what is in one."""
  return (*shape[:-1], case.groups, shape[-1] // case.groups)


def _product(names: str, a: Array, b: Array) -> Array:
  return jnp.einsum(names, a, b, precision='highest')
