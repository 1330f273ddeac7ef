"""Residual networks (He et al., arXiv 1512.03385) for CIFAR and for ImageNet.

cifar_resnet(20)   20, 32, 44, 56, 110 ... layers: three stages of 16, 32, 64 channels
imagenet_resnet(50)   18, 34, 50, 101, 152: four stages of 64 to 512 channels
wide_resnet(28, 10)   few layers, many channels (arXiv 1605.07146)

Any of them with pre-activation (arXiv 1603.05027), or plain, without shortcuts; those
of ImageNet in four forms (arXiv 1812.01187), a to d: as published, v1.5, and with
another stem and another shortcut.
"""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import check_bounds
from dlx.errors import ConfigError
from dlx.layers.matmul import Dense
from dlx.layers.pooling import avg_pool
from dlx.models.net_layers import conv_and_norm, output_layer

BLOCKS = {  # Blocks a stage, and whether they are bottlenecks.
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}
# Fields by form of an ImageNet net; each has what the ones before have.
FORMS = {
  'a': {'early_stride': True},
  'b': {},
  'c': {'stem': 'deep'},
  'd': {'stem': 'deep', 'shortcut': 'average'},
}


class ResNet(nn.Module):
  """Stem, stages of residual blocks, global average pool, Dense.

  The first block of each stage but the first halves height and width (rounded up).

  Attributes:
    blocks: residual blocks a stage.
    channels: of the stages; a bottleneck's output has four times as many.
    bottleneck: blocks of 1x1, 3x3, 1x1 instead of 3x3, 3x3; the stride lies in the
      3x3, as all libraries have it (v1.5).
    num_outputs: K.
    stem: 'cifar', a 3x3 convolution; 'imagenet', 7x7 and a 3x3 max pool, both of
      stride 2; 'deep', three 3x3, the first of stride 2 and the first two of half the
      channels, in place of the 7x7.
    stem_channels: that the stem gives; None: those of the first stage.
    shortcut: where the shape changes: 'projection' (1x1 convolution and batch norm),
      'average' (the same after a mean over 2x2, in place of the stride, so that it sees
      every pixel), or 'pad' (every second pixel, channels of 0; no parameters), the
      paper's option A.
    early_stride: the stride lies in the first 1x1 of a bottleneck, as published.
    skip: False: a plain network without shortcuts, to see what they are for.
    preactivation: batch norm and ReLU before each convolution and after the last
      block, so that nothing but additions lies between the blocks. The first block of a
      stage activates what its shortcut carries too, and projects without batch norm.
    dropout: share of the units dropped between the convolutions of a block of
      pre-activation, as wide nets have it (rng 'dropout').
    dense: width of a hidden Dense layer with ReLU, `hidden`, between the mean over all
      positions and `head`; None: there is none, as published.
    dense_dropout: probability that one of its units is dropped (rng 'dropout').
    frozen_norms: batch norm uses its running statistics in training, too, and leaves
      them, as a trunk needs that shall stay as it is.
    zero_init: the last batch norm of a block starts at 0, so that the block starts as
      the identity (arXiv 1706.02677). With pre-activation the last convolution does.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  blocks: Sequence[int]
  channels: Sequence[int]
  bottleneck: bool = False
  num_outputs: int = 10
  stem: str = 'cifar'
  stem_channels: int | None = None
  shortcut: str = 'projection'
  early_stride: bool = False
  skip: bool = True
  preactivation: bool = False
  dropout: float = 0.0
  dense: int | None = None
  dense_dropout: float = 0.0
  frozen_norms: bool = False
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
    """What `head` reads [B, C]: the mean over all positions, or `hidden` of it."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    conv, norm = conv_and_norm(self, train and not self.frozen_norms)
    x_BHWC = self._stem(x_BHWC, conv, norm)
    common = {
      'bottleneck': self.bottleneck,
      'early_stride': self.early_stride,
      'shortcut': self.shortcut,
      'skip': self.skip,
      'zero_init': self.zero_init,
      'conv': conv,
      'norm': norm,
    }
    for i, (count, width) in enumerate(zip(self.blocks, self.channels, strict=True)):
      for j in range(count):
        common |= {
          'channels': width,
          'stride': 2 if i > 0 and j == 0 else 1,
          'name': f'stage{i + 1}_block{j + 1}',
        }
        if self.preactivation:
          block = PreactivationBlock(
            first=j == 0, dropout=self.dropout, train=train, **common
          )
        else:
          block = ResidualBlock(**common)
        x_BHWC = block(x_BHWC)
    if self.preactivation:
      x_BHWC = norm(leak=0.0, name='last_norm')(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    if self.dense is not None:
      hidden = Dense(
        self.dense, dtype=wide, param_dtype=self.param_dtype, name='hidden'
      )
      x_BC = nn.relu(hidden(x_BC))
      x_BC = nn.Dropout(self.dense_dropout, deterministic=not train)(x_BC)
    return output_layer(self)(x_BC), x_BC

  def _stem(self, x_BHWC: jax.Array, conv: Any, norm: Any) -> jax.Array:
    """What the first block reads."""
    width = self.stem_channels or self.channels[0]
    if self.stem == 'cifar':
      x_BHWC = conv(width, (3, 3), padding=1, name='stem')(x_BHWC)
      if self.preactivation:  # The first block begins with its own.
        return x_BHWC
      return norm(leak=0.0, name='stem_norm')(x_BHWC)
    if self.stem == 'deep':
      for i, stride in ((1, 2), (2, 1)):
        strides = (stride, stride)
        x_BHWC = conv(width // 2, (3, 3), strides, padding=1, name=f'stem{i}')(x_BHWC)
        x_BHWC = norm(leak=0.0, name=f'stem{i}_norm')(x_BHWC)
      x_BHWC = conv(width, (3, 3), padding=1, name='stem')(x_BHWC)
    else:
      x_BHWC = conv(width, (7, 7), (2, 2), padding=3, name='stem')(x_BHWC)
    x_BHWC = norm(leak=0.0, name='stem_norm')(x_BHWC)
    pad: Any = ((1, 1), (1, 1))
    return nn.max_pool(x_BHWC, (3, 3), strides=(2, 2), padding=pad)


class _Block(nn.Module):
  """What both kinds of block have; see ResNet for the attributes.

  `conv` and `norm` make the layers.
  """

  channels: int
  stride: int
  bottleneck: bool
  shortcut: str
  skip: bool
  zero_init: bool
  conv: Any
  norm: Any
  early_stride: bool = False

  @property
  def outputs(self) -> int:
    """Channels of the result."""
    return self.channels * (4 if self.bottleneck else 1)

  def layers(self) -> list[tuple[int, int, int]]:
    """Channels, size of the window and stride of each convolution."""
    if not self.bottleneck:
      return [(self.channels, 3, self.stride), (self.outputs, 3, 1)]
    early = self.early_stride
    first, second = (self.stride, 1) if early else (1, self.stride)
    narrow = self.channels
    return [(narrow, 1, first), (narrow, 3, second), (self.outputs, 1, 1)]

  def convolve(self, x_BHWC: jax.Array, n: int, layer: tuple[int, int, int], **fields):
    """Convolution n, from 1 on."""
    width, size, stride = layer
    make = self.conv(
      width,
      (size, size),
      (stride, stride),
      padding=size // 2,
      name=f'conv{n}',
      **fields,
    )
    return make(x_BHWC)

  def carry(self, x_BHWC: jax.Array, normed: bool) -> jax.Array:
    """The shortcut where the shape changes; `normed`: a projection has batch norm."""
    if self.shortcut == 'pad':
      more = self.outputs - x_BHWC.shape[-1]
      x_BHWC = x_BHWC[:, :: self.stride, :: self.stride]
      # Half of the new channels on either side, as the authors' code has it.
      return jnp.pad(x_BHWC, ((0, 0),) * 3 + ((more // 2, more - more // 2),))
    strides = (self.stride, self.stride)
    if self.shortcut == 'average' and self.stride > 1:
      x_BHWC, strides = mean_of_windows(x_BHWC, self.stride), (1, 1)
    x_BHWC = self.conv(self.outputs, (1, 1), strides, padding=0, name='skip')(x_BHWC)
    return self.norm(name='skip_norm')(x_BHWC) if normed else x_BHWC


class ResidualBlock(_Block):
  """relu(x + f(x)), f of two or (bottleneck) three convolutions with batch norm."""

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    last = zeros if self.zero_init and self.skip else ones
    layers = self.layers()
    y = x_BHWC
    for n, layer in enumerate(layers, 1):
      y = self.convolve(y, n, layer)
      if n < len(layers):
        y = self.norm(leak=0.0, name=f'norm{n}')(y)
    end = self.norm(leak=0.0, scale_init=last, name=f'norm{len(layers)}')
    if not self.skip:
      return end(y)
    if y.shape != x_BHWC.shape:
      x_BHWC = self.carry(x_BHWC, normed=True)
    return end(y, x_BHWC)


class PreactivationBlock(_Block):
  """x + f(x), each convolution of f after batch norm and ReLU.

  Attributes:
    first: of its stage: the shortcut carries what is activated.
    dropout: see ResNet.
    train: whether units are dropped.
  """

  first: bool = False
  dropout: float = 0.0
  train: bool = False

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    layers = self.layers()
    y = self.norm(leak=0.0, name='norm1')(x_BHWC)
    x_BHWC = y if self.first else x_BHWC
    for n, layer in enumerate(layers, 1):
      last = n == len(layers)
      if n > 1:
        y = self.norm(leak=0.0, name=f'norm{n}')(y)
      if last and self.dropout:
        y = nn.Dropout(self.dropout, deterministic=not self.train)(y)
      still = last and self.zero_init and self.skip
      init = {'kernel_init': nn.initializers.zeros} if still else {}
      y = self.convolve(y, n, layer, **init)
    if not self.skip:
      return y
    if y.shape != x_BHWC.shape:
      x_BHWC = self.carry(x_BHWC, normed=False)
    return x_BHWC + y


def mean_of_windows(x_BHWC: jax.Array, size: int) -> jax.Array:
  """Means over size x size; at odd edges over the pixels that are there."""
  edges = [-n % size for n in x_BHWC.shape[1:3]]
  if not any(edges):
    return avg_pool(x_BHWC, (size, size))
  padding = tuple((0, edge) for edge in edges)
  there = jnp.ones((1, *x_BHWC.shape[1:3], 1), x_BHWC.dtype)
  shares = avg_pool(there, (size, size), padding=padding)
  return avg_pool(x_BHWC, (size, size), padding=padding) / shares


def cifar_resnet(
  depth: int, *, width: int = 16, bottleneck: bool = False, **fields: Any
) -> ResNet:
  """The CIFAR family, 6 n + 2 layers: 20, 32, 44, 56, 110.

  Args:
    depth: layers with weights, 6 n + 2, or 9 n + 2 of bottlenecks (164, 1001). The
      paper's parameter counts, with shortcut='pad': 0.27 M at 20, 0.46 M at 32, 0.66 M
      at 44, 0.85 M at 56 and 1.7 M at 110; of bottlenecks, with projections and
      pre-activation, 1.7 M at 164 and 10.3 M at 1001 (arXiv 1603.05027 says 10.2).
    width: channels of the first stage; 16 in the paper.
    bottleneck: see ResNet.
    fields: of ResNet; shortcut is 'pad' unless given, of bottlenecks 'projection'.

  Raises:
    ConfigError: a depth of another form.
  """
  each = 9 if bottleneck else 6
  if depth < each + 2 or depth % each != 2:
    some = '29, 56, 110 or 164' if bottleneck else '20, 32, 44, 56 or 110'
    raise ConfigError(
      f'depth={depth} is not allowed for a CIFAR ResNet'
      f'{" of bottlenecks" if bottleneck else ""}: must be {each} n + 2 with n at '
      f'least 1, such as {some}.'
    )
  fields = {
    'shortcut': 'projection' if bottleneck else 'pad',
    'stem': 'cifar',
    'stem_channels': width,
    **fields,
  }
  return ResNet(
    blocks=(depth // each,) * 3,
    channels=(width, 2 * width, 4 * width),
    bottleneck=bottleneck,
    **fields,
  )


def imagenet_resnet(
  depth: int, *, width: int = 64, form: str = 'b', **fields: Any
) -> ResNet:
  """The ImageNet family: 18, 34, 50, 101, 152 layers.

  Args:
    depth: layers with weights.
    width: channels of the first stage; 64 in the paper.
    form: a, as published, the stride in the first 1x1 of a bottleneck; b, in the 3x3
      (v1.5); c, and a stem of three 3x3; d, and shortcuts that take the mean of 2x2
      (arXiv 1812.01187; its tweak b of the bottleneck is none of basic blocks).
    fields: of ResNet; stem is 'imagenet' unless given: 'cifar' for 32 x 32 images.

  Raises:
    ConfigError: another depth or form.
  """
  if depth not in BLOCKS:
    raise ConfigError(
      f'depth={depth} is not allowed for an ImageNet ResNet: must be one of '
      f'{", ".join(map(str, BLOCKS))}.'
    )
  if form not in FORMS:
    raise ConfigError(
      f'form={form} is not allowed for an ImageNet ResNet: must be one of '
      f'{", ".join(FORMS)}.'
    )
  blocks, bottleneck = BLOCKS[depth]
  fields = {'stem': 'imagenet', **FORMS[form], **fields}
  channels = tuple(width * 2**i for i in range(4))
  return ResNet(blocks=blocks, channels=channels, bottleneck=bottleneck, **fields)


def wide_resnet(depth: int, widen: int, *, width: int = 16, **fields: Any) -> ResNet:
  """Wide residual networks (arXiv 1605.07146), 6 n + 4 layers, of pre-activation.

  Args:
    depth: layers with weights, 6 n + 4: the paper counts the three projections, too.
    widen: factor k of the channels: stages of 16 k, 32 k and 64 k. Parameters for ten
      classes: WRN-16-4 2.7 M, WRN-40-4 8.9 M, WRN-16-8 11.0 M, WRN-28-10 36.5 M.
    width: channels of the stem; 16 in the paper.
    fields: of ResNet, such as dropout: 0.3 in the paper, where images are not moved.

  Raises:
    ConfigError: a depth of another form, or a factor below 1.
  """
  if depth < 10 or depth % 6 != 4:
    raise ConfigError(
      f'depth={depth} is not allowed for a wide ResNet: must be 6 n + 4 with n at '
      'least 1, such as 16, 22, 28 or 40.'
    )
  check_bounds('widen', widen, 1)
  channels = tuple(width * widen * 2**i for i in range(3))
  fields = {'preactivation': True, 'stem_channels': width, **fields}
  return ResNet(blocks=(depth // 6,) * 3, channels=channels, **fields)
