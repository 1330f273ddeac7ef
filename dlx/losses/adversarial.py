"""Losses of two players: a discriminator of real and fake, and a generator.

Every function takes logits of the discriminator ([B], above 0 is real; D below is their
sigmoid) and gives one value an example, in float32 or wider:

  discriminator_loss(real_B, fake_B) -> [B]   to be minimised by the discriminator
  generator_loss(fake_B) -> [B]               to be minimised by the generator

| kind | discriminator | generator |
| --- | --- | --- |
| minimax | -log D(x) - log(1 - D(G(z))) | log(1 - D(G(z))) |
| non_saturating | the same | -log D(G(z)) |
| least_squares | ((x - 1)^2 + f^2) / 2 of the logits x and f | (f - 1)^2 / 2 |
| hinge | max(0, 1 - x) + max(0, 1 + f) | -f |

Where the discriminator wins, D(G(z)) near 0, the derivative of the minimax loss by the
logit of a sample is -D(G(z)), near 0, and no sample improves; that of the
non-saturating loss is D(G(z)) - 1, near -1, with the same fixed point (section 3 of
arXiv:1406.2661). Least squares is arXiv:1611.04076 with targets 0, 1, 1; hinge is
arXiv:1705.02894.
"""

import math
from typing import Callable

import chex
import jax
import jax.numpy as jnp

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.losses.regression import flat_rows
from dlx.precision import at_least_float32
from dlx.state import Array

KINDS = ('minimax', 'non_saturating', 'least_squares', 'hinge')


def discriminator_loss(
  kind: str, real_B: Array, fake_B: Array, real_label: float | Array = 1.0
) -> Array:
  """Loss of the discriminator for pairs of a real image and a sample.

  Args:
    kind: one of KINDS.
    real_B: logits of real images.
    fake_B: logits of samples.
    real_label: target for real images, in (0, 1]: 0.9 is one-sided smoothing
      (arXiv:1606.03498), which bounds the best logit by log(0.9 / 0.1) = 2.2. For
      'least_squares' the target of the logit itself. 'hinge' has no target: 1 only.

  Raises:
    ConfigError: another kind, or a smoothed label for hinge.
  """
  check_choice('loss', kind, KINDS)
  chex.assert_rank([real_B, fake_B], 1)
  chex.assert_equal_shape([real_B, fake_B])
  real_B, fake_B = at_least_float32(real_B), at_least_float32(fake_B)
  if kind in ('minimax', 'non_saturating'):
    # Two softplus, not softplus(-x) + (1 - t) x: exact for large logits.
    real_loss_B = real_label * jax.nn.softplus(-real_B)
    if not _is_one(real_label):
      real_loss_B = real_loss_B + (1 - real_label) * jax.nn.softplus(real_B)
    return real_loss_B + jax.nn.softplus(fake_B)
  if kind == 'least_squares':
    return 0.5 * (jnp.square(real_B - real_label) + jnp.square(fake_B))
  if not _is_one(real_label):
    raise ConfigError(
      f'real_label={real_label} is not allowed with hinge: must be 1, since the hinge '
      'has no target.'
    )
  return jax.nn.relu(1 - real_B) + jax.nn.relu(1 + fake_B)


def generator_loss(kind: str, fake_B: Array) -> Array:
  """Loss of the generator for each sample, from its logits.

  Raises:
    ConfigError: another kind.
  """
  check_choice('loss', kind, KINDS)
  chex.assert_rank(fake_B, 1)
  fake_B = at_least_float32(fake_B)
  if kind == 'minimax':
    return -jax.nn.softplus(fake_B)
  if kind == 'non_saturating':
    return jax.nn.softplus(-fake_B)
  if kind == 'least_squares':
    return 0.5 * jnp.square(fake_B - 1)
  return -fake_B


def threshold(kind: str, real_label: float = 1.0) -> float:
  """The logit above which the discriminator calls an image real.

  Where real images and samples are equally likely the best D is `real_label / 2`, so
  that with smoothed labels it calls nearly all images fake by D > 1 / 2.
  """
  check_choice('loss', kind, KINDS)
  if kind == 'hinge':
    return 0.0
  half = real_label / 2
  return half if kind == 'least_squares' else math.log(half / (1 - half))


def gradient_penalty(logits_of: Callable[[Array], Array], real_BHWC: Array) -> Array:
  """R1: |gradient of the logit by the image|^2 at real images, [B] (arXiv:1801.04406).

  Added to the discriminator's loss as `gamma / 2` times it.

  Args:
    logits_of: images [B, H, W, C] -> logits [B], each of its own image alone (no batch
      norm over the batch).
    real_BHWC: real images.
  """
  slope_BHWC = jax.grad(lambda x: logits_of(x).sum())(real_BHWC)
  slope_BHWC = at_least_float32(slope_BHWC)
  return flat_rows(jnp.square(slope_BHWC)).sum(1)


def _is_one(x) -> bool:
  return isinstance(x, (int, float)) and x == 1
