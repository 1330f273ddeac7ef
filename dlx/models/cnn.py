"""Small convolutional classifier of the LeNet kind (LeCun et al. 1998)."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import max_pool


class CNN(nn.Module):
  """Blocks of 3x3 convolution, batch norm, ReLU, 2x2 max pool; then two Dense.

  Each block halves height and width, rounded down: 28 -> 14 -> 7, 8 -> 4 -> 2.
  Convolutions have no bias: batch norm would take it out again, its gradient is
  rounding noise, and Adam divides noise by noise.

  Attributes:
    features: channels of the blocks.
    dense: width of the hidden Dense layer.
    num_outputs: K.
    dropout: probability that a unit of the hidden Dense layer is dropped.
    dense_batch_norm: batch norm in the hidden Dense layer too, in place of its bias.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  features: Sequence[int] = (32, 64)
  dense: int = 128
  num_outputs: int = 10
  dropout: float = 0.3
  dense_batch_norm: bool = False
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images, at least 2**len(features) high and wide.
      train: drop units (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: images too small for the number of blocks.
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    def norm_relu(x):
      return BatchNorm(not train, momentum=self.momentum, leak=0.0, **dtypes)(x)

    for channels in self.features:
      x_BHWC = Conv(channels, (3, 3), use_bias=False, **dtypes)(x_BHWC)
      x_BHWC = max_pool(norm_relu(x_BHWC))
    x_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
    x_BF = nn.Dense(self.dense, use_bias=not self.dense_batch_norm, **dtypes)(x_BF)
    x_BF = norm_relu(x_BF) if self.dense_batch_norm else nn.relu(x_BF)
    x_BF = nn.Dropout(self.dropout, deterministic=not train)(x_BF)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    return nn.Dense(self.num_outputs, dtype=wide, param_dtype=self.param_dtype)(x_BF)
