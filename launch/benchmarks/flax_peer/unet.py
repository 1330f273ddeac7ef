"""The U-Net of the benchmark as Flax's own examples would write it."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class TimeEmbedding(nn.Module):
  """64 sinusoids, Dense, SiLU, Dense."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, t: Array) -> Array:
    rate = 1e4 ** -jnp.linspace(0.0, 1.0, 32)
    angle = t[:, None] * rate
    x = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], 1)
    x = nn.silu(nn.Dense(self.features, dtype=self.dtype, name='hidden')(x))
    return nn.Dense(self.features, dtype=self.dtype, name='out')(x)


def group_norm(x: Array, name: str) -> Array:
  """Eight groups, or as many as there are fours of channels; in the dtype of x."""
  return nn.GroupNorm(min(8, x.shape[-1] // 4), dtype=x.dtype, name=name)(x)


class ResidualBlock(nn.Module):
  """GroupNorm, SiLU, convolution, twice; the time scales and shifts the second norm."""

  channels: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, embedding: Array) -> Array:
    conv = lambda i: nn.Conv(self.channels, (3, 3), dtype=self.dtype, name=f'conv_{i}')
    h = group_norm(conv(0)(nn.silu(group_norm(x, 'norm_0'))), 'norm_1')
    both = nn.Dense(2 * self.channels, dtype=self.dtype, name='scale_shift')
    both = both(embedding)[:, None, None]
    scale, shift = jnp.split(both, 2, axis=-1)
    h = conv(1)(nn.silu(h * (1 + scale) + shift))
    if x.shape[-1] != self.channels:
      x = nn.Dense(self.channels, dtype=self.dtype, name='skip')(x)
    return h + x


class UNet(nn.Module):
  """Residual blocks on two resolutions, squares of pixels as channels in between."""

  channels: Sequence[int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, t: Array) -> Array:
    first, second = self.channels
    embedding = nn.silu(TimeEmbedding(4 * first, self.dtype, name='time')(t))
    b, h, w, _ = x.shape

    def block(x, channels, where):
      return ResidualBlock(channels, self.dtype, name=f'{where}_block')(x, embedding)

    skips = [nn.Conv(first, (3, 3), dtype=self.dtype, name='conv_in')(x)]
    skips.append(block(skips[-1], first, 'down_0_0'))
    x = skips[-1].reshape(b, h // 2, 2, w // 2, 2, first).transpose(0, 1, 3, 2, 4, 5)
    down = nn.Dense(second, dtype=self.dtype, name='downsample_1')
    skips.append(down(x.reshape(b, h // 2, w // 2, 4 * first)))
    skips.append(block(skips[-1], second, 'down_1_0'))
    x = block(block(skips[-1], second, 'middle_0'), second, 'middle_1')
    for i in range(2):
      x = block(jnp.concatenate([x, skips.pop()], -1), second, f'up_1_{i}')
    x = nn.Dense(4 * first, dtype=self.dtype, name='upsample_1')(x)
    x = x.reshape(b, h // 2, w // 2, 2, 2, -1)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, first)
    for i in range(2):
      x = block(jnp.concatenate([x, skips.pop()], -1), first, f'up_0_{i}')
    x = nn.silu(group_norm(x, 'norm_out'))
    return nn.Conv(1, (3, 3), dtype=self.dtype, name='conv_out')(x)
