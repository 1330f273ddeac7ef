"""Diffusion models in discrete time: noise schedules, the forward process, samplers.

Steps are t = 0 ... T-1; the clean data x_0 comes before t = 0. A network enters as
`denoise(x_t, t_B) -> x_0`, its estimate of the clean data, whatever it predicts.

linear_schedule, cosine_schedule   how much noise step t holds
q_sample, q_step                   the forward process, in one go or step by step
PREDICTIONS                        what a network may predict: eps, v or x0
stratified_times, loss_weight      which steps a batch trains, and how much each counts
guided, denoiser                   from a network to `denoise`
ddpm, ddim                         which steps a sampler takes
sample, sample_path                takes them: one lax.scan
"""

from typing import Callable, Mapping, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx import labels
from dlx.errors import ConfigError
from dlx.state import Array, Key

Network = Callable[[Array, Array, Array], Array]  # (x_t, t_B, label_B) -> output


class Schedule(NamedTuple):
  """A variance-preserving noise schedule: x_t = signal_t x_0 + noise_t eps.

  NumPy float64, so that a sampler's coefficients, small differences of these, can be
  rounded last, and so that building one touches no device.

  Attributes:
    beta_T: [T], the variance that step t adds, in (0, 1).
    signal_T: sqrt(alpha_bar_t), falls.
    noise_T: sqrt(1 - alpha_bar_t), rises.
  """

  beta_T: np.ndarray
  signal_T: np.ndarray
  noise_T: np.ndarray

  @property
  def num_steps(self) -> int:
    return len(self.beta_T)


def linear_schedule(
  num_steps: int, first: float = 1e-4, last: float = 0.02
) -> Schedule:
  """Variances on a line (arXiv:2006.11239).

  `first` and `last` are for 1000 steps and are scaled by 1000 / num_steps, so that any
  number of steps ends in as much noise; from 25 steps on they are below 0.8.

  Raises:
    ConfigError: fewer than 25 steps.
  """
  _check_steps(num_steps, 25)
  return _schedule(np.linspace(first, last, num_steps) * (1000 / num_steps))


def cosine_schedule(num_steps: int, offset: float = 0.008) -> Schedule:
  """alpha_bar falls as a squared cosine (arXiv:2102.09672); variances up to 0.999.

  Raises:
    ConfigError: fewer than 2 steps.
  """
  _check_steps(num_steps, 2)
  u = np.arange(num_steps + 1) / num_steps
  alpha_bar = np.square(np.cos((u + offset) / (1 + offset) * np.pi / 2))
  return _schedule(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999))


SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
  'cosine': cosine_schedule,
  'linear': linear_schedule,
}


def _schedule(beta_T: np.ndarray) -> Schedule:
  log_T = np.cumsum(np.log1p(-beta_T))
  return Schedule(beta_T, np.exp(log_T / 2), np.sqrt(-np.expm1(log_T)))


def _check_steps(num_steps: int, least: int):
  if num_steps < least:
    raise ConfigError(
      f'num_steps={num_steps} of a noise schedule is not allowed: must be at least '
      f'{least}.'
    )


def snr(schedule: Schedule) -> np.ndarray:
  """Signal-to-noise ratio alpha_bar / (1 - alpha_bar) of each step, [T]."""
  return np.square(schedule.signal_T / schedule.noise_T)


# Training.


def q_sample(schedule: Schedule, x_0: Array, eps: Array, t_B: Array) -> Array:
  """x_t given x_0, in closed form.

  Args:
    x_0: [B, ...].
    eps: standard normal, of the same shape.
    t_B: int, in [0, T); examples at another step become nan.
  """
  chex.assert_equal_shape([x_0, eps])
  return (
    table_at(schedule.signal_T, t_B, x_0) * x_0
    + table_at(schedule.noise_T, t_B, x_0) * eps
  )


def q_step(schedule: Schedule, x_before: Array, eps: Array, t_B: Array) -> Array:
  """x_t given x_(t-1) (x_0 for t = 0): `sqrt(1 - beta) x + sqrt(beta) eps`."""
  chex.assert_equal_shape([x_before, eps])
  beta = table_at(schedule.beta_T, t_B, x_before)
  return jnp.sqrt(1 - beta) * x_before + jnp.sqrt(beta) * eps


def eps_from_x0(schedule: Schedule, x_t: Array, x_0: Array, t_B: Array) -> Array:
  """The noise in x_t if x_0 is its data: `(x_t - signal x_0) / noise`."""
  signal = table_at(schedule.signal_T, t_B, x_t) * x_0
  return (x_t - signal) / table_at(schedule.noise_T, t_B, x_t)


class Prediction(NamedTuple):
  """What a network predicts.

  Attributes:
    target: (schedule, x_0, eps, t_B) -> what its output is compared with.
    to_x0: (schedule, x_t, output, t_B) -> the clean data that this output means.
    x0_errors: snr -> squared errors of x_0 that one squared error of this is worth.
  """

  target: Callable[[Schedule, Array, Array, Array], Array]
  to_x0: Callable[[Schedule, Array, Array, Array], Array]
  x0_errors: Callable[[np.ndarray], np.ndarray]


def _eps_to_x0(schedule, x_t, eps, t_B):
  noise = table_at(schedule.noise_T, t_B, x_t) * eps
  return (x_t - noise) / table_at(schedule.signal_T, t_B, x_t)


def _v_target(schedule, x_0, eps, t_B):
  return (
    table_at(schedule.signal_T, t_B, x_0) * eps
    - table_at(schedule.noise_T, t_B, x_0) * x_0
  )


def _v_to_x0(schedule, x_t, v, t_B):
  return (
    table_at(schedule.signal_T, t_B, x_t) * x_t
    - table_at(schedule.noise_T, t_B, x_t) * v
  )


# An error of eps is noise / signal times as large in x_0; v = signal eps - noise x_0
# (arXiv:2202.00512) lies between the two and is well defined at both ends.
PREDICTIONS: Mapping[str, Prediction] = {
  'eps': Prediction(lambda schedule, x_0, eps, t_B: eps, _eps_to_x0, lambda r: r),
  'v': Prediction(_v_target, _v_to_x0, lambda r: 1 + r),
  'x0': Prediction(
    lambda schedule, x_0, eps, t_B: x_0,
    lambda schedule, x_t, output, t_B: output,
    np.ones_like,
  ),
}


def loss_weight(
  schedule: Schedule, prediction: Prediction, min_snr: float | None
) -> np.ndarray:
  """Weight of the squared error of a prediction at each step, [T].

  Args:
    min_snr: gamma of arXiv:2303.09556: a squared error of x_0 weighs min(snr, gamma),
      whatever is predicted. None: 1, the plain squared error of the prediction.
  """
  ratio_T = snr(schedule)
  if min_snr is None:
    return np.ones_like(ratio_T)
  return np.minimum(ratio_T, min_snr) / prediction.x0_errors(ratio_T)


def at(table_T: np.ndarray, t_B: Array) -> Array:
  """The entry of each example, float32 [B]; nan for a step outside [0, T)."""
  return labels.rows(jnp.asarray(table_T, jnp.float32), t_B)


def stratified_times(key: Key, batch_size: int, num_steps: int) -> Array:
  """Steps of a batch, int32 [B]: each uniform in [0, num_steps), evenly spread.

  One draw shifts a grid of B points (arXiv:2107.00630), so that a batch sees all noise
  levels alike and its loss scatters less than with B draws.
  """
  shift = jax.random.uniform(key, (), jnp.float32)
  grid_B = jnp.arange(batch_size, dtype=jnp.float32) / batch_size
  t_B = jnp.floor(jnp.mod(shift + grid_B, 1.0) * num_steps)
  return jnp.minimum(t_B.astype(jnp.int32), num_steps - 1)


# Sampling.


def table_at(table_T: np.ndarray, t_B: Array, like: Array) -> Array:
  """Entries of a table as [B, 1, ...], in the dtype of `like`; nan outside [0, T)."""
  wide = jnp.promote_types(like.dtype, jnp.float32)
  entry_B = labels.rows(jnp.asarray(table_T, wide), t_B)
  return entry_B.astype(like.dtype).reshape(t_B.shape + (1,) * (like.ndim - 1))
