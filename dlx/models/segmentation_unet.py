"""U-Net for segmentation (Ronneberger et al., arXiv:1505.04597): a class a pixel.

UNetBody          from an image to a map of features with as many pixels
SegmentationUNet  the same, and a 1x1 convolution to the logits of each pixel

The published net has channels (64, 128, 256, 512, 1024): 31,030,658 parameters for one
input channel and two classes. Its convolutions have no padding, so that its output is
smaller than its input; here they are padded ('same'), which changes no parameter. With
a time, and attention, it is another net: dlx/models/unet.py.
"""

import functools
from typing import Any, Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense, rows_dot_general
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import max_pool
from dlx.layers.upsampling import depth_to_space

Array = jax.Array


class UpConv(nn.Module):
  """Transposed convolution, 2x2 with stride 2: `y[2i+a, 2j+b] = x[i, j] @ k[a, b] + c`.

  Patches do not overlap, so that it is one product and a rearrangement of its results.

  Attributes:
    features: O, output channels.
    dtype: of the arithmetic.
    param_dtype: of the kernel [2, 2, I, O] and the bias [O].
  """

  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: Array) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, features]."""
    channels, features = x_BHWC.shape[-1], self.features
    # He et al. with fan in C: each output pixel is the product with one C x O matrix.
    begin = nn.initializers.variance_scaling(
      2.0, 'fan_in', 'normal', in_axis=2, out_axis=3, batch_axis=(0, 1)
    )
    kernel = self.param('kernel', begin, (2, 2, channels, features), self.param_dtype)
    bias = self.param('bias', nn.initializers.zeros, (features,), self.param_dtype)
    matrix = kernel.astype(self.dtype).transpose(2, 0, 1, 3).reshape(channels, -1)
    y = rows_dot_general(x_BHWC.astype(self.dtype), matrix, (((3,), (0,)), ((), ())))
    return depth_to_space(y, 2) + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class UNetBody(nn.Module):
  """A contracting and an expanding path with skips: [B, H, W, C] -> [B, h, w, F].

  Each level is two 3x3 convolutions with ReLU, `down_0_0`, `down_0_1`; a 2x2 max pool
  leads to the next, where there are usually twice as many channels. On the way back
  `up_conv_i` doubles the sides and brings the channels to those of level i, the map of
  that level is concatenated before it, and `up_i_0`, `up_i_1` follow. The way back ends
  at level `last`, so that h = H / 2^last and F = channels[last].

  Attributes:
    channels: of each level from the finest on; their number is the depth.
    batch_norm: between each convolution and its ReLU, in place of its bias.
    dropout: share of the features of the coarsest level dropped in training.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
    last: 0, the finest, to the number of levels less 1: no way back.
  """

  channels: Sequence[int] = (64, 128, 256, 512, 1024)
  batch_norm: bool = False
  dropout: float = 0.0
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  last: int = 0

  @nn.compact
  def __call__(self, x_BHWC: Array, *, train: bool) -> Array:
    """Features [B, H / 2^last, W / 2^last, channels[last]].

    Args:
      x_BHWC: height and width multiples of 2^(levels - 1).
      train: drop features (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: a size that the levels do not divide.
    """
    chex.assert_rank(x_BHWC, 4)
    height, width = x_BHWC.shape[1:3]
    multiple = 2 ** (len(self.channels) - 1)
    if height % multiple or width % multiple:
      raise ConfigError(
        f'Images of {height} x {width} are not allowed: with {len(self.channels)} '
        f'levels both must be multiples of {multiple}: take fewer levels (channels), '
        'or other sizes.'
      )
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    conv: Any = functools.partial(
      Conv,
      kernel_size=(3, 3),
      use_bias=not self.batch_norm,
      kernel_init=nn.initializers.he_normal(),
      **dtypes,
    )
    norm: Any = functools.partial(
      BatchNorm,
      use_running_average=not train,
      momentum=self.momentum,
      epsilon=1e-5,
      leak=0.0,
      **dtypes,
    )

    def twice(x, channels, where):
      for i in range(2):
        x = conv(channels, name=f'{where}_{i}')(x)
        x = norm(name=f'{where}_norm_{i}')(x) if self.batch_norm else nn.relu(x)
      return x

    x, skips = jnp.asarray(x_BHWC, self.dtype), []
    for level, channels in enumerate(self.channels):
      if level:
        skips.append(x)
        x = max_pool(x)
      x = twice(x, channels, f'down_{level}')
    x = nn.Dropout(self.dropout, deterministic=not train, name='drop')(x)
    for level in reversed(range(self.last, len(self.channels) - 1)):
      channels = self.channels[level]
      x = UpConv(channels, name=f'up_conv_{level}', **dtypes)(x)
      x = jnp.concatenate([skips.pop(), x], axis=-1)
      x = twice(x, channels, f'up_{level}')
    return x


class SegmentationUNet(nn.Module):
  """`UNetBody`, and the logits of each pixel.

  Attributes:
    num_outputs: K.
    channels, batch_norm, dropout, momentum: see `UNetBody`.
    dtype: of the arithmetic; the head is at least float32.
    param_dtype: of the parameters.
  """

  num_outputs: int
  channels: Sequence[int] = (64, 128, 256, 512, 1024)
  batch_norm: bool = False
  dropout: float = 0.0
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: Array, *, train: bool) -> Array:
    """Logits [B, H, W, K], float32 or wider; arguments and errors as of `UNetBody`."""
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: Array, train: bool = False) -> Array:
    """What `head` reads, [B, H, W, channels[0]]."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: Array, train: bool) -> tuple[Array, Array]:
    """Logits and features."""
    body = UNetBody(
      self.channels,
      self.batch_norm,
      self.dropout,
      self.momentum,
      self.dtype,
      self.param_dtype,
      name='body',
    )
    x = body(x_BHWC, train=train)
    head = Dense(  # A 1x1 convolution.
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(x), x
