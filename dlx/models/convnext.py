"""ConvNeXt (arXiv:2201.03545): a ResNet with the habits of a vision transformer.

  block    x + path(scale * project(gelu(expand(norm(depthwise(x))))))

A depthwise 7 x 7 convolution, layer norm over the channels, two 1 x 1 convolutions with
four times the channels between them, LayerScale (arXiv:2103.17239) and stochastic depth
(arXiv:1603.09382). Between stages a layer norm and a 2 x 2 convolution of stride 2.

Layers and those of the authors' checkpoints (a kernel as OIHW, without its window where
that is of a Linear):

  stem, stem_norm                 downsample_layers.0.0, .0.1
  down2_norm, down2 ...           downsample_layers.1.0, .1.1, up to 3 of stage 4
  stageI_blockJ                   stages.(I - 1).(J - 1)
    depthwise, norm               .dwconv, .norm
    expand, project               .pwconv1, .pwconv2
    layer_scale                   .gamma
  norm, head                      norm, head
"""

import functools
from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.activations import gelu
from dlx.layers.convolution import Conv
from dlx.layers.dropout import DropPath
from dlx.layers.normalisation import LayerNorm
from dlx.models.net_layers import output_layer

_NORMAL = nn.initializers.truncated_normal(0.02)


class Size(NamedTuple):
  """A member of the family.

  Attributes:
    blocks: of each stage.
    channels: of each stage.
    drop_path: of the last block, in the authors' training on ImageNet-1K.
  """

  blocks: tuple[int, ...]
  channels: tuple[int, ...]
  drop_path: float


SIZES = {
  'tiny': Size((3, 3, 9, 3), (96, 192, 384, 768), 0.1),
  'small': Size((3, 3, 27, 3), (96, 192, 384, 768), 0.4),
  'base': Size((3, 3, 27, 3), (128, 256, 512, 1024), 0.5),
}


class ConvNeXt(nn.Module):
  """Stem, stages, mean over all positions, layer norm, Dense.

  The stem and each step between stages cut the image into squares that do not overlap:
  what is left over at the right and lower end is not seen.

  Attributes:
    blocks: of each stage.
    channels: of each stage.
    num_outputs: K.
    patch: side and stride of the stem.
    kernel: side of the depthwise filters, odd.
    layer_scale: factor of each branch and channel at the beginning; None: no factors.
    drop_path: rate of the last block, in training; rising evenly from 0 at the first.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  blocks: Sequence[int]
  channels: Sequence[int]
  num_outputs: int = 10
  patch: int = 4
  kernel: int = 7
  layer_scale: float | None = 1e-6
  drop_path: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      train: drop branches (rng 'dropout').

    Raises:
      ConfigError: an image in which the stem or a step finds no square.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the mean over all positions, normalised."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    self._check(x_BHWC.shape)
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    conv: Any = functools.partial(Conv, padding='VALID', kernel_init=_NORMAL, **dtypes)
    norm: Any = functools.partial(LayerNorm, epsilon=1e-6, **dtypes)
    total, number = sum(self.blocks), 0
    for i, (count, width) in enumerate(zip(self.blocks, self.channels, strict=True), 1):
      if i == 1:
        cut = (self.patch, self.patch)
        x_BHWC = norm(name='stem_norm')(conv(width, cut, cut, name='stem')(x_BHWC))
      else:
        x_BHWC = norm(name=f'down{i}_norm')(x_BHWC)
        x_BHWC = conv(width, (2, 2), (2, 2), name=f'down{i}')(x_BHWC)
      for j in range(1, count + 1):
        x_BHWC = ConvNeXtBlock(
          kernel=self.kernel,
          layer_scale=self.layer_scale,
          drop_path=self.drop_path * number / max(total - 1, 1),
          deterministic=not train,
          conv=conv,
          norm=norm,
          param_dtype=self.param_dtype,
          name=f'stage{i}_block{j}',
        )(x_BHWC)
        number += 1
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    x_BC = LayerNorm(1e-6, dtype=wide, param_dtype=self.param_dtype, name='norm')(x_BC)
    return output_layer(self, kernel_init=_NORMAL)(x_BC), x_BC

  def _check(self, shape: Sequence[int]):
    least = self.patch * 2 ** (len(self.blocks) - 1)
    if min(shape[1:3]) < least:
      raise ConfigError(
        f'Images of {shape[1]} x {shape[2]} are not allowed with patch={self.patch} '
        f'and {len(self.blocks)} stages: must be {least} pixels or more each way; use '
        'a smaller patch or fewer stages.'
      )


class ConvNeXtBlock(nn.Module):
  """One block; see the module, and ConvNeXt for the other attributes.

  Attributes:
    drop_path: rate at which the branch of an example is dropped.
    deterministic: nothing is dropped.
    conv, norm: make the layers.
  """

  kernel: int
  layer_scale: float | None
  drop_path: float
  deterministic: bool
  conv: Any
  norm: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    channels = x_BHWC.shape[-1]
    y = self.conv(
      channels,
      (self.kernel, self.kernel),
      padding=(self.kernel - 1) // 2,
      feature_group_count=channels,
      name='depthwise',
    )(x_BHWC)
    y = self.norm(name='norm')(y)
    y = gelu(self.conv(4 * channels, (1, 1), name='expand')(y))
    y = self.conv(channels, (1, 1), name='project')(y)
    if self.layer_scale is not None:
      init = nn.initializers.constant(self.layer_scale)
      scale_C = self.param('layer_scale', init, (channels,), self.param_dtype)
      y *= scale_C.astype(y.dtype)[None, None, None]
    if self.drop_path:
      y = DropPath(self.drop_path, self.deterministic)(y)
    return x_BHWC + y


def convnext(size: str, **fields: Any) -> ConvNeXt:
  """A member of the family; on 224 x 224 x 3, 1000 classes:

    tiny    28,589,128 parameters (paper: 29 M), 4.5 G multiply-adds (4.5 G)
    small   50,223,688 (50 M), 8.7 G (8.7 G)
    base    88,591,464 (89 M), 15.4 G (15.4 G)

  Args:
    size: one of SIZES.
    fields: of ConvNeXt; `drop_path` is 0 unless given.

  Raises:
    ConfigError: another size.
  """
  if size not in SIZES:
    raise ConfigError(f'size={size} is not allowed: must be one of {", ".join(SIZES)}.')
  of = SIZES[size]
  return ConvNeXt(of.blocks, of.channels, **fields)
