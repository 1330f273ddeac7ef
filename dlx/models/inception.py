"""Inception networks: parallel branches of several kernel sizes, joined by channels.

googlenet()          arXiv 1409.4842, Table 1: 22 layers, two auxiliary heads
bn_inception()       arXiv 1502.03167, appendix: batch norm, two 3x3 in place of the 5x5
cifar_googlenet()    the blocks of GoogLeNet with batch norm, for 32 x 32 images

Branches and widths of the blocks stand in inception_tables.py.
Layers are named `conv1` to `conv3`, `inception_3a` to `inception_5b`, `auxiliary_4a`,
`auxiliary_4d` and `head`; Caffe's and torchvision's GoogLeNet has the same order.
"""

import functools
from typing import Any, Mapping, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.local_response import local_response_norm
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import avg_pool, max_pool
from dlx.models.inception_tables import (
  AUXILIARY,
  BN_INCEPTION,
  GOOGLENET,
  Block,
  Stages,
)
from dlx.models.net_layers import output_layer

STEMS = ('imagenet', 'separable', 'cifar')
# He et al. (arXiv 1502.01852), by the inputs of a unit.
_HE = nn.initializers.he_normal()


class Outputs(NamedTuple):
  """What an Inception network gives.

  Attributes:
    logits: [B, K], float32 or wider.
    auxiliary: [B, K] of each auxiliary head, by the name of the block that it reads;
      empty where there are none. They are for the loss in training; a jitted call that
      drops them computes none.
  """

  logits: jax.Array
  auxiliary: Mapping[str, jax.Array]


class Inception(nn.Module):
  """Stem, stages of Inception blocks, global average pool, dropout, Dense.

  Between two stages lies a 3x3 max pool of stride 2, unless the last block of the first
  has that stride. Convolutions are padded by half their size. Pools cover the whole
  image: of even sizes like Caffe's, an odd size is rounded up.

  Attributes:
    stages: blocks of each.
    num_outputs: K.
    stem: 'imagenet', 7x7 of stride 2, 3x3 max pool of stride 2, 1x1, 3x3 and that pool
      again; 'separable', the same with a 7x7 of each channel by itself (8 outputs a
      channel) and a 1x1 in place of the 7x7; 'cifar', a 3x3 to 192 channels.
    width: factor of all channels but inputs and outputs, rounded, at least 1.
    double: two 3x3 convolutions in place of each 5x5.
    batch_norm: after each convolution, in place of its bias; without, the stem has
      local response normalisation (5 channels, as Caffe's GoogLeNet).
    auxiliary: names of the blocks that auxiliary heads read; those that are not there
      are left out.
    auxiliary_pool: window and stride of the average pool of these heads.
    dropout: share of features dropped before `head`.
    auxiliary_dropout: share of hidden units dropped in auxiliary heads.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; output layers are at least float32.
    param_dtype: of the parameters.
  """

  stages: Stages
  num_outputs: int = 10
  stem: str = 'imagenet'
  width: float = 1.0
  double: bool = False
  batch_norm: bool = False
  auxiliary: Sequence[str] = AUXILIARY
  auxiliary_pool: tuple[int, int] = (5, 3)
  dropout: float = 0.4
  auxiliary_dropout: float = 0.7
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> Outputs:
    """Logits of the head and of the auxiliary heads.

    Args:
      train: drop units (rng 'dropout'), use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: a stem that is not known, or maps too small for an auxiliary head.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the mean over all positions, after dropout."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[Outputs, jax.Array]:
    """Outputs and features."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    wide = jnp.promote_types(self.dtype, jnp.float32)
    scaled = lambda channels: scale(channels, self.width)
    unit: Any = functools.partial(
      ConvUnit,
      batch_norm=self.batch_norm,
      train=train,
      momentum=self.momentum,
      **dtypes,
    )
    x_BHWC = self._stem(x_BHWC, unit)
    auxiliary = {}
    for n, blocks in enumerate(self.stages):
      if n and self.stages[n - 1][-1].stride == 1:
        x_BHWC = _halved(x_BHWC)
      for block in blocks:
        name = f'inception_{block.name}'
        x_BHWC = InceptionBlock(block, scaled, self.double, unit, name=name)(x_BHWC)
        if block.name in self.auxiliary:
          auxiliary[block.name] = AuxiliaryHead(
            scaled(128),
            scaled(1024),
            self.num_outputs,
            self.auxiliary_pool,
            self.auxiliary_dropout,
            train,
            unit,
            name=f'auxiliary_{block.name}',
            **dtypes,
          )(x_BHWC)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    x_BC = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x_BC)
    return Outputs(output_layer(self)(x_BC), auxiliary), x_BC

  def _stem(self, x_BHWC: jax.Array, unit: Any) -> jax.Array:
    if self.stem not in STEMS:
      raise ConfigError(
        f'stem={self.stem!r} is not allowed: must be one of {", ".join(STEMS)}.'
      )
    scaled = lambda channels: scale(channels, self.width)
    if self.stem == 'cifar':
      return unit(scaled(192), 3, name='conv1')(x_BHWC)
    if self.stem == 'separable':
      inputs = x_BHWC.shape[-1]
      depthwise = Conv(
        8 * inputs,
        (7, 7),
        (2, 2),
        padding=3,
        feature_group_count=inputs,
        use_bias=False,
        kernel_init=_HE,
        name='conv1_depthwise',
        dtype=self.dtype,
        param_dtype=self.param_dtype,
      )
      x_BHWC = unit(scaled(64), 1, name='conv1')(depthwise(x_BHWC))
    else:
      x_BHWC = unit(scaled(64), 7, 2, name='conv1')(x_BHWC)
    x_BHWC = self._responses(_halved(x_BHWC))
    x_BHWC = unit(scaled(64), 1, name='conv2')(x_BHWC)
    x_BHWC = unit(scaled(192), 3, name='conv3')(x_BHWC)
    return _halved(self._responses(x_BHWC))

  def _responses(self, x_BHWC: jax.Array) -> jax.Array:
    return x_BHWC if self.batch_norm else local_response_norm(x_BHWC, k=1.0)


class ConvUnit(nn.Module):
  """Convolution, batch norm or a bias, ReLU.

  Attributes:
    channels: of the output.
    size: of the kernel, height and width.
    stride: likewise.
    batch_norm, train, momentum, dtype, param_dtype: see Inception.
  """

  channels: int
  size: int
  stride: int = 1
  batch_norm: bool = True
  train: bool = False
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x_BHWC = Conv(
      self.channels,
      (self.size, self.size),
      (self.stride, self.stride),
      padding=self.size // 2,
      use_bias=not self.batch_norm,
      kernel_init=_HE,
      name='conv',
      **dtypes,
    )(x_BHWC)
    if not self.batch_norm:
      return nn.relu(x_BHWC)
    norm = BatchNorm(
      not self.train, momentum=self.momentum, leak=0.0, name='norm', **dtypes
    )
    return norm(x_BHWC)


class InceptionBlock(nn.Module):
  """The branches of a row of the table on the same input, joined by channels.

  Attributes:
    block: the row.
    scaled: from its widths to channels.
    double: see Inception.
    unit: makes a ConvUnit of (channels, size, stride).
  """

  block: Block
  scaled: Any
  double: bool
  unit: Any

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), sum of the branches]."""
    block, scaled, unit = self.block, self.scaled, self.unit
    stride = block.stride
    branches = []
    if block.one:
      branches.append(unit(scaled(block.one), 1, stride, name='one')(x_BHWC))
    y = unit(scaled(block.three_reduce), 1, name='three_reduce')(x_BHWC)
    branches.append(unit(scaled(block.three), 3, stride, name='three')(y))
    y = unit(scaled(block.wide_reduce), 1, name='wide_reduce')(x_BHWC)
    if self.double:
      y = unit(scaled(block.wide), 3, name='wide_1')(y)
    size = 3 if self.double else 5
    branches.append(unit(scaled(block.wide), size, stride, name='wide')(y))
    pool = {'max': max_pool, 'avg': avg_pool}[block.pool]
    y = pool(x_BHWC, (3, 3), (stride, stride), 'SAME')
    if block.project:
      y = unit(scaled(block.project), 1, name='pool')(y)
    return jnp.concatenate([*branches, y], axis=-1)


class AuxiliaryHead(nn.Module):
  """Average pool, 1x1 convolution, Dense with ReLU, dropout, Dense: logits [B, K].

  Attributes:
    channels: of the convolution.
    hidden: units of the first Dense.
    num_outputs: K.
    pool: window and stride.
    dropout: share of hidden units dropped.
    train, dtype, param_dtype: see Inception.
    unit: see InceptionBlock.
  """

  channels: int
  hidden: int
  num_outputs: int
  pool: tuple[int, int]
  dropout: float
  train: bool
  unit: Any
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    window, stride = self.pool
    x_BHWC = avg_pool(x_BHWC, (window, window), (stride, stride))
    x_BHWC = self.unit(self.channels, 1, name='conv')(x_BHWC)
    x_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x_BF = nn.relu(Dense(self.hidden, kernel_init=_HE, name='hidden', **dtypes)(x_BF))
    drop = nn.Dropout(self.dropout, deterministic=not self.train, name='dropout')
    return output_layer(self)(drop(x_BF))


def scale(channels: int, width: float) -> int:
  """channels * width, rounded, at least 1."""
  return max(1, round(channels * width))


def _halved(x_BHWC: jax.Array) -> jax.Array:
  return max_pool(x_BHWC, (3, 3), (2, 2), 'SAME')


def googlenet(**fields: Any) -> Inception:
  """GoogLeNet for images of 224 x 224: 7.0 M parameters and 1.6 G multiply-adds.

  The first row of the paper's Table 1, 2.7 K parameters and 34 M operations, is that
  of stem='separable', all others follow from the widths; libraries have the full 7x7
  (9.4 K, 118 M).

  Args:
    fields: of Inception.
  """
  return Inception(**{'stages': GOOGLENET, 'stem': 'imagenet', **fields})


def bn_inception(**fields: Any) -> Inception:
  """BN-Inception for images of 224 x 224: 11.2 M parameters and the auxiliary heads.

  The paper's text says 13.6 M; 11.2 M follow from the widths of its table. Without
  dropout, which the paper takes out as well.

  Args:
    fields: of Inception.
  """
  return Inception(
    **{
      'stages': BN_INCEPTION,
      'stem': 'separable',
      'double': True,
      'batch_norm': True,
      'dropout': 0.0,
      **fields,
    }
  )


def cifar_googlenet(**fields: Any) -> Inception:
  """GoogLeNet's blocks on images of 32 x 32: 6.2 M parameters, no auxiliary heads.

  Batch norm, two 3x3 for each 5x5, and stages of 32, 16 and 8 pixels: the form that
  is usual for CIFAR-10 (kuangliu/pytorch-cifar).

  Args:
    fields: of Inception.
  """
  return Inception(
    **{
      'stages': GOOGLENET,
      'stem': 'cifar',
      'double': True,
      'batch_norm': True,
      'auxiliary': (),
      'dropout': 0.0,
      **fields,
    }
  )
