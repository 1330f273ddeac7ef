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

from dlx.errors import ConfigError
from dlx.state import Array, Key

Network = Callable[[Array, Array, Array], Array]  # (x_t, t_B, label_B) -> output
Denoise = Callable[[Array, Array], Array]  # (x_t, t_B) -> x_0


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
    t_B: int, in [0, T).
  """
  chex.assert_equal_shape([x_0, eps])
  return _at(schedule.signal_T, t_B, x_0) * x_0 + _at(schedule.noise_T, t_B, x_0) * eps


def q_step(schedule: Schedule, x_before: Array, eps: Array, t_B: Array) -> Array:
  """x_t given x_(t-1) (x_0 for t = 0): `sqrt(1 - beta) x + sqrt(beta) eps`."""
  chex.assert_equal_shape([x_before, eps])
  beta = _at(schedule.beta_T, t_B, x_before)
  return jnp.sqrt(1 - beta) * x_before + jnp.sqrt(beta) * eps


def eps_from_x0(schedule: Schedule, x_t: Array, x_0: Array, t_B: Array) -> Array:
  """The noise in x_t if x_0 is its data: `(x_t - signal x_0) / noise`."""
  signal = _at(schedule.signal_T, t_B, x_t) * x_0
  return (x_t - signal) / _at(schedule.noise_T, t_B, x_t)


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
  noise = _at(schedule.noise_T, t_B, x_t) * eps
  return (x_t - noise) / _at(schedule.signal_T, t_B, x_t)


def _v_target(schedule, x_0, eps, t_B):
  return _at(schedule.signal_T, t_B, x_0) * eps - _at(schedule.noise_T, t_B, x_0) * x_0


def _v_to_x0(schedule, x_t, v, t_B):
  return _at(schedule.signal_T, t_B, x_t) * x_t - _at(schedule.noise_T, t_B, x_t) * v


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
  """The entry of each example, float32 [B]."""
  return jnp.asarray(table_T, jnp.float32)[t_B]


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


def guided(network: Network, label_B: Array, null: int, scale: float) -> Denoise:
  """Classifier-free guidance (arXiv:2207.12598): (x_t, t_B) -> output.

  `(1 + scale) conditional - scale unconditional`, both halves in one batch.

  Args:
    network: a conditional network that was trained with dropped labels.
    label_B: what is asked for.
    null: the label that stands for none.
    scale: 0: the conditional network, in one evaluation.
  """
  if scale == 0:
    return lambda x_t, t_B: network(x_t, t_B, label_B)

  def output(x_t, t_B):
    twice = lambda x: jnp.concatenate([x, x])
    label_2B = jnp.concatenate([label_B, jnp.full_like(label_B, null)])
    asked, free = jnp.split(network(twice(x_t), twice(t_B), label_2B), 2)
    return asked + scale * (asked - free)

  return output


def denoiser(
  schedule: Schedule, prediction: Prediction, output: Denoise, clip: float | None = 1.0
) -> Denoise:
  """`denoise` of a network's output; |x_0| is cut at `clip`, the range of the data."""

  def denoise(x_t, t_B):
    x_0 = prediction.to_x0(schedule, x_t, output(x_t, t_B).astype(x_t.dtype), t_B)
    return x_0 if clip is None else jnp.clip(x_0, -clip, clip)

  return denoise


class Steps(NamedTuple):
  """What a sampler does: `x <- data x_0(x, t) + carry x + sigma z`, S times.

  Attributes:
    t_S: int32, falling; the step of the schedule that x is at.
    data_S: float64, like the others.
    carry_S: of x itself.
    sigma_S: deviation of fresh noise; 0 at the end.
  """

  t_S: np.ndarray
  data_S: np.ndarray
  carry_S: np.ndarray
  sigma_S: np.ndarray


def _levels(schedule: Schedule, num_steps: int):
  """t, and (signal, noise) there and at the next step; even, T-1 first."""
  total = schedule.num_steps
  if not 1 <= num_steps <= total:
    raise ConfigError(
      f'num_steps={num_steps} of a sampler is not allowed: must be in [1, {total}], '
      'the steps of its schedule.'
    )
  # From the noisiest step on (arXiv:2305.08891): samples start as pure noise, which a
  # network knows from T-1 alone.
  t_S = np.rint(total * np.arange(num_steps, 0, -1) / num_steps).astype(np.int32) - 1
  now = schedule.signal_T[t_S], schedule.noise_T[t_S]
  then = np.append(now[0][1:], 1.0), np.append(now[1][1:], 0.0)
  return t_S, now, then


def ddpm(schedule: Schedule, num_steps: int, variance: str = 'small') -> Steps:
  """Ancestral sampling (arXiv:2006.11239): the posterior of the next step given x_0.

  Args:
    num_steps: evenly spaced, at most those of the schedule.
    variance: of the noise between two steps: 'small', that of the posterior, exact for
      data that is one point; 'large', that of the forward process, exact for data that
      is standard normal.

  Raises:
    ConfigError: another variance or an impossible number of steps.
  """
  t_S, (signal, noise), (next_signal, next_noise) = _levels(schedule, num_steps)
  ratio = signal / next_signal
  forward = -np.expm1(2 * np.log(ratio))  # Variance from the next step to this one.
  posterior = forward * np.square(next_noise / noise)
  if variance not in ('small', 'large'):
    raise ConfigError(f'variance={variance!r} is not allowed: must be small or large.')
  sigma = np.sqrt(posterior if variance == 'small' else forward)
  sigma[-1] = 0.0  # The last step returns its mean.
  return Steps(
    t_S=t_S,
    data_S=next_signal * forward / np.square(noise),
    carry_S=ratio * np.square(next_noise / noise),
    sigma_S=sigma,
  )


def ddim(schedule: Schedule, num_steps: int, eta: float = 0.0) -> Steps:
  """Implicit sampling (arXiv:2010.02502).

  Args:
    num_steps: evenly spaced, at most those of the schedule.
    eta: 0: no noise after the start; 1: ancestral sampling.

  Raises:
    ConfigError: eta outside [0, 1] or an impossible number of steps.
  """
  if not 0 <= eta <= 1:
    raise ConfigError(f'eta={eta} is not allowed: must be in [0, 1].')
  t_S, (signal, noise), (next_signal, next_noise) = _levels(schedule, num_steps)
  forward = -np.expm1(2 * np.log(signal / next_signal))
  sigma = eta * next_noise / noise * np.sqrt(forward)
  old = np.sqrt(np.maximum(np.square(next_noise) - np.square(sigma), 0)) / noise
  return Steps(t_S=t_S, data_S=next_signal - old * signal, carry_S=old, sigma_S=sigma)


def row_noise(keys_B: Key, index: Array | int, shape: tuple[int, ...]) -> Array:
  """Standard normal float32 [B, *shape]: draw `index` of each row's own key.

  A row's noise does not depend on the batch that it lies in. Draw 0 is the start of a
  sampler, whose steps take the draws from 1 on.
  """
  one = lambda key: jax.random.normal(
    jax.random.fold_in(key, index), shape, jnp.float32
  )
  return jax.vmap(one)(keys_B)


def sample(denoise: Denoise, steps: Steps, x_T: Array, keys_B: Key) -> Array:
  """Samples of the data, from noise.

  Args:
    denoise: (x_t, t_B) -> x_0.
    steps: of `ddpm` or `ddim`.
    x_T: standard normal [B, ...], for instance `row_noise(keys_B, 0, shape)`.
    keys_B: one key a row; without an effect where the steps add no noise.

  Returns:
    x_0, of the shape and dtype of x_T.
  """
  return _scan(denoise, steps, x_T, keys_B, path=False)[0]


def sample_path(
  denoise: Denoise, steps: Steps, x_T: Array, keys_B: Key
) -> tuple[Array, Array]:
  """What every step saw: (x_t, its estimate of x_0), each [S, B, ...]; see `sample`.

  The last estimate is the sample.
  """
  path = _scan(denoise, steps, x_T, keys_B, path=True)[1]
  assert path is not None
  return path


def _scan(denoise, steps: Steps, x_T, keys_B, path: bool):
  noisy = bool(np.any(steps.sigma_S))
  size = x_T.shape[0]

  def body(x, step):
    index, t, data, carry, sigma = step
    x_0 = denoise(x, jnp.full((size,), t))
    new = data * x_0 + carry * x
    if noisy:
      new += sigma * row_noise(keys_B, index, x.shape[1:]).astype(x.dtype)
    return new.astype(x.dtype), (x, x_0) if path else None

  floats = (jnp.asarray(x, x_T.dtype) for x in steps[1:])
  index_S = jnp.arange(1, len(steps.t_S) + 1)
  return jax.lax.scan(body, x_T, (index_S, jnp.asarray(steps.t_S), *floats))


def _at(table_T: np.ndarray, t_B: Array, like: Array) -> Array:
  """Entries of a table as [B, 1, ...], in the dtype of `like`."""
  entry_B = jnp.asarray(table_T, jnp.promote_types(like.dtype, jnp.float32))[t_B]
  return entry_B.astype(like.dtype).reshape(t_B.shape + (1,) * (like.ndim - 1))
