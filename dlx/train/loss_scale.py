"""Dynamic loss scale of float16 (arXiv:1710.03740)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dlx.config import check_bounds
from dlx.errors import ConfigError
from dlx.optim.schedules import Number
from dlx.state import Array


class LossScale(NamedTuple):
  """Factor that keeps float16 gradients above underflow (arXiv:1710.03740).

  Attributes:
    scale: float32, a power of two, so that scaling and unscaling round nothing.
    good_steps: int32, finite steps since it last changed.
  """

  scale: Array
  good_steps: Array


MIN_LOSS_SCALE, MAX_LOSS_SCALE = 1.0, 2.0**24


def init_loss_scale(initial: float = 2.0**15) -> LossScale:
  """The state before step 0.

  Raises:
    ConfigError: `initial` is no power of two in [1, 2**24].
  """
  check_bounds('initial', initial, MIN_LOSS_SCALE, MAX_LOSS_SCALE)
  if np.log2(initial) % 1:
    raise ConfigError(f'initial={initial} is not allowed: must be a power of two.')
  return LossScale(jnp.asarray(initial, jnp.float32), jnp.zeros((), jnp.int32))


def next_loss_scale(
  loss_scale: LossScale, finite: Array, growth_steps: Number = 2000
) -> LossScale:
  """The scale after a step: halved where its gradients overflowed.

  `growth_steps` finite steps in a row double it. It stays within [1, 2**24].
  """
  good = jnp.where(finite, loss_scale.good_steps + 1, 0)
  grow = good >= growth_steps
  factor = jnp.where(finite, jnp.where(grow, 2.0, 1.0), 0.5)
  scale = jnp.clip(loss_scale.scale * factor, MIN_LOSS_SCALE, MAX_LOSS_SCALE)
  return LossScale(
    scale.astype(jnp.float32), jnp.where(grow, 0, good).astype(jnp.int32)
  )
