"""Nets of inverted residual blocks: what MobileNet v2 and EfficientNet have in common.

  expand     1 x 1 to `expansion` times the channels; left out where that is 1
  depthwise  one filter a channel
  squeeze    the channels' means weigh the channels (arXiv:1709.01507), EfficientNet
  project    1 x 1 to the output channels, without an activation

each with batch norm but for `squeeze`, and the input added where it has the shape of
the output. Narrow between the blocks, wide within, the other way round than a
bottleneck of a ResNet.
"""

import functools
from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.dropout import DropPath
from dlx.models.net_layers import conv_and_norm, output_layer

# Flax takes the fan of a depthwise filter going backward for that of all channels: this
# is the variance of the others, of its inputs going forward.
_HE_DEPTHWISE = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class Stage(NamedTuple):
  """Blocks of one number of output channels; the first has the stride.

  Attributes:
    expansion: channels within a block over those of its input.
    channels: of the output of each block.
    blocks: their number, at least 1.
    stride: of the depthwise convolution of the first.
    kernel: side of the depthwise filters.
  """

  expansion: int
  channels: int
  blocks: int
  stride: int
  kernel: int = 3


class InvertedResidualNet(nn.Module):
  """Stem, stages, a 1 x 1 convolution, mean over all positions, dropout, Dense.

  Convolutions have (kernel - 1) / 2 of padding on all sides, so that a stride halves
  height and width, rounded up.

  Attributes:
    stages: from the first on.
    stem: channels of the first convolution, 3 x 3.
    stem_stride: of that.
    last: channels of the convolution before the mean.
    num_outputs: K.
    activation: 'relu6' or 'silu'.
    squeeze: channels within `squeeze` over those of the input of the block, rounded
      down; 0: blocks without it.
    dropout: share of `last` that is dropped in training.
    drop_path: of the branch of the last block, were there one more, in training; rising
      evenly from 0 at the first (arXiv:1603.09382).
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    epsilon: of the batch norms.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  stages: Sequence[Stage]
  stem: int = 32
  stem_stride: int = 2
  last: int = 1280
  num_outputs: int = 10
  activation: str = 'relu6'
  squeeze: float = 0.0
  dropout: float = 0.2
  drop_path: float = 0.0
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      train: drop units and branches (rng 'dropout'), use and update statistics of the
        batch (collection 'batch_stats').
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads, before dropout [B, last]: the mean over all positions."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    conv, norm = conv_and_norm(self, train, epsilon=self.epsilon)
    layers = _Layers(conv, norm, self.activation)
    strides = (self.stem_stride,) * 2
    x_BHWC = layers.activated(x_BHWC, self.stem, (3, 3), 'stem', strides=strides)
    total, number = sum(stage.blocks for stage in self.stages), 0
    for i, stage in enumerate(self.stages, 1):
      for j in range(1, stage.blocks + 1):
        x_BHWC = InvertedResidual(
          stage=stage if j == 1 else stage._replace(stride=1),
          layers=layers,
          squeeze=int(self.squeeze * x_BHWC.shape[-1]),
          drop_path=self.drop_path * number / total,
          deterministic=not train,
          name=f'stage{i}_block{j}',
        )(x_BHWC)
        number += 1
    x_BHWC = layers.activated(x_BHWC, self.last, (1, 1), 'last')
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    kept_BC = nn.Dropout(self.dropout, deterministic=not train)(x_BC)
    return output_layer(self)(kept_BC), x_BC


class _Layers(NamedTuple):
  """What makes layers: `conv` without a bias, `norm`, and the activation's name."""

  conv: Any
  norm: Any
  activation: str

  def activated(self, x, features, kernel, name, **options):
    """Convolution `name`, batch norm `name`_norm, activation."""
    padding = [((k - 1) // 2,) * 2 for k in kernel]
    x = self.conv(features, kernel, padding=padding, name=name, **options)(x)
    if self.activation == 'silu':
      return nn.silu(self.norm(name=f'{name}_norm')(x))
    assert self.activation == 'relu6', self.activation
    return jnp.minimum(self.norm(leak=0.0, name=f'{name}_norm')(x), 6)


class InvertedResidual(nn.Module):
  """One block; see the module.

  Attributes:
    stage: that it belongs to, with its own stride.
    layers: what makes its layers.
    squeeze: channels within `squeeze`; 0: none.
    drop_path: rate at which the branch of an example is dropped.
    deterministic: nothing is dropped.
  """

  stage: Stage
  layers: Any
  squeeze: int
  drop_path: float
  deterministic: bool

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    stage, layers = self.stage, self.layers
    inputs = x_BHWC.shape[-1]
    wide = inputs * stage.expansion
    y = x_BHWC
    if stage.expansion != 1:
      y = layers.activated(y, wide, (1, 1), 'expand')
    y = layers.activated(
      y,
      wide,
      (stage.kernel, stage.kernel),
      'depthwise',
      strides=(stage.stride, stage.stride),
      feature_group_count=wide,
      kernel_init=_HE_DEPTHWISE,
    )
    if self.squeeze:
      y = SqueezeExcite(self.squeeze, layers.conv, name='squeeze')(y)
    y = layers.conv(stage.channels, (1, 1), name='project')(y)
    y = layers.norm(name='project_norm')(y)
    if y.shape != x_BHWC.shape:
      return y
    if self.drop_path:
      y = DropPath(self.drop_path, self.deterministic)(y)
    return x_BHWC + y


class SqueezeExcite(nn.Module):
  """Channels times sigmoid(expand(silu(reduce(their means)))), arXiv:1709.01507.

  Attributes:
    channels: of `reduce`.
    conv: makes convolutions.
  """

  channels: int
  conv: Any

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    conv = functools.partial(self.conv, use_bias=True)
    wide = jnp.promote_types(x_BHWC.dtype, jnp.float32)
    s = x_BHWC.astype(wide).mean((1, 2), keepdims=True).astype(x_BHWC.dtype)
    s = nn.silu(conv(self.channels, (1, 1), name='reduce')(s))
    s = conv(x_BHWC.shape[-1], (1, 1), name='expand')(s)
    return x_BHWC * nn.sigmoid(s)


def rounded(channels: float, divisor: int = 8) -> int:
  """The multiple of `divisor` nearest to `channels`, one at least, half of it upward.

  The next one where that is more than a tenth below `channels`; so do the authors of
  both nets (their code; the papers do not say).
  """
  nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
  return nearest + divisor if nearest < 0.9 * channels else nearest


def strides_for(side: int, strides: Sequence[int], least: int = 4) -> tuple[int, ...]:
  """The strides of a paper for smaller images: the first are 1, as many as needed.

  Args:
    side: of the images, in pixels.
    strides: of the paper, from the stem on; their product divides its images.
    least: pixels that are left each way at the end, or more.
  """
  halved, found = 1, []
  for stride in reversed(strides):
    left = -(-side // (halved * stride))
    found.append(stride if left >= least else 1)
    halved *= found[-1]
  return tuple(reversed(found))
