"""Small convolutional classifier of the LeNet kind (LeCun et al. 1998)."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import global_avg_pool, max_pool
from dlx.models.net_layers import output_layer


class CNN(nn.Module):
  """Blocks of 3x3 convolution, batch norm, ReLU, 2x2 max pool; then two Dense.

  Each block halves height and width, rounded down: 28 -> 14 -> 7, 8 -> 4 -> 2.
  With batch norm convolutions have no bias: it would take it out again, its gradient is
  rounding noise, and Adam divides noise by noise.

  Layers are `conv_0`, `norm_0`, `conv_1`, ..., `hidden`, `hidden_norm` and `head`.

  Attributes:
    channels: of the blocks.
    dense: width of the hidden Dense layer.
    num_outputs: K.
    dropout: probability that a unit of the hidden Dense layer is dropped.
    batch_norm: whether it stands after the convolutions (arXiv:1502.03167).
    dense_batch_norm: batch norm in the hidden Dense layer too, in place of its bias.
    pool: the mean over all positions is what `hidden` reads, in place of all of them
      (arXiv:1312.4400).
    frozen_norms: batch norm uses its running statistics in training, too, and leaves
      them, as a trunk needs that shall stay as it is.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  channels: Sequence[int] = (32, 64)
  dense: int = 128
  num_outputs: int = 10
  dropout: float = 0.3
  batch_norm: bool = True
  dense_batch_norm: bool = False
  pool: bool = False
  frozen_norms: bool = False
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images, at least 2**len(channels) high and wide.
      train: drop units (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: images too small for the number of blocks.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F]: the hidden layer's activations, after dropout."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    def norm_relu(x, name):
      running = self.frozen_norms or not train
      norm = BatchNorm(running, momentum=self.momentum, leak=0.0, name=name, **dtypes)
      return norm(x)

    for i, channels in enumerate(self.channels):
      plain = not self.batch_norm
      conv = Conv(channels, (3, 3), use_bias=plain, name=f'conv_{i}', **dtypes)
      x_BHWC = conv(x_BHWC)
      x_BHWC = nn.relu(x_BHWC) if plain else norm_relu(x_BHWC, f'norm_{i}')
      x_BHWC = max_pool(x_BHWC)
    if self.pool:
      x_BF = global_avg_pool(x_BHWC)
    else:
      x_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
    biased = not self.dense_batch_norm
    x_BF = Dense(self.dense, use_bias=biased, name='hidden', **dtypes)(x_BF)
    x_BF = nn.relu(x_BF) if biased else norm_relu(x_BF, 'hidden_norm')
    x_BF = nn.Dropout(self.dropout, deterministic=not train)(x_BF)
    return output_layer(self)(x_BF), x_BF
