"""Convolutions over time: a classifier of raw samples (arXiv:1610.00087)."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm
from dlx.models.net_layers import output_layer


class WaveformCNN(nn.Module):
  """Strided convolutions in time with batch norm and ReLU; their mean; one Dense.

  Each layer divides the length by `stride`, rounded up. Nothing is told of where in
  time a feature was but what its receptive field spans.

  Layers are `conv_0`, `norm_0`, `conv_1`, ... and `head`.

  Attributes:
    channels: of the layers.
    sizes: taps of the layers' filters, odd or even.
    stride: of each layer.
    num_outputs: K.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  channels: Sequence[int] = (16, 32, 64, 64)
  sizes: Sequence[int] = (64, 16, 8, 8)
  stride: int = 4
  num_outputs: int = 10
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BT: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BT: samples.
      train: use and update statistics of the batch (collection 'batch_stats').
    """
    return self.forward(x_BT, train)[0]

  def features(self, x_BT: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F]: means over time."""
    return self.forward(x_BT, train)[1]

  @nn.compact
  def forward(self, x_BT: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    # As images of one row: convolutions of two dimensions have fast gradients in loops.
    x_BHTC = x_BT[:, None, :, None]
    layers = zip(self.channels, self.sizes, strict=True)
    for i, (channels, size) in enumerate(layers):
      strides = (1, self.stride)
      conv: Any = Conv(
        channels, (1, size), strides, use_bias=False, name=f'conv_{i}', **dtypes
      )
      norm: Any = BatchNorm(not train, leak=0.0, name=f'norm_{i}', **dtypes)
      x_BHTC = norm(conv(x_BHTC))
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHTC.astype(wide).mean((1, 2))
    return output_layer(self)(x_BC), x_BC
