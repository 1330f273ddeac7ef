"""Autoencoders of small images: variational (arXiv 1312.6114) and plain."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.matmul import Dense


class VAE(nn.Module):
  """Dense encoder to a diagonal Gaussian, dense decoder to logits of the pixels.

  With features (400,) and 20 latents on 28 x 28 it is the net of the PyTorch example,
  784-400-20-400-784.

  Attributes:
    features: widths of the encoder's hidden layers; the decoder has them in reverse.
    latents: L, width of the code.
    shape: H, W, C of an image.
    dtype: of the arithmetic; mean, log-variance and logits are at least float32.
    param_dtype: of the parameters.
  """

  features: Sequence[int] = (400,)
  latents: int = 20
  shape: tuple[int, int, int] = (28, 28, 1)
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def setup(self):
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    wide = {**dtypes, 'dtype': jnp.promote_types(self.dtype, jnp.float32)}
    height, width, channels = self.shape
    self.encoder = [Dense(n, **dtypes) for n in self.features]
    self.gaussian = Dense(2 * self.latents, **wide)
    self.decoder = [Dense(n, **dtypes) for n in reversed(self.features)]
    self.pixels = Dense(height * width * channels, **wide)

  def encode(self, x_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log-variance [B, L] of the code of images in [0, 1]."""
    h_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
    for layer in self.encoder:
      h_BF = nn.relu(layer(h_BF))
    mean_BL, log_var_BL = jnp.split(self.gaussian(h_BF), 2, axis=-1)
    return mean_BL, log_var_BL

  def decode(self, z_BL: jax.Array) -> jax.Array:
    """Logits of the pixels [B, H, W, C]."""
    h_BF = z_BL
    for layer in self.decoder:
      h_BF = nn.relu(layer(h_BF))
    return self.pixels(h_BF).reshape(z_BL.shape[0], *self.shape)

  def __call__(self, x_BHWC: jax.Array, noise_BL: jax.Array):
    """(logits [B, H, W, C], mean [B, L], log-variance [B, L]).

    Args:
      x_BHWC: in [0, 1].
      noise_BL: standard normal; z = mean + noise * exp(log_var / 2). 0: the mean.
    """
    mean_BL, log_var_BL = self.encode(x_BHWC)
    z_BL = mean_BL + noise_BL * jnp.exp(log_var_BL / 2)
    return self.decode(z_BL), mean_BL, log_var_BL
