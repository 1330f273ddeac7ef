"""CenterNet: objects as points (Zhou et al., arXiv:1904.07850), on a U-Net.

The published nets have other bodies (Hourglass, DLA, ResNets with deconvolutions), all
of them with a way back to a map of a quarter of the sides; here it is that of
dlx/models/segmentation_unet.py, to any of its levels. The heads are as published: a 3x3
convolution, a ReLU, a 1x1 convolution. The published ones are a heat map, a size and an
offset; the latter two are one here, `shape`.
"""

import math
from typing import Any, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense
from dlx.models.segmentation_unet import UNetBody

Array = jax.Array
RARE = 0.1  # Probability of a peak with which training begins, as published.


class Maps(NamedTuple):
  """What a detector says of each cell.

  Attributes:
    heat_BHWK: logits of a centre of an object of each class, float32 or wider.
    shape_BHW4: see `detection.boxes_of`, float32 or wider.
  """

  heat_BHWK: Array
  shape_BHW4: Array


class CenterNet(nn.Module):
  """From images [B, H, W, C] to `Maps` of H / stride x W / stride cells.

  Attributes:
    num_outputs: K.
    channels: see `UNetBody`, the body.
    last: the level of the body that the heads read.
    width: channels between the two convolutions of a head; 256 as published.
    batch_norm, dropout, momentum: see `UNetBody`.
    dtype: of the arithmetic; the last layer of each head is at least float32.
    param_dtype: of the parameters.
  """

  num_outputs: int
  channels: Sequence[int] = (64, 128, 256, 512, 1024)
  last: int = 2
  width: int = 256
  batch_norm: bool = True
  dropout: float = 0.0
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @property
  def stride(self) -> int:
    """Pixels a side of a cell."""
    return 2**self.last

  def __call__(self, x_BHWC: Array, *, train: bool) -> Maps:
    """Arguments and errors as of `UNetBody`."""
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: Array, train: bool = False) -> Array:
    """What the heads read, [B, H / stride, W / stride, channels[last]]."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: Array, train: bool) -> tuple[Maps, Array]:
    """Maps and features."""
    x = UNetBody(
      self.channels,
      self.batch_norm,
      self.dropout,
      self.momentum,
      self.dtype,
      self.param_dtype,
      self.last,
      name='body',
    )(x_BHWC, train=train)

    def head(name, outputs, bias):
      y = Conv(
        self.width,
        (3, 3),
        kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f'{name}_hidden',
      )(x)
      return Dense(  # A 1x1 convolution.
        outputs,
        bias_init=nn.initializers.constant(bias),
        dtype=jnp.promote_types(self.dtype, jnp.float32),
        param_dtype=self.param_dtype,
        name=name,
      )(nn.relu(y))

    # Few cells are centres: else those that are none drown all at the beginning.
    heat = head('heat', self.num_outputs, math.log(RARE / (1 - RARE)))
    return Maps(heat, head('shape', 4, 0.0)), x
