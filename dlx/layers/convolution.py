"""Convolutions of layers by kernels.conv: as fast inside a loop or branch as outside.

On the CPU, inside a while body or a branch of cond, XLA leaves the dimension order of
a filter gradient as autodiff made it and falls back to a naive loop: 80 times slower
(28 x 28 x 32 -> 64 channels, batch 64, jax 0.10.2: 10.2 s against 0.12 s). kernels.conv
writes it as an ordinary convolution, and takes measured kernels where there are some.
A depthwise convolution and its input gradient are 3 to 500 times faster there as sums
of shifted products than by lax: kernels/conv/xla.py has the figures.

Where oneDNN is built (kernels/onednn), a CPU computes all three products of a float32
or bfloat16 convolution by it, in the same order of magnitude of rounding but not the
same bits.
"""

import functools
from typing import Any, Sequence

import flax.linen as nn
import jax
from jax import lax

from dlx.layers import mesh
from dlx.layers.bias import keep_bias_wide, narrow, written
from kernels.conv import conv2d
from kernels.conv.api import OPERATION
from kernels.conv.case import INPUT, describe

ROWS = (('data', 'fsdp'),)  # Where activations lie on a mesh.
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
  """`jax.lax.conv_general_dilated`, by kernels.conv where that computes it.

  On a mesh input and output lie by rows. Left to itself, XLA divides images by pixels
  where the layer before or after is divided so; where output channels are divided along
  the same axis and another axis is idle, it then adds up as many copies as that has
  devices: wrong by a factor (jax 0.10.2 and 0.11.2, eight simulated devices).

  Two spatial dimensions in NHWC x HWIO of one dtype, no dilation of the input, no
  cropping, the default precision; anything else is lax's own. Reverse mode only, of any
  order.
  """
  lhs = mesh.constrain(lhs, *ROWS)
  strides: Any = tuple(window_strides)
  dilation: Any = (1, 1) if rhs_dilation is None else tuple(rhs_dilation)
  pads = None
  ours = (
    lhs.ndim == 4
    and _is_nhwc(dimension_numbers, lhs.ndim)
    and batch_group_count == 1
    and (lhs_dilation is None or all(d == 1 for d in lhs_dilation))
    and preferred_element_type is None
    and precision is None
    and lhs.dtype == rhs.dtype
  )
  if ours:
    if isinstance(padding, str):
      window = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
      padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if min(map(min, pads)) < 0:
      pads = None
  if pads is None:
    out = lax.conv_general_dilated(
      lhs,
      rhs,
      window_strides,
      padding,
      lhs_dilation,
      rhs_dilation,
      dimension_numbers,
      feature_group_count,
      batch_group_count,
      precision,
      preferred_element_type,
    )
  else:
    out = conv2d(
      lhs,
      rhs,
      stride=strides,
      padding=pads,
      dilation=dilation,
      groups=feature_group_count,
    )
  return mesh.constrain(out, *ROWS)


def transposed_by_onednn(x: jax.Array, w: jax.Array, size, strides, pads) -> bool:
  """Whether a CPU computes kernels.conv.conv2d_transpose of x and w by oneDNN."""
  image = jax.ShapeDtypeStruct((x.shape[0], *size, w.shape[2]), x.dtype)
  case = describe(image, w, stride=strides, padding=pads).bare(INPUT)
  return OPERATION.choose(case, 'auto', 'cpu').name == 'onednn'


class Conv(nn.Conv):
  """`flax.linen.Conv` on `conv_general_dilated` of this module; names as of nn.Conv."""

  conv_general_dilated: Any = conv_general_dilated
  promote_dtype: Any = keep_bias_wide

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., H, W, C] -> [..., H', W', features]; as many spatial axes as the kernel."""
    return narrow(written(nn.Conv)(self, x), x, self.dtype, self.param_dtype)


@functools.cache
def _wanted(ndim: int) -> lax.ConvDimensionNumbers:
  return lax.conv_dimension_numbers((0,) * ndim, (0,) * ndim, _DIMENSIONS)


def _is_nhwc(dimension_numbers, ndim: int) -> bool:
  if dimension_numbers is None:
    return False
  if isinstance(dimension_numbers, lax.ConvDimensionNumbers):
    return dimension_numbers == _wanted(ndim)
  return tuple(dimension_numbers) == _DIMENSIONS
