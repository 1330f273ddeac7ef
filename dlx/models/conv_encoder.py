"""Encoder of small images for self-supervised learning, its head, a probe of it."""

import dataclasses
from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import Group
from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm, GroupNorm


class Features(NamedTuple):
  """What an encoder gives; float32 or wider.

  Attributes:
    pooled_BF: mean over the positions of the last map: what probes look at.
    map_BHWF: the last map itself. Of random weights it says far more than its mean.
  """

  pooled_BF: jax.Array
  map_BHWF: jax.Array


class ConvEncoder(nn.Module):
  """3x3 convolutions, each with group norm and ReLU; the mean over positions.

  Group norm rather than batch norm: no statistics that leak between the examples of a
  batch, which batch norm needs shuffling against (arXiv:1911.05722, section 3.3), and
  none to freeze in a probe.

  Attributes:
    features: channels of each layer; multiples of `groups`.
    strides: of each layer; 28 -> 14 -> 7 -> 4 for three strides of 2.
    groups: of the normalisation.
    dtype: of the arithmetic; the features are at least float32.
    param_dtype: of the parameters.
  """

  features: Sequence[int] = (32, 64, 128, 128)
  strides: Sequence[int] = (2, 2, 2, 1)
  groups: int = 8
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> Features:
    """Features of images of any size.

    Raises:
      ConfigError: as many strides as layers are not given, or channels that the groups
        do not divide.
    """
    if len(self.features) != len(self.strides):
      raise ConfigError(
        f'strides={tuple(self.strides)} is not allowed: must be {len(self.features)} '
        f'numbers, as many as features={tuple(self.features)}.'
      )
    if any(channels % self.groups for channels in self.features):
      raise ConfigError(
        f'features={tuple(self.features)} is not allowed: must be multiples of '
        f'groups={self.groups}.'
      )
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    for i, (channels, stride) in enumerate(zip(self.features, self.strides)):
      strides = (stride, stride)
      # No bias: the norm behind it has one.
      conv = Conv(channels, (3, 3), strides, use_bias=False, name=f'conv_{i}', **dtypes)
      norm = GroupNorm(self.groups, name=f'norm_{i}', **dtypes)
      x_BHWC = nn.relu(norm(conv(x_BHWC)))
    map_BHWF = x_BHWC.astype(jnp.promote_types(x_BHWC.dtype, jnp.float32))
    return Features(map_BHWF.mean((1, 2)), map_BHWF)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(Group):
  """Flags of a ConvEncoder, `--config.encoder.NAME`."""

  features: tuple[int, ...] = (32, 64, 128, 128)  # Channels of the encoder's layers.
  strides: tuple[int, ...] = (
    1,
    2,
    2,
    1,
  )  # Stride of each layer; 2,2,2,1 for 28 pixels.
  groups: int = 8  # Groups of the encoder's norm; divide every number of features.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('groups', least=1)
    self.require(
      'features',
      bool(self.features)
      and all(f >= 1 and f % self.groups == 0 for f in self.features),
      f'multiples of groups={self.groups}',
    )
    self.require(
      'strides',
      len(self.strides) == len(self.features) and min(self.strides) >= 1,
      f'{len(self.features)} numbers of at least 1, as many as features',
    )

  def module(self, **dtypes: Any) -> ConvEncoder:
    """The encoder; `dtypes` as `Config.dtypes`."""
    return ConvEncoder(self.features, self.strides, self.groups, **dtypes)


class ProjectionHead(nn.Module):
  """Dense, ReLU, Dense: the map that a contrastive loss sees, thrown away afterwards.

  Attributes:
    hidden: width in between.
    num_outputs: D.
    dtype: of the arithmetic; the outputs are at least float32.
    param_dtype: of the parameters.
  """

  hidden: int = 128
  num_outputs: int = 64
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BF: jax.Array) -> jax.Array:
    """[B, D], not normalised."""
    wide = jnp.promote_types(self.dtype, jnp.float32)
    first = Dense(
      self.hidden, dtype=self.dtype, param_dtype=self.param_dtype, name='hidden'
    )
    second = Dense(
      self.num_outputs, dtype=wide, param_dtype=self.param_dtype, name='out'
    )
    return second(nn.relu(first(x_BF)))


class ProjectedEncoder(nn.Module):
  """An encoder and the head on its pooled features: parameters `encoder` and `head`."""

  encoder: nn.Module
  head: nn.Module

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """Projections [B, D], not normalised."""
    return self.head(self.features(x_BHWC).pooled_BF)

  def features(self, x_BHWC: jax.Array) -> Features:
    """What stands below the head."""
    return self.encoder(x_BHWC)


class LinearProbe(nn.Module):
  """A linear layer on the pooled features of an encoder that it does not train.

  The weights of the encoder lie in the collection 'encoder', not in 'params': no
  optimiser sees them and no gradient reaches them. The features are normalised by
  batch norm without scale and shift (arXiv:2111.06377, appendix A), so that one
  learning rate fits encoders of any scale.

  Attributes:
    encoder: gives `Features`.
    num_outputs: K.
    param_dtype: of the linear layer.
    dtype: of its arithmetic; at least float32 is used.
    momentum: of the running statistics of the features.
  """

  encoder: nn.Module
  num_outputs: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  momentum: float = 0.9

  @nn.compact
  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider."""
    # Unbound: as a submodule its weights would be in 'params'.
    encoder = self.encoder.clone(parent=None)
    weights = self.variable(
      'encoder',
      'params',
      lambda: encoder.init(self.make_rng('params'), x_BHWC)['params'],
    ).value
    features = encoder.apply({'params': jax.lax.stop_gradient(weights)}, x_BHWC)
    assert isinstance(features, Features)
    dtypes = {
      'dtype': jnp.promote_types(self.dtype, jnp.float32),
      'param_dtype': self.param_dtype,
    }
    norm = BatchNorm(
      not train,
      momentum=self.momentum,
      use_scale=False,
      use_bias=False,
      name='norm',
      **dtypes,
    )
    zeros = nn.initializers.zeros_init()  # The loss begins at log K exactly.
    head = Dense(self.num_outputs, kernel_init=zeros, name='head', **dtypes)
    return head(norm(features.pooled_BF))
