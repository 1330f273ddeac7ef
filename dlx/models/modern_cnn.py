"""Convolutional classifier without hidden dense layers: batch norm and a global mean.

What came after LeNet and AlexNet: 3x3 convolutions, each with batch norm
(arXiv:1502.03167) and a ReLU, twice the channels where the map is halved
(arXiv:1409.1556), and the mean over all positions in place of dense layers
(arXiv:1312.4400).
"""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import global_avg_pool, max_pool
from dlx.models.net_layers import output_layer


class ModernCNN(nn.Module):
  """Blocks of 3x3 convolutions, batch norm, ReLU; global mean, dropout, one Dense.

  A 2x2 max pool lies between two blocks, so that three blocks halve height and width
  twice, rounded down: 32 -> 16 -> 8. With channels (64, 128, 256), one convolution a
  block, and images of three channels in ten classes it has 373834 parameters.
  Convolutions have no bias, as batch norm would take it out again.

  Layers are `block1_conv1`, `block1_norm1`, ..., and `head`.

  Attributes:
    channels: of the blocks.
    convs: convolutions a block.
    num_outputs: K.
    dropout: probability that a channel of the mean is dropped.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  channels: Sequence[int] = (64, 128, 256)
  convs: int = 1
  num_outputs: int = 10
  dropout: float = 0.5
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images, at least 2**(len(channels) - 1) high and wide.
      train: drop channels (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: no block, no convolution, or images too small for the blocks.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the mean over all positions, after dropout."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    if not self.channels or self.convs < 1:
      raise ConfigError(
        f'channels={tuple(self.channels)} with convs={self.convs} is not allowed: must '
        'be one block or more, of one convolution or more.'
      )
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    he: Any = nn.initializers.he_normal()
    for i, channels in enumerate(self.channels, 1):
      if i > 1:
        x_BHWC = max_pool(x_BHWC)
      for j in range(1, self.convs + 1):
        x_BHWC = Conv(
          channels,
          (3, 3),
          use_bias=False,
          kernel_init=he,
          name=f'block{i}_conv{j}',
          **dtypes,
        )(x_BHWC)
        x_BHWC = BatchNorm(
          not train,
          momentum=self.momentum,
          leak=0.0,
          name=f'block{i}_norm{j}',
          **dtypes,
        )(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = global_avg_pool(x_BHWC.astype(wide))
    x_BC = nn.Dropout(self.dropout, deterministic=not train)(x_BC)
    return output_layer(self)(x_BC), x_BC
