"""U-Net of the DDPM kind (arXiv:2006.11239): one prediction for every pixel.

With a time, and a class, it is the network of a diffusion model; without them it maps
an image to any number of channels, as for segmentation.
"""

import dataclasses
import functools
from typing import Any, Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import Group
from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.embeddings import LabelEmbedding, TimeEmbedding
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import GroupNorm
from dlx.layers.upsampling import depth_to_space, space_to_depth

Array = jax.Array


class UNet(nn.Module):
  """Residual blocks on falling, then rising resolutions, with skips between them.

  Level i works on height / (patch * 2^i) with channels[i] channels. Every block has
  GroupNorm, SiLU and a 3x3 convolution twice; time and class scale and shift the second
  norm (arXiv:2105.05233). What goes down a level are squares of 2 x 2 pixels as
  channels, and back again, both through a Dense: on the CPU a strided or a transposed
  convolution costs several times as much. The last convolution of each block, of the
  attention and of the net starts at 0, so that blocks start as the identity and the
  output as 0.

  Attributes:
    out_channels: of the output.
    channels: of each level.
    blocks: residual blocks of a level on the way down; one more on the way up.
    attention: levels whose blocks are followed by self-attention over all positions;
      the middle has it where there are any.
    head_features: width of an attention head.
    groups: of each norm, at most; as many as divide the channels, of 4 channels each
      or more.
    num_classes: of the labels, with one more for "no class"; None: no labels.
    patch: pixels a side of a square that becomes the channels of one position.
    dropout: share of features dropped before the second convolution of a block.
    dtype: of the arithmetic; norms, softmax and output are at least float32.
    param_dtype: of the parameters.
  """

  out_channels: int
  channels: Sequence[int] = (32, 64)
  blocks: int = 1
  attention: Sequence[int] = (1,)
  head_features: int = 32
  groups: int = 8
  num_classes: int | None = None
  patch: int = 1
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BHWC: Array,
    t_B: Array | None = None,
    label_B: Array | None = None,
    *,
    train: bool,
  ) -> Array:
    """[B, H, W, out_channels], float32 or wider.

    Args:
      x_BHWC: height and width multiples of patch * 2^(levels - 1).
      t_B: time, on a scale of about 0 to 1000; None: the net knows no time.
      label_B: int in [0, num_classes], the last for none; None without num_classes.
      train: drop features (rng 'dropout').

    Raises:
      ConfigError: a size that the levels do not divide; labels without num_classes, or
        the other way round.
    """
    self._check(x_BHWC, label_B)
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    embedding_BF = None
    features = 4 * self.channels[0]
    if t_B is not None:
      embedding_BF = TimeEmbedding(features, name='time', **dtypes)(t_B)
    if self.num_classes is not None and label_B is not None:
      label = LabelEmbedding(self.num_classes, features, name='label', **dtypes)
      label_BF = label(label_B)
      embedding_BF = label_BF if embedding_BF is None else embedding_BF + label_BF
    if embedding_BF is not None:
      embedding_BF = nn.silu(embedding_BF)

    def block(x, channels, attend, where):
      residual = ResidualBlock(
        channels, self.groups, self.dropout, name=f'{where}_block', **dtypes
      )
      x = residual(x, embedding_BF, train=train)
      if not attend:
        return x
      attention = SelfAttention(
        self.head_features, self.groups, name=f'{where}_attention', **dtypes
      )
      return attention(x)

    x = space_to_depth(jnp.asarray(x_BHWC, self.dtype), self.patch)
    x = Conv(self.channels[0], (3, 3), name='conv_in', **dtypes)(x)
    skips = [x]
    for level, channels in enumerate(self.channels):
      if level:
        down = _dense(channels, name=f'downsample_{level}', **dtypes)
        x = down(space_to_depth(x, 2))
        skips.append(x)
      for i in range(self.blocks):
        x = block(x, channels, level in self.attention, f'down_{level}_{i}')
        skips.append(x)
    x = block(x, self.channels[-1], bool(self.attention), 'middle_0')
    x = block(x, self.channels[-1], False, 'middle_1')
    for level, channels in reversed(list(enumerate(self.channels))):
      for i in range(self.blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = block(x, channels, level in self.attention, f'up_{level}_{i}')
      if level:
        below = self.channels[level - 1]
        up = _dense(4 * below, name=f'upsample_{level}', **dtypes)
        x = depth_to_space(up(x), 2)
    x = _norm(x, self.groups, silu=True, name='norm_out', **dtypes)(x)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = Conv(
      self.out_channels * self.patch**2,
      (3, 3),
      kernel_init=nn.initializers.zeros,
      dtype=wide,
      param_dtype=self.param_dtype,
      name='conv_out',
    )(x)
    return depth_to_space(x, self.patch)

  def _check(self, x_BHWC: Array, label_B: Array | None):
    chex.assert_rank(x_BHWC, 4)
    multiple = self.patch * 2 ** (len(self.channels) - 1)
    if x_BHWC.shape[1] % multiple or x_BHWC.shape[2] % multiple:
      raise ConfigError(
        f'Images of {x_BHWC.shape[1]} x {x_BHWC.shape[2]} are not allowed: with patch='
        f'{self.patch} and {len(self.channels)} levels both must be multiples of '
        f'{multiple}.'
      )
    if (label_B is None) != (self.num_classes is None):
      raise ConfigError(
        f'num_classes={self.num_classes} is not allowed with'
        f'{"out" if label_B is None else ""} labels: give both or neither.'
      )


class ResidualBlock(nn.Module):
  """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), the second norm scaled and shifted.

  Attributes:
    channels: of the output; where the input has others, the skip is a Dense.
    groups: see UNet, like the others.
  """

  channels: int
  groups: int = 8
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x_BHWC: Array, embedding_BF: Array | None = None, *, train: bool
  ) -> Array:
    """[B, H, W, channels]; `embedding_BF` holds time and class, None: neither."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    h = _norm(x_BHWC, self.groups, silu=True, name='norm_0', **dtypes)(x_BHWC)
    h = Conv(self.channels, (3, 3), name='conv_0', **dtypes)(h)
    norm, moved = _norm(h, self.groups, silu=True, name='norm_1', **dtypes), ()
    if embedding_BF is not None:
      scale_shift = _dense(2 * self.channels, name='scale_shift', **dtypes)
      moved = jnp.split(scale_shift(embedding_BF), 2, axis=-1)
    h = nn.Dropout(self.dropout, deterministic=not train)(norm(h, *moved))
    zeros = nn.initializers.zeros
    h = Conv(self.channels, (3, 3), kernel_init=zeros, name='conv_1', **dtypes)(h)
    if x_BHWC.shape[-1] != self.channels:
      x_BHWC = _dense(self.channels, name='skip', **dtypes)(x_BHWC)
    return x_BHWC + h


class SelfAttention(nn.Module):
  """x + attention over all positions of norm(x) (arXiv:1706.03762), zero at the start.

  Attributes:
    head_features: width of a head; a divisor of the channels, or all of them where
      they are fewer.
    groups: see UNet, like the others.
  """

  head_features: int = 32
  groups: int = 8
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: Array) -> Array:
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    b, h, w, c = x_BHWC.shape
    width = min(self.head_features, c)
    if c % width:
      raise ConfigError(
        f'head_features={width} is not allowed: must divide the {c} channels.'
      )
    norm = _norm(x_BHWC, self.groups, name='norm', **dtypes)
    x_BLC = norm(x_BHWC).reshape(b, h * w, c)
    qkv = _dense(3 * c, name='qkv', **dtypes)(x_BLC)
    qkv = qkv.reshape(b, h * w, 3, c // width, width)
    q_BLND, k_BLND, v_BLND = (qkv[:, :, i] for i in range(3))
    wide = jnp.promote_types(self.dtype, jnp.float32)
    scores_BNLM = jnp.einsum('blnd,bmnd->bnlm', q_BLND, k_BLND).astype(wide)
    weights_BNLM = jax.nn.softmax(scores_BNLM * width**-0.5).astype(v_BLND.dtype)
    out_BLND = jnp.einsum('bnlm,bmnd->blnd', weights_BNLM, v_BLND)
    out = _dense(c, kernel_init=nn.initializers.zeros, name='out', **dtypes)
    out_BLC = out(out_BLND.reshape(b, h * w, c))
    return x_BHWC + out_BLC.reshape(b, h, w, c)


# Of images too, whose gradient the CPU otherwise computes at a third of the speed.
_dense = functools.partial(Dense)


def _norm(x: Array, groups: int, **fields: Any) -> GroupNorm:
  """GroupNorm with at most `groups` groups of 4 channels or more, all alike.

  A group of one channel would take out the bias of the convolution before it, and Adam
  divides a gradient of rounding noise by itself.
  """
  channels = x.shape[-1]
  most = max(1, min(groups, channels // 4))
  number = next(n for n in range(most, 0, -1) if channels % n == 0)
  return GroupNorm(number, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(Group):
  """Flags of a UNet, `--config.unet.NAME`."""

  channels: tuple[int, ...] = (32, 64)  # Channels of each level of the U-Net.
  blocks: int = 1  # Residual blocks of a level.
  attention: tuple[int, ...] = ()  # Levels with self-attention; none: no attention.
  patch: int = 2  # Pixels a side that become the channels of one position.
  dropout: float = 0.0  # Share of features dropped in the blocks.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('channels', least=1, some=True)
    self.bounds('blocks', 'patch', least=1)
    self.bounds('attention', least=0, below=len(self.channels))
    self.bounds('dropout', least=0, below=1)

  def module(self, out_channels: int, num_classes: int | None, **dtypes: Any) -> UNet:
    """The net; `dtypes` as `Config.dtypes`."""
    return UNet(
      out_channels=out_channels,
      channels=self.channels,
      blocks=self.blocks,
      attention=self.attention,
      num_classes=num_classes,
      patch=self.patch,
      dropout=self.dropout,
      **dtypes,
    )
