"""VGG (Simonyan and Zisserman, arXiv 1409.1556): 3x3 convolutions and 2x2 pools alone.

imagenet_vgg(16)   11, 13, 16, 19 layers, A, B, D, E of the paper: 132,863,336,
                   133,047,848, 138,357,544 and 143,667,240 parameters
imagenet_vgg(16, third_kernel=1)   C: 133,638,952
cifar_vgg(16)      the same convolutions before one dense layer
"""

import functools
from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.matmul import Dense
from dlx.layers.pooling import adaptive_avg_pool, max_pool
from dlx.models.net_layers import conv_and_norm, output_layer

# By the number of layers with weights, three dense ones among them: convolutions of
# each stage.
STAGES = {
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
  """Stages of 3x3 convolutions with ReLU, then dense layers.

  Layers are `conv1_1`, `conv1_2`, `conv2_1`, ..., with batch norm `norm1_1`, ..., then
  `fc6`, `fc7` and `head`. The first dense layer reads the map flat, by rows, columns
  and channels (where torch has channels first).

  Attributes:
    stages: convolutions of each stage.
    channels: of each stage.
    pools: by stage, whether a 2x2 max pool ends it; the paper's all do.
    third_kernel: side of the filters of the third convolution of a stage, odd; with 1
      and 16 layers it is form C of the paper, less good than D.
    dense: units of the dense layers before the head, each with ReLU and dropout.
    pooled: height and width to which the last map is averaged.
    num_outputs: K.
    batch_norm: between each convolution and its ReLU.
    conv_bias: of convolutions; None: where there is no batch norm, which would take it
      out again. True beside batch norm is for weights that come from elsewhere.
    dropout: share of the units of each dense layer that is dropped in training.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  stages: Sequence[int]
  channels: Sequence[int]
  pools: Sequence[bool] = (True,) * 5
  third_kernel: int = 3
  dense: Sequence[int] = ()
  pooled: int = 1
  num_outputs: int = 10
  batch_norm: bool = False
  conv_bias: bool | None = None
  dropout: float = 0.5
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images that leave at least one entry: of 2^n pixels for n pools.
      train: drop units (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').

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
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    biased = self.conv_bias
    # Kernels by He's rule: the paper's N(0, 0.01^2) does not train more than 11 layers
    # from scratch.
    conv, norm = conv_and_norm(self, train, leak=0.0)
    conv = functools.partial(
      conv, use_bias=not self.batch_norm if biased is None else biased
    )
    x = x_BHWC
    sizes = zip(self.stages, self.channels, self.pools, strict=True)
    for i, (count, channels, pool) in enumerate(sizes, 1):
      for j in range(1, count + 1):
        size = self.third_kernel if j == 3 else 3
        side = {'kernel_size': (size, size), 'padding': size // 2}
        x = conv(channels, name=f'conv{i}_{j}', **side)(x)
        x = norm(name=f'norm{i}_{j}')(x) if self.batch_norm else nn.relu(x)
      x = max_pool(x) if pool else x
    x = adaptive_avg_pool(x, (self.pooled, self.pooled))
    x_BF = x.reshape(x.shape[0], -1)
    begin = nn.initializers.normal(0.01)
    for number, units in enumerate(self.dense, 6):
      layer = Dense(units, kernel_init=begin, name=f'fc{number}', **dtypes)
      drop = nn.Dropout(self.dropout, deterministic=not train, name=f'drop{number}')
      x_BF = drop(nn.relu(layer(x_BF)))
    return output_layer(self, kernel_init=begin)(x_BF), x_BF


def imagenet_vgg(depth: int, *, width: int = 64, **fields: Any) -> VGG:
  """The ImageNet form: 7 x 7 x 512 of a 224 x 224 image before three dense layers.

  Args:
    depth: 11, 13, 16 or 19 layers with weights.
    width: channels of the first stage; 64 in the paper. Dense layers have 64 times as
      many units.
    fields: of VGG.

  Raises:
    ConfigError: another depth.
  """
  fields = {'dense': (64 * width, 64 * width), 'pooled': 7, **fields}
  return VGG(*_sizes(depth, width), **fields)


def cifar_vgg(depth: int, *, width: int = 64, **fields: Any) -> VGG:
  """The CIFAR form, with batch norm unless told otherwise and one dense layer.

  14.7 M parameters of 16 layers at 32 x 32 x 3, 20.0 M of 19.

  Args:
    depth: of the ImageNet form with the same convolutions: 11, 13, 16 or 19.
    width: channels of the first stage; 64 is usual.
    fields: of VGG; `pools` says which stages halve images smaller than 32 x 32.

  Raises:
    ConfigError: another depth.
  """
  fields = {'batch_norm': True, **fields}
  return VGG(*_sizes(depth, width), **fields)


def _sizes(depth: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
  if depth not in STAGES:
    known = ', '.join(map(str, STAGES))
    raise ConfigError(f'depth={depth} is not allowed for VGG: must be one of {known}.')
  return STAGES[depth], tuple(width * n for n in (1, 2, 4, 8, 8))
