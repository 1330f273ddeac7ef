"""DCGAN: generator and discriminator of convolutions (arXiv:1511.06434)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm
from dlx.layers.upsampling import ConvTranspose2x
from dlx.models.gan import SLOPE, join_label, logit_of_label

# Weights N(0, 0.02), scales of batch norm N(1, 0.02): section 4 of the paper and the
# code that came with it.
normal = nn.initializers.normal(0.02)
NORMS = ('batch', 'spectral', 'none')


def around_one(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
  """N(1, 0.02)."""
  return 1 + normal(key, shape, dtype)


def smallest_side(side: int) -> tuple[int, int]:
  """Side of the coarsest grid and the number of doublings from it to `side`.

  Halved while even and above 4: 8 -> 4; 28 -> 14 -> 7; 32 -> 16 -> 8 -> 4.

  Raises:
    ConfigError: a side from which no grid of 4 to 7 is reached.
  """
  base, doublings = side, 0
  while base % 2 == 0 and base > 4:
    base, doublings = base // 2, doublings + 1
  if not 4 <= base <= 7 or not doublings:
    raise ConfigError(
      f'Images of side {side} are not allowed in a DCGAN: must be 4 to 7 times a power '
      'of two, such as 8, 28 or 32; resize them.'
    )
  return base, doublings


class Generator(nn.Module):
  """Noise to image: Dense to the coarsest grid, then transposed convolutions, tanh.

  Batch norm and ReLU after each layer but the last. For 28 x 28 and width 64:
  z -> 7x7x128 -> 14x14x64 -> 28x28x1; channels double with every halving of the grid.

  Layers are `dense`, `norm_0`, `up_0`, `norm_1`, ... and `pixels`.

  Attributes:
    shape: (height, width, channels) of the images, square.
    width: channels before the last layer.
    num_classes: K where classes are asked for: their one-hot code is joined to the
      noise; None: unconditional.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; tanh is at least float32.
    param_dtype: of the parameters.
  """

  shape: tuple[int, int, int] = (28, 28, 1)
  width: int = 64
  num_classes: int | None = None
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z_BZ: jax.Array, label_B: jax.Array | None = None, *, train: bool
  ) -> jax.Array:
    """Images [B, H, W, C] in [-1, 1], float32 or wider.

    Args:
      z_BZ: standard normal noise.
      label_B: class of each image; None without `num_classes`.
      train: use and update statistics of the batch (collection 'batch_stats').

    Raises:
      ConfigError: images that are not square, or of a side that cannot be.
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    base, doublings = smallest_side(_square(self.shape))

    def norm_relu(x, i):
      return BatchNorm(
        not train,
        momentum=self.momentum,
        leak=0.0,
        scale_init=around_one,
        name=f'norm_{i}',
        **dtypes,
      )(x)

    features = self.width * 2 ** (doublings - 1)
    x = join_label(z_BZ, label_B, self.num_classes)
    maps: dict[str, Any] = {'kernel_init': normal, **dtypes}
    size = base * base * features
    x = Dense(size, use_bias=False, name='dense', **maps)(x)
    x_BHWC = norm_relu(x.reshape(-1, base, base, features), 0)
    for i in range(doublings - 1):
      features //= 2
      up = ConvTranspose2x(features, use_bias=False, name=f'up_{i}', **maps)
      x_BHWC = norm_relu(up(x_BHWC), i + 1)
    x_BHWC = ConvTranspose2x(self.shape[2], name='pixels', **maps)(x_BHWC)
    return jnp.tanh(x_BHWC.astype(jnp.promote_types(self.dtype, jnp.float32)))


class Discriminator(nn.Module):
  """Image to one logit: convolutions 4x4 of stride 2, leaky ReLU, then Dense.

  For 28 x 28 and width 32: 28x28x1 -> 14x14x32 -> 7x7x64 -> logit.

  Layers are `conv_0`, `conv_1`, `norm_1`, ... and `head`.

  Attributes:
    width: channels of the first layer; they double with every halving of the grid.
    norm: 'batch', after each convolution but the first, as in the paper; 'spectral':
      kernels divided by their largest singular value (arXiv:1802.05957); 'none'.
    num_classes: K where the class is given: the logit of that class is added
      (a projection head, arXiv:1802.05637); None: unconditional.
    momentum: of the running statistics.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  width: int = 32
  norm: str = 'batch'
  num_classes: int | None = None
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x_BHWC: jax.Array, label_B: jax.Array | None = None, *, train: bool
  ) -> jax.Array:
    """Logits [B], float32 or wider: above 0 is real.

    Args:
      x_BHWC: images in [-1, 1].
      label_B: class of each image; None without `num_classes`.
      train: use and update statistics of the batch, and the vectors of the spectral
        norm (collection 'batch_stats').

    Raises:
      ConfigError: images that are not square, of a side that cannot be, or a norm that
        is none of NORMS.
    """
    check_choice('norm', self.norm, NORMS)
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    _, doublings = smallest_side(_square(x_BHWC.shape[1:]))

    def layer(module, x):
      if self.norm != 'spectral':
        return module(x)
      norm = nn.SpectralNorm(module, name=f'{module.name}_spectral')
      return norm(x, update_stats=train)

    for i in range(doublings):
      batch_norm = self.norm == 'batch' and i > 0
      conv = Conv(
        self.width * 2**i,
        (4, 4),
        (2, 2),
        padding=((1, 1), (1, 1)),
        use_bias=not batch_norm,
        kernel_init=normal,
        name=f'conv_{i}',
        **dtypes,
      )
      x_BHWC = layer(conv, x_BHWC)
      if batch_norm:
        x_BHWC = BatchNorm(
          not train,
          momentum=self.momentum,
          leak=SLOPE,
          scale_init=around_one,
          name=f'norm_{i}',
          **dtypes,
        )(x_BHWC)
      else:
        x_BHWC = nn.leaky_relu(x_BHWC, SLOPE)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    head = Dense(
      1 + (self.num_classes or 0),
      kernel_init=normal,
      dtype=wide,
      param_dtype=self.param_dtype,
      name='head',
    )
    out = layer(head, x_BHWC.reshape(x_BHWC.shape[0], -1))
    return logit_of_label(out, label_B, self.num_classes)


def _square(shape: Any) -> int:
  if shape[0] != shape[1]:
    raise ConfigError(
      f'Images of {shape[0]} x {shape[1]} are not allowed in a DCGAN: must be square.'
    )
  return shape[0]
