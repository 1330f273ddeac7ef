"""AlexNet (Krizhevsky, Sutskever and Hinton 2012) for ImageNet and for CIFAR.

imagenet_alexnet()            one tower (arXiv 1404.5997): 61,100,840 parameters
imagenet_alexnet(groups=2)    the net of 2012, whose halves lay on two GPUs: 60,965,224
cifar_alexnet()               for 32 x 32 images, one dense layer: 2,472,266
"""

from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.local_response import local_response_norm
from dlx.layers.matmul import Dense
from dlx.layers.pooling import adaptive_avg_pool, max_pool

# Layers whose biases the paper begins at 1, so that their ReLUs begin above 0.
_SHIFTED = ('conv2', 'conv4', 'conv5', 'fc6', 'fc7')


class Block(NamedTuple):
  """A convolution and ReLU, and what follows them.

  Attributes:
    channels: of the output.
    kernel: height and width of the window.
    stride: of it.
    padding: on each side.
    groups: of channels that do not see each other.
    norm: local response normalisation after the ReLU.
    pool: height and width of a max pool after that, of stride 2; None: none.
  """

  channels: int
  kernel: int = 3
  stride: int = 1
  padding: int = 1
  groups: int = 1
  norm: bool = False
  pool: int | None = None


class AlexNet(nn.Module):
  """Blocks `conv1`, `conv2`, ...; then dense layers `fc6`, `fc7`, ..., and `head`.

  The first dense layer reads the map flat, by rows, columns and channels (where torch
  has channels first).

  Attributes:
    blocks: see Block.
    dense: units of the dense layers, each with ReLU and dropout.
    pooled: height and width to which the last map is averaged.
    num_outputs: K.
    dropout: share of the units of each dense layer that is dropped in training.
    kernel_init: (key, shape, dtype) -> kernel of any layer.
    unit_biases: biases of conv2, conv4, conv5 and of the dense layers before the head
      begin at 1, as in the paper; False: at 0.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  blocks: Sequence[Block]
  dense: Sequence[int] = ()
  pooled: int = 1
  num_outputs: int = 10
  dropout: float = 0.5
  kernel_init: Any = nn.initializers.he_normal()
  unit_biases: bool = False
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images that leave at least one entry for each pool.
      train: drop units (rng 'dropout').

    Raises:
      ConfigError: images too small for the pools.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F], after dropout."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    one, zero = nn.initializers.ones, nn.initializers.zeros

    def named(name: str) -> dict[str, Any]:
      shifted = self.unit_biases and name in _SHIFTED
      return {
        'kernel_init': self.kernel_init,
        'bias_init': one if shifted else zero,
        'param_dtype': self.param_dtype,
        'name': name,
      }

    x = x_BHWC
    for number, block in enumerate(self.blocks, 1):
      conv = Conv(
        block.channels,
        (block.kernel, block.kernel),
        (block.stride, block.stride),
        padding=block.padding,
        feature_group_count=block.groups,
        dtype=self.dtype,
        **named(f'conv{number}'),
      )
      x = nn.relu(conv(x))
      if block.norm:
        x = local_response_norm(x)
      if block.pool:
        x = max_pool(x, (block.pool, block.pool), (2, 2))
    x = adaptive_avg_pool(x, (self.pooled, self.pooled))
    x_BF = x.reshape(x.shape[0], -1)
    for number, units in enumerate(self.dense, len(self.blocks) + 1):
      layer = Dense(units, dtype=self.dtype, **named(f'fc{number}'))
      drop = nn.Dropout(self.dropout, deterministic=not train, name=f'drop{number}')
      x_BF = drop(nn.relu(layer(x_BF)))
    wide = jnp.promote_types(self.dtype, jnp.float32)
    head = Dense(self.num_outputs, dtype=wide, **named('head'))
    return head(x_BF), x_BF


def imagenet_alexnet(
  *, groups: int = 1, norm: bool = False, width: float = 1.0, **fields: Any
) -> AlexNet:
  """The ImageNet form: 224 x 224 images, 6 x 6 x 256 before three dense layers.

  Args:
    groups: 1, one tower of 64 to 384 channels; 2, the net of 2012, of 96 to 384, whose
      second, fourth and fifth convolution see half of the channels each.
    norm: local response normalisation after the first two layers, as in 2012.
    width: factor of channels and units; 1 is as published.
    fields: of AlexNet.

  Raises:
    ConfigError: another number of groups, a width of 0 or less.
  """
  if groups not in (1, 2):
    raise ConfigError(f'groups={groups} is not allowed for AlexNet: must be 1 or 2.')
  sizes = (64, 192, 384, 256, 256) if groups == 1 else (96, 256, 384, 384, 256)
  first, second, *later, last = _scaled(sizes, width, groups)
  blocks = (
    Block(first, 11, 4, 2, norm=norm, pool=3),
    Block(second, 5, 1, 2, groups, norm, pool=3),
    Block(later[0]),
    Block(later[1], groups=groups),
    Block(last, groups=groups, pool=3),
  )
  fields = {'dense': _scaled((4096, 4096), width), 'pooled': 6, **fields}
  return AlexNet(blocks, **fields)


def cifar_alexnet(
  *, stride: int = 4, norm: bool = False, width: float = 1.0, **fields: Any
) -> AlexNet:
  """The CIFAR form: three max pools of 2 x 2, one dense layer.

  Args:
    stride: of the first convolution, s, whose kernel is 2 s + 3: 4 and 11 x 11 at 32 x
      32 pixels, so that 8 x 8 are left for the pools; 1 and 5 x 5 at 8 x 8.
    norm: local response normalisation after the first two layers.
    width: factor of channels; 1 is 64 to 384.
    fields: of AlexNet.

  Raises:
    ConfigError: a stride or a width that is not positive.
  """
  if stride < 1:
    raise ConfigError(
      f'stride={stride} is not allowed for AlexNet: must be at least 1.'
    )
  first, second, *later, last = _scaled((64, 192, 384, 256, 256), width)
  blocks = (
    Block(first, 2 * stride + 3, stride, stride + 1, norm=norm, pool=2),
    Block(second, 5, padding=2, norm=norm, pool=2),
    *(Block(channels) for channels in later),
    Block(last, pool=2),
  )
  return AlexNet(blocks, **fields)


def _scaled(sizes: Sequence[int], width: float, groups: int = 1) -> tuple[int, ...]:
  """Sizes times `width`, rounded to whole groups, one each at least."""
  if width <= 0:
    raise ConfigError(f'width={width} is not allowed for AlexNet: must be above 0.')
  return tuple(groups * max(1, round(size * width / groups)) for size in sizes)
