"""From noise to images: DDPM and DDIM samplers, guidance."""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.diffusion import Network, Prediction, Schedule
from dlx.errors import ConfigError
from dlx.state import Array, Key

Denoise = Callable[[Array, Array], Array]  # (x_t, t_B) -> x_0


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
    null_B = jnp.full(label_B.shape, null, jnp.promote_types(label_B.dtype, jnp.int32))
    label_2B = jnp.concatenate([label_B.astype(null_B.dtype), null_B])
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
