"""Generator and discriminator of the first GAN: dense layers only (arXiv:1406.2661)."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.errors import ConfigError
from dlx.layers.matmul import Dense

SLOPE = 0.2  # Of the leaky ReLU below 0.


class Generator(nn.Module):
  """Noise to image: Dense and leaky ReLU for each width, Dense, tanh.

  Attributes:
    shape: (height, width, channels) of the images.
    features: widths of the hidden layers.
    num_classes: K where classes are asked for: their one-hot code is joined to the
      noise; None: unconditional.
    dtype: of the hidden layers' arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  shape: tuple[int, int, int] = (28, 28, 1)
  features: Sequence[int] = (256, 512)
  num_classes: int | None = None
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
      train: changes nothing here; the generators of a family are called alike.
    """
    del train
    x_BF = join_label(z_BZ, label_B, self.num_classes)
    for i, width in enumerate(self.features):
      x_BF = nn.leaky_relu(_hidden(self, i, width)(x_BF), SLOPE)
    height, width, channels = self.shape
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BF = Dense(
      height * width * channels, dtype=wide, param_dtype=self.param_dtype, name='pixels'
    )(x_BF)
    return jnp.tanh(x_BF).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """Image to one logit: Dense, leaky ReLU, dropout for each width, then Dense.

  Attributes:
    features: widths of the hidden layers.
    dropout: probability that a hidden unit is dropped.
    num_classes: K where the class is given: the logit of that class is added
      (a projection head, arXiv:1802.05637); None: unconditional.
    dtype: of the hidden layers' arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  features: Sequence[int] = (512, 256)
  dropout: float = 0.3
  num_classes: int | None = None
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
      train: drop units (rng 'dropout').
    """
    x_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
    for i, width in enumerate(self.features):
      x_BF = nn.leaky_relu(_hidden(self, i, width)(x_BF), SLOPE)
      x_BF = nn.Dropout(self.dropout, deterministic=not train)(x_BF)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    head = Dense(
      1 + (self.num_classes or 0), dtype=wide, param_dtype=self.param_dtype, name='head'
    )
    return logit_of_label(head(x_BF), label_B, self.num_classes)


def join_label(
  z_BZ: jax.Array, label_B: jax.Array | None, num_classes: int | None
) -> jax.Array:
  """Noise and the one-hot code of the class asked for, [B, Z + K].

  The code of a label outside [0, K) is nan.
  """
  if num_classes is None:
    return z_BZ
  label_B = _given(label_B)
  return jnp.concatenate([z_BZ, labels.one_hot(label_B, num_classes, z_BZ.dtype)], 1)


def logit_of_label(
  out_BK1: jax.Array, label_B: jax.Array | None, num_classes: int | None
) -> jax.Array:
  """The first output, and that of the label added where there are classes: [B].

  nan for a label outside [0, K).
  """
  if num_classes is None:
    return out_BK1[:, 0]
  hot_BK = labels.one_hot(_given(label_B), num_classes, out_BK1.dtype)
  return out_BK1[:, 0] + (out_BK1[:, 1:] * hot_BK).sum(1)


def _hidden(model: Any, i: int, width: int) -> Dense:
  return Dense(
    width, dtype=model.dtype, param_dtype=model.param_dtype, name=f'hidden_{i}'
  )


def _given(label_B: jax.Array | None) -> jax.Array:
  if label_B is None:
    raise ConfigError('label_B=None is not allowed: must be classes, for num_classes.')
  return label_B
