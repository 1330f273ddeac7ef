"""Two players by the distance that earth moves: WGAN with a gradient penalty.

The critic gives a number to each image, not a probability, and must not change faster
than the images do (arXiv:1701.07875); the penalty asks for a slope of 1 between real
images and samples (arXiv:1704.00028). Values are one an example, float32 or wider.
"""

from typing import Callable

import chex
import jax
import jax.numpy as jnp

from dlx.losses.margins import distance
from dlx.losses.regression import flat_rows
from dlx.precision import at_least_float32
from dlx.state import Array


def wasserstein_critic(real_B: Array, fake_B: Array) -> Array:
  """`critic(sample) - critic(real)` [B]; the mean of minus this estimates the distance.

  Add about 10 times `wasserstein_penalty`.
  """
  chex.assert_rank([real_B, fake_B], 1)
  chex.assert_equal_shape([real_B, fake_B])
  return at_least_float32(fake_B) - at_least_float32(real_B)


def wasserstein_generator(fake_B: Array) -> Array:
  """`-critic(sample)` [B]."""
  chex.assert_rank(fake_B, 1)
  return -at_least_float32(fake_B)


def wasserstein_penalty(
  critic: Callable[[Array], Array], real: Array, fake: Array, mix_B: Array
) -> Array:
  """`(|gradient of the critic by its input| - 1)^2` between real and sample [B].

  Args:
    critic: [B, ...] -> [B], each of its own row alone (no batch norm over the batch).
    real: [B, ...].
    fake: same shape; no gradient of the generator is wanted here.
    mix_B: share of the real one in each, uniform in [0, 1).
  """
  chex.assert_equal_shape([real, fake])
  chex.assert_shape(mix_B, real.shape[:1])
  mix = mix_B.reshape(-1, *[1] * (real.ndim - 1)).astype(real.dtype)
  between = mix * real + (1 - mix) * fake
  slope = jax.grad(lambda x: at_least_float32(critic(x)).sum())(between)
  slope_BX = flat_rows(slope)
  # Where the critic is flat the norm has no derivative: 0 is taken.
  return jnp.square(distance(slope_BX, jnp.zeros_like(slope_BX)) - 1)
