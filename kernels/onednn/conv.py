"""The three products of a convolution as calls of oneDNN on the CPU, float32.

Each is bilinear, and each is a derivative of the two others; dlx.layers.convolution
ties them together. Under vmap a call is made for each row.
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


def _call(kind, a, b, out_shape, x_shape, w_shape, strides, pads, dilation):
  size = output_size(x_shape, w_shape, strides, pads, dilation)
  geometry = (*x_shape, *w_shape[:2], w_shape[3], *size, *strides, *dilation)
  geometry += tuple(side for pair in pads for side in pair)
  return jax.ffi.ffi_call(
    'dlx_onednn_conv',
    jax.ShapeDtypeStruct(tuple(out_shape), jnp.float32),
    vmap_method='sequential',
  )(a, b, geometry=np.array(geometry, np.int64), kind=np.int64(kind))


def forward(x, w, strides, pads, dilation):
  """x [N, H, W, I] convolved with w [KH, KW, I, O]: [N, HO, WO, O]."""
  size = output_size(x.shape, w.shape, strides, pads, dilation)
  shape = (x.shape[0], *size, w.shape[3])
  return _call(FORWARD, x, w, shape, x.shape, w.shape, strides, pads, dilation)


def input_gradient(dy, w, size, strides, pads, dilation):
  """The transpose of `forward` in x: dy [N, HO, WO, O] -> [N, *size, I]."""
  shape = (dy.shape[0], *size, w.shape[2])
  return _call(INPUT_GRADIENT, dy, w, shape, shape, w.shape, strides, pads, dilation)


def filter_gradient(x, dy, window, strides, pads, dilation):
  """The transpose of `forward` in w: x, dy -> [*window, I, O]."""
  shape = (*window, x.shape[3], dy.shape[3])
  return _call(FILTER_GRADIENT, x, dy, shape, x.shape, shape, strides, pads, dilation)
