"""Residual networks (He et al., arXiv 1512.03385) for CIFAR and for ImageNet.

cifar_resnet(20)   20, 32, 44, 56, 110 ... layers: three stages of 16, 32, 64 channels
imagenet_resnet(50)   18, 34, 50, 101, 152: four stages of 64 to 512 channels
"""

import functools
from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm

BLOCKS = {  # Blocks a stage, and whether they are bottlenecks.
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}
# He et al. (arXiv 1502.01852): variance 2 / (inputs of a unit going backward).
_HE = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class ResNet(nn.Module):
  """Stem, stages of residual blocks, global average pool, Dense.

  The first block of each stage but the first halves height and width (rounded up).

  Attributes:
    blocks: residual blocks a stage.
    channels: of the stages; a bottleneck's output has four times as many.
    bottleneck: blocks of 1x1, 3x3, 1x1 instead of 3x3, 3x3; the stride lies in the
      3x3, as all libraries have it, where the paper has it in the first 1x1.
    num_outputs: K.
    stem: 'cifar', a 3x3 convolution; 'imagenet', 7x7 and a 3x3 max pool, both of
      stride 2.
    shortcut: where the shape changes: 'projection' (1x1 convolution and batch norm), or
      'pad' (every second pixel, channels of 0; no parameters), the paper's option A.
    skip: False: a plain network without shortcuts, to see what they are for.
    zero_init: the last batch norm of a block starts at 0, so that the block starts as
      the identity (arXiv 1706.02677).
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  blocks: Sequence[int]
  channels: Sequence[int]
  bottleneck: bool = False
  num_outputs: int = 10
  stem: str = 'cifar'
  shortcut: str = 'projection'
  skip: bool = True
  zero_init: bool = True
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      train: use and update statistics of the batch (collection 'batch_stats').
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the mean over all positions."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    conv: Any = functools.partial(Conv, use_bias=False, kernel_init=_HE, **dtypes)
    norm: Any = functools.partial(
      BatchNorm,
      use_running_average=not train,
      momentum=self.momentum,
      epsilon=1e-5,
      **dtypes,
    )
    if self.stem == 'imagenet':
      x_BHWC = conv(self.channels[0], (7, 7), (2, 2), padding=3, name='stem')(x_BHWC)
      x_BHWC = norm(leak=0.0, name='stem_norm')(x_BHWC)
      pad: Any = ((1, 1), (1, 1))
      x_BHWC = nn.max_pool(x_BHWC, (3, 3), strides=(2, 2), padding=pad)
    else:
      x_BHWC = conv(self.channels[0], (3, 3), padding=1, name='stem')(x_BHWC)
      x_BHWC = norm(leak=0.0, name='stem_norm')(x_BHWC)
    for i, (count, width) in enumerate(zip(self.blocks, self.channels, strict=True)):
      for j in range(count):
        x_BHWC = ResidualBlock(
          channels=width,
          stride=2 if i > 0 and j == 0 else 1,
          bottleneck=self.bottleneck,
          shortcut=self.shortcut,
          skip=self.skip,
          zero_init=self.zero_init,
          conv=conv,
          norm=norm,
          name=f'stage{i + 1}_block{j + 1}',
        )(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    head = nn.Dense(
      self.num_outputs, dtype=wide, param_dtype=self.param_dtype, name='head'
    )
    return head(x_BC), x_BC


class ResidualBlock(nn.Module):
  """relu(x + f(x)), f of two or (bottleneck) three convolutions with batch norm.

  See ResNet for the attributes; `conv` and `norm` make the layers.
  """

  channels: int
  stride: int
  bottleneck: bool
  shortcut: str
  skip: bool
  zero_init: bool
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    last = zeros if self.zero_init and self.skip else ones
    strides = (self.stride, self.stride)
    outputs = self.channels * (4 if self.bottleneck else 1)
    if self.bottleneck:
      layers = ((self.channels, 1, 1), (self.channels, 3, self.stride), (outputs, 1, 1))
    else:
      layers = ((self.channels, 3, self.stride), (outputs, 3, 1))
    y = x_BHWC
    for n, (width, size, stride) in enumerate(layers, 1):
      y = self.conv(
        width, (size, size), (stride, stride), padding=size // 2, name=f'conv{n}'
      )(y)
      ends = n == len(layers)
      if not ends:
        y = self.norm(leak=0.0, name=f'norm{n}')(y)
    end = self.norm(leak=0.0, scale_init=last, name=f'norm{len(layers)}')
    if not self.skip:
      return end(y)
    if y.shape != x_BHWC.shape:
      if self.shortcut == 'pad':
        more = outputs - x_BHWC.shape[-1]
        x_BHWC = x_BHWC[:, :: self.stride, :: self.stride]
        # Half of the new channels on either side, as the authors' code has it.
        x_BHWC = jnp.pad(x_BHWC, ((0, 0),) * 3 + ((more // 2, more - more // 2),))
      else:
        x_BHWC = self.conv(outputs, (1, 1), strides, padding=0, name='skip')(x_BHWC)
        x_BHWC = self.norm(name='skip_norm')(x_BHWC)
    return end(y, x_BHWC)


def cifar_resnet(depth: int, *, width: int = 16, **fields: Any) -> ResNet:
  """The CIFAR family, 6 n + 2 layers: 20, 32, 44, 56, 110.

  Args:
    depth: layers with weights, 6 n + 2; the paper's parameter counts with
      shortcut='pad': 0.27 M at 20, 0.46 M at 32, 0.66 M at 44, 0.85 M at 56 and 1.7 M
      at 110.
    width: channels of the first stage; 16 in the paper.
    fields: of ResNet; shortcut is 'pad' unless given.

  Raises:
    ConfigError: a depth of another form.
  """
  if depth < 8 or depth % 6 != 2:
    raise ConfigError(
      f'depth={depth} is not allowed for a CIFAR ResNet: must be 6 n + 2 with n at '
      'least 1, such as 20, 32, 44, 56 or 110.'
    )
  fields = {'shortcut': 'pad', 'stem': 'cifar', **fields}
  channels = (width, 2 * width, 4 * width)
  return ResNet(blocks=(depth // 6,) * 3, channels=channels, **fields)


def imagenet_resnet(depth: int, *, width: int = 64, **fields: Any) -> ResNet:
  """The ImageNet family: 18, 34, 50, 101, 152 layers.

  Args:
    width: channels of the first stage; 64 in the paper.
    fields: of ResNet; stem is 'imagenet' unless given: 'cifar' for 32 x 32 images.

  Raises:
    ConfigError: another depth.
  """
  if depth not in BLOCKS:
    raise ConfigError(
      f'depth={depth} is not allowed for an ImageNet ResNet: must be one of '
      f'{", ".join(map(str, BLOCKS))}.'
    )
  blocks, bottleneck = BLOCKS[depth]
  fields = {'stem': 'imagenet', **fields}
  channels = tuple(width * 2**i for i in range(4))
  return ResNet(blocks=blocks, channels=channels, bottleneck=bottleneck, **fields)
