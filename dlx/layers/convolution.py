"""Convolution whose filter gradient is as fast inside a loop or branch as outside.

On the CPU, inside a while body or a branch of cond, XLA leaves the dimension order of
a filter gradient as autodiff made it and falls back to a naive loop: 80 times slower
(28 x 28 x 32 -> 64 channels, batch 64, jax 0.10.2: 10.2 s against 0.12 s). Written as
an ordinary convolution (transpose both operands, convolve NHWC x HWIO, transpose back)
it has the same values and the same speed everywhere. Other platforms keep autodiff's.

Where oneDNN is built (kernels/onednn), a CPU computes all three products of a float32
convolution by it, in the same order of magnitude of rounding but not the same bits.
"""

import functools
from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
from jax import lax

from kernels.onednn import conv, library

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: Any = None,
  preferred_element_type: Any = None,
) -> jax.Array:
  """`jax.lax.conv_general_dilated`, with the filter gradient of this module.

  Two spatial dimensions in NHWC x HWIO, one group, no dilation of the input; anything
  else is lax's own. Reverse mode only, of any order.
  """
  plain = functools.partial(
    lax.conv_general_dilated,
    lhs_dilation=lhs_dilation,
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    batch_group_count=batch_group_count,
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  ours = (
    lhs.ndim == 4
    and _is_nhwc(dimension_numbers, lhs.ndim)
    and feature_group_count == batch_group_count == 1
    and (lhs_dilation is None or all(d == 1 for d in lhs_dilation))
    and preferred_element_type is None
  )
  if not ours:
    return plain(lhs, rhs, window_strides, padding, rhs_dilation=rhs_dilation)
  strides = tuple(window_strides)
  dilation = (1, 1) if rhs_dilation is None else tuple(rhs_dilation)
  if isinstance(padding, str):
    window = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
    padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
  pads = tuple((int(low), int(high)) for low, high in padding)
  return _conv(lhs, rhs, _Geometry(strides, pads, dilation, precision))


def transposed_by_onednn(x: jax.Array, w: jax.Array, pads) -> bool:
  """Whether `conv_transpose` of x and w would be oneDNN's on a CPU."""
  shape = (*x.shape[:3], w.shape[2])
  return _onednn(shape, w.shape, x.dtype, _Geometry((1, 1), pads, (1, 1), None))


def conv_transpose(x: jax.Array, w: jax.Array, size, strides, pads) -> jax.Array:
  """The transpose of a convolution in its input, [B, h, w, O] -> [B, *size, I].

  `size` are height and width of that input, w [kh, kw, I, O] its kernel.
  """
  return _input_gradient(x, w, tuple(size), _Geometry(strides, pads, (1, 1), None))


class Conv(nn.Conv):
  """`flax.linen.Conv` on `conv_general_dilated` of this module; names as of nn.Conv."""

  conv_general_dilated: Any = conv_general_dilated


def _is_nhwc(dimension_numbers, ndim: int) -> bool:
  if dimension_numbers is None:
    return False
  if isinstance(dimension_numbers, lax.ConvDimensionNumbers):
    wanted = lax.conv_dimension_numbers((0,) * ndim, (0,) * ndim, _DIMENSIONS)
    return dimension_numbers == wanted
  return tuple(dimension_numbers) == _DIMENSIONS


class _Geometry(NamedTuple):
  """What is static in a convolution; hashable."""

  strides: tuple[int, ...]
  pads: tuple[tuple[int, int], ...]
  dilation: tuple[int, ...]
  precision: Any


def _lax(x, w, g: _Geometry):
  return lax.conv_general_dilated(
    x,
    w,
    g.strides,
    g.pads,
    rhs_dilation=g.dilation,
    dimension_numbers=_DIMENSIONS,
    precision=g.precision,
  )


def _onednn(x_shape, w_shape, dtype, g: _Geometry) -> bool:
  """Whether oneDNN computes this one on a CPU."""
  return conv.supports(x_shape, w_shape, dtype, g.pads) and library.usable()


# The three are each linear in both arguments and derivatives of each other, so that
# reverse mode of any order stays among them.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, w, g: _Geometry):
  cpu = lambda x, w: _lax(x, w, g)
  if _onednn(x.shape, w.shape, x.dtype, g):
    cpu = lambda x, w: conv.forward(x, w, g.strides, g.pads, g.dilation)
  return lax.platform_dependent(x, w, cpu=cpu, default=lambda x, w: _lax(x, w, g))


def _conv_backward(g, residuals, dy):
  x, w = residuals
  dx = _input_gradient(dy, w, x.shape[1:3], g)
  return dx, _filter_gradient(x, dy, w.shape[:2], g)


_conv.defvjp(lambda x, w, g: (_conv(x, w, g), (x, w)), _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(dy, w, size, g: _Geometry):
  """dx [N, *size, I] of dy [N, HO, WO, O]."""
  x = jax.ShapeDtypeStruct((dy.shape[0], *size, w.shape[2]), dy.dtype)

  def transpose(dy, w):
    return jax.linear_transpose(lambda x: _lax(x, w, g), x)(dy)[0]

  cpu = transpose
  if _onednn(x.shape, w.shape, dy.dtype, g):
    cpu = lambda dy, w: conv.input_gradient(dy, w, size, g.strides, g.pads, g.dilation)
  return lax.platform_dependent(dy, w, cpu=cpu, default=transpose)


def _input_backward(size, g, residuals, ct):
  del size
  dy, w = residuals
  return _conv(ct, w, g), _filter_gradient(ct, dy, w.shape[:2], g)


_input_gradient.defvjp(
  lambda dy, w, size, g: (_input_gradient(dy, w, size, g), (dy, w)), _input_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _filter_gradient(x, dy, window, g: _Geometry):
  """dw [*window, I, O]."""
  w = jax.ShapeDtypeStruct((*window, x.shape[3], dy.shape[3]), x.dtype)

  def canonical(x, dy):
    # dw[u] = sum_i x[i s + u d - p] dy[i]: x convolved with dy, strides and dilation
    # exchanged; the padding at the end is what leaves k outputs (it may be negative).
    ends = tuple(
      (p[0], d * (k - 1) + 1 + s * (n_out - 1) - n_in - p[0])
      for p, d, s, k, n_in, n_out in zip(
        g.pads, g.dilation, g.strides, window, x.shape[1:3], dy.shape[1:3], strict=True
      )
    )
    x_CHWB, dy_HWBO = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    swapped = _Geometry(g.dilation, ends, g.strides, g.precision)
    return _lax(x_CHWB, dy_HWBO, swapped).transpose(1, 2, 0, 3)

  def native(x, dy):
    return jax.linear_transpose(lambda w: _lax(x, w, g), w)(dy)[0]

  cpu = canonical
  if _onednn(x.shape, w.shape, x.dtype, g):
    cpu = lambda x, dy: conv.filter_gradient(
      x, dy, window, g.strides, g.pads, g.dilation
    )
  return lax.platform_dependent(x, dy, cpu=cpu, default=native)


def _filter_backward(window, g, residuals, ct):
  del window
  x, dy = residuals
  return _input_gradient(dy, ct, x.shape[1:3], g), _conv(x, ct, g)


_filter_gradient.defvjp(
  lambda x, dy, window, g: (_filter_gradient(x, dy, window, g), (x, dy)),
  _filter_backward,
)
