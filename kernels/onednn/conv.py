"""The three products of a convolution as calls of oneDNN on the CPU.

Operands are float32 or bfloat16, both alike; sums are float32. Where the CPU has no
instructions for bfloat16 its products are computed in float32, at its speed.

Each is bilinear, and each is a derivative of the two others; dlx.layers.convolution
ties them together. Under vmap a call is made for each row.

A window of one pixel with strides is called without them, on the pixels that it meets:
with channels that do not fill a vector, oneDNN's filter gradient writes behind its
workspace there (uxlfoundation/oneDNN#6035; 3.2: wrong numbers, or it never returns).
"""

from typing import Sequence

import jax
import jax.numpy as jnp
import numpy as np

FORWARD, INPUT_GRADIENT, FILTER_GRADIENT = range(3)
Pairs = Sequence[tuple[int, int]]


def output_size(
  x_shape: Sequence[int],
  w_shape: Sequence[int],
  strides: Sequence[int],
  pads: Pairs,
  dilation: Sequence[int],
) -> tuple[int, int]:
  """Height and width of the output."""
  rows, columns = (
    (n + low + high - (d * (k - 1) + 1)) // s + 1
    for n, k, s, (low, high), d in zip(
      x_shape[1:3], w_shape[:2], strides, pads, dilation, strict=True
    )
  )
  return rows, columns


def _call(kind, a, b, out, x_shape, w_shape, strides, pads, dilation):
  size = output_size(x_shape, w_shape, strides, pads, dilation)
  groups = x_shape[3] // w_shape[2]
  geometry = (*x_shape, *w_shape[:2], w_shape[3], *size, *strides, *dilation)
  geometry += (*(side for pair in pads for side in pair), groups)
  return jax.ffi.ffi_call('dlx_onednn_conv', out, vmap_method='sequential')(
    a, b, geometry=np.array(geometry, np.int64), kind=np.int64(kind)
  )


def _met(window, strides, pads) -> bool:
  """Whether the pixels that a strided window of one pixel meets can be cut out."""
  one = tuple(window) == (1, 1) and not any(map(any, pads))
  return one and tuple(strides) != (1, 1)


def _cut(x, strides):
  return x[:, :: strides[0], :: strides[1]]


def forward(x, w, strides, pads, dilation, dtype=None):
  """x [N, H, W, I] convolved with w [KH, KW, I / groups, O]: [N, HO, WO, O].

  Args:
    x, w: of one dtype, float32 or bfloat16.
    strides, pads, dilation: of rows and columns.
    dtype: of the result, float32 or that of x; None: that of x.
  """
  if _met(w.shape[:2], strides, pads):
    x, strides = _cut(x, strides), (1, 1)
  size = output_size(x.shape, w.shape, strides, pads, dilation)
  out = jax.ShapeDtypeStruct((x.shape[0], *size, w.shape[3]), dtype or x.dtype)
  return _call(FORWARD, x, w, out, x.shape, w.shape, strides, pads, dilation)


def input_gradient(dy, w, size, strides, pads, dilation, groups=1):
  """The transpose of `forward` in x: dy [N, HO, WO, O] -> [N, *size, I] like dy."""
  if _met(w.shape[:2], strides, pads):
    dx = input_gradient(dy, w, dy.shape[1:3], (1, 1), pads, dilation, groups)
    # Between the pixels that were met, and behind them: zeros.
    rows = zip(size, dy.shape[1:3], strides, strict=True)
    inner = [(0, n - (s * (out - 1) + 1), s - 1) for n, out, s in rows]
    return jax.lax.pad(dx, dx.dtype.type(0), [(0, 0, 0), *inner, (0, 0, 0)])
  out = jax.ShapeDtypeStruct((dy.shape[0], *size, w.shape[2] * groups), dy.dtype)
  geometry = (out.shape, w.shape, strides, pads, dilation)
  return _call(INPUT_GRADIENT, dy, w, out, *geometry)


def filter_gradient(x, dy, window, strides, pads, dilation, groups=1):
  """The transpose of `forward` in w: x, dy -> float32 [*window, I / groups, O]."""
  if _met(window, strides, pads):
    x, strides = _cut(x, strides), (1, 1)
  shape = (*window, x.shape[3] // groups, dy.shape[3])
  out = jax.ShapeDtypeStruct(shape, jnp.float32)
  return _call(FILTER_GRADIENT, x, dy, out, x.shape, shape, strides, pads, dilation)
