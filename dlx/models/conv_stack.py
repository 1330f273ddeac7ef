"""Convolutions of stride 1, of which one unit names the image."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.activations import activation
from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense


class ConvStack(nn.Module):
  """Convolutions of one stride, and a linear layer on the unit in the middle.

  Attributes:
    num_layers: convolutions.
    kernel: side of their filters, odd.
    features: their channels.
    linear: whether there is nothing between them; else ReLU.
    num_outputs: K.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  num_layers: int
  kernel: int
  features: int
  linear: bool
  num_outputs: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider."""
    del train
    return self.forward(x_BHWC)[0]

  def map(self, x_BHWC: jax.Array) -> jax.Array:
    """The last map [B, H, W, features]."""
    return self.forward(x_BHWC)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and the last map."""
    for i in range(self.num_layers):
      x_BHWC = Conv(
        self.features,
        (self.kernel, self.kernel),
        padding='SAME',
        kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f'conv{i + 1}',
      )(x_BHWC)
      if not self.linear:
        x_BHWC = activation('relu')(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    height, width = x_BHWC.shape[1:3]
    middle_BC = x_BHWC[:, height // 2, width // 2].astype(wide)
    head = Dense(
      self.num_outputs, dtype=wide, param_dtype=self.param_dtype, name='head'
    )
    return head(middle_BC), x_BHWC
