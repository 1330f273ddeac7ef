"""Layers that double height and width, and the rearrangements they are made of.

depth_to_space    [B, H, W, s*s*C] -> [B, s*H, s*W, C], and space_to_depth back
conv_transpose_2x transposed convolution, 4x4, stride 2, padding 1: the map of torch's
                  ConvTranspose2d(4, 2, 1) and of flax's ConvTranspose((4, 4), (2, 2))
ConvTranspose2x   the layer, with the parameters of flax's

A transposed convolution is written as one product of matrices and sums of overlapping
patches. XLA's derivative of its own in the kernel is a convolution dilated on both
sides, for which the CPU has a naive loop: value and both gradients of [64, 7, 7, 128]
to 64 channels take 8 ms here and 110 ms with nn.ConvTranspose, [64, 14, 14, 64] to 32
channels 17 and 159 ms. Without the gradients it is as fast or faster: 3 and 4 ms, 10
and 5 ms. Two cores, float32, jax 0.10.2, best of 7, November 2026.
"""

from typing import Any, Callable

import chex
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.bias import add_bias
from dlx.layers.convolution import transposed_by_onednn
from kernels.conv import conv2d_transpose

Array = jax.Array
KERNEL = (4, 4)  # Height and width of the window.


def depth_to_space(x_BHWC: Array, factor: int = 2) -> Array:
  """Channels to pixels: [B, H, W, s*s*C] -> [B, s*H, s*W, C], s the factor.

  Pixel (s*i + a, s*j + b) of channel c is channel (s*a + b) * C + c of pixel (i, j), as
  in TensorFlow (torch's pixel_shuffle counts c * s*s + s*a + b).

  Raises:
    ConfigError: channels that s*s does not divide.
  """
  chex.assert_rank(x_BHWC, 4)
  b, h, w, c = x_BHWC.shape
  s = _factor(factor)
  if c % (s * s):
    raise ConfigError(
      f'depth_to_space of {c} channels is not allowed with factor={s}: must be a '
      f'multiple of {s * s}.'
    )
  parts = x_BHWC.reshape(b, h, w, s, s, c // (s * s))
  return parts.transpose(0, 1, 3, 2, 4, 5).reshape(b, s * h, s * w, c // (s * s))


def space_to_depth(x_BHWC: Array, factor: int = 2) -> Array:
  """Pixels to channels: the inverse of `depth_to_space`.

  Raises:
    ConfigError: height or width that the factor does not divide.
  """
  chex.assert_rank(x_BHWC, 4)
  b, h, w, c = x_BHWC.shape
  s = _factor(factor)
  if h % s or w % s:
    raise ConfigError(
      f'space_to_depth of {h} x {w} pixels is not allowed with factor={s}: both must '
      f'be multiples of {s}.'
    )
  parts = x_BHWC.reshape(b, h // s, s, w // s, s, c)
  return parts.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // s, w // s, s * s * c)


def conv_transpose_2x(x_BHWI: Array, kernel_hwIO: Array) -> Array:
  """Transposed convolution that doubles height and width.

  `y[2i + 2 - a, 2j + 2 - b] += x[i, j] @ kernel[a, b]` for a, b in 0..3; what falls
  outside is dropped.

  Args:
    x_BHWI: [B, H, W, I].
    kernel_hwIO: [4, 4, I, O]; that of torch with height and width reversed.

  Returns:
    [B, 2H, 2W, O].
  """
  chex.assert_rank([x_BHWI, kernel_hwIO], 4)
  chex.assert_shape(kernel_hwIO, (*KERNEL, x_BHWI.shape[3], None))
  b, h, w, _ = x_BHWI.shape
  pads, size = ((1, 1), (1, 1)), (2 * h, 2 * w)

  def patches(x, kernel):
    # Every pixel makes a patch of 4 x 4 pixels; patches overlap by half.
    x = lax.dot_general(x, kernel, (((3,), (2,)), ((), ())))  # [B, H, W, 4, 4, O]
    x = _overlap_add(x, axis=1, window_axis=3)  # [B, H, 2, W, 4, O]
    x = _overlap_add(x, axis=3, window_axis=4)  # [B, H, 2, W, 2, O]
    return x.reshape(b, 2 * h, 2 * w, kernel.shape[3])

  def onednn(x, kernel):
    # The transpose in its input of a convolution from O to I channels.
    kernel_hwOI = kernel[::-1, ::-1].swapaxes(2, 3)
    return conv2d_transpose(x, kernel_hwOI, size, stride=2, padding=pads)

  kernel_hwOI = jax.eval_shape(lambda k: k.swapaxes(2, 3), kernel_hwIO)
  if not transposed_by_onednn(x_BHWI, kernel_hwOI, size, (2, 2), pads):
    return patches(x_BHWI, kernel_hwIO)
  return lax.platform_dependent(x_BHWI, kernel_hwIO, cpu=onednn, default=patches)


def _overlap_add(x: Array, axis: int, window_axis: int) -> Array:
  """Sums patches along one axis; a window of 4 becomes two phases after that axis.

  Output 2i takes row 2 of patch i and row 0 of patch i - 1; output 2i + 1 takes row 1
  of patch i and row 3 of patch i + 1.
  """
  row = lambda a: lax.index_in_dim(x, a, window_axis, keepdims=False)

  def shifted(y, by):
    pads = [(0, 0, 0)] * y.ndim
    pads[axis] = (by, -by, 0)
    return lax.pad(y, jnp.zeros((), y.dtype), pads)

  even = row(2) + shifted(row(0), 1)
  odd = row(1) + shifted(row(3), -1)
  return jnp.stack([even, odd], axis + 1)


class ConvTranspose2x(nn.Module):
  """`conv_transpose_2x` with a kernel and a bias of its own.

  The parameters have names, shapes and meaning of flax's
  `nn.ConvTranspose(features, (4, 4), (2, 2))`.

  Attributes:
    features: O, output channels.
    use_bias: leave it out before batch norm.
    kernel_init: of the kernel [4, 4, I, O].
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  features: int
  use_bias: bool = True
  kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: Array) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, features]."""
    shape = (*KERNEL, x_BHWC.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    y = conv_transpose_2x(x_BHWC.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias:
      bias = self.param(
        'bias', nn.initializers.zeros, (self.features,), self.param_dtype
      )
      y = add_bias(y, bias)
    return y


def _factor(factor: int) -> int:
  if factor < 1:
    raise ConfigError(f'factor={factor} is not allowed: must be at least 1.')
  return factor
