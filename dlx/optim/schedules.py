"""Learning rates by step, of any length, and by name for a whole run."""

from typing import Any, Callable, Mapping, Sequence

import jax.numpy as jnp
import optax

from dlx.config import check_bounds, check_choice
from dlx.state import Array

Number = float | Array  # An int, an array of rank 0 or a tracer will do.


Schedule = optax.Schedule  # Number of updates done -> value.


def constant(value: Number) -> Schedule:
  """The same at every step."""
  return lambda count: jnp.asarray(value, _float(count).dtype)


def cosine(peak: Number, num_steps: Number, final_fraction: Number = 0.0) -> Schedule:
  """Half a cosine from `peak` to `peak * final_fraction` (arXiv:1608.03983)."""
  return warmup_cosine(peak, num_steps, 0, final_fraction)


def warmup_cosine(
  peak: Number, num_steps: Number, warmup_steps: Number, final_fraction: Number = 0.0
) -> Schedule:
  """Linear from 0 to `peak`, then half a cosine to `peak * final_fraction`.

  Args:
    peak: largest value, at count `warmup_steps`.
    num_steps: count from which on the value is `peak * final_fraction`.
    warmup_steps: of the linear part, in [0, num_steps]; the update at count 0 has
      value 0 where there are any.
    final_fraction: of the peak, in [0, 1].
  """
  check_bounds('num_steps', num_steps, 1)
  check_bounds('warmup_steps', warmup_steps, 0, num_steps)
  check_bounds('final_fraction', final_fraction, 0, 1)

  def schedule(count):
    t = _float(count)
    rise = _fraction(t, 0, warmup_steps)
    fall = _ease(_fraction(t, warmup_steps, num_steps))
    unit = jnp.where(t < warmup_steps, rise, 1 - (1 - final_fraction) * fall)
    return peak * unit

  return schedule


def one_cycle(
  peak: Number,
  num_steps: Number,
  pct_start: Number = 0.3,
  div_factor: Number = 25.0,
  final_div_factor: Number = 1e4,
) -> Schedule:
  """One cycle of two half cosines (arXiv:1708.07120).

  From `peak / div_factor` up to `peak` at count `pct_start * num_steps` (not rounded),
  down to `peak / div_factor / final_div_factor` at count `num_steps`.

  Args:
    peak: largest value.
    num_steps: length of the cycle.
    pct_start: fraction of the cycle that rises, in [0, 1].
    div_factor: peak over first value, at least 1.
    final_div_factor: first value over last value, at least 1.
  """
  check_bounds('num_steps', num_steps, 1)
  check_bounds('pct_start', pct_start, 0, 1)
  check_bounds('div_factor', div_factor, 1)
  check_bounds('final_div_factor', final_div_factor, 1)

  def schedule(count):
    t = _float(count)
    top = pct_start * num_steps
    first = 1 / div_factor
    last = first / final_div_factor
    rising = first + (1 - first) * _ease(_fraction(t, 0, top))
    falling = 1 - (1 - last) * _ease(_fraction(t, top, num_steps))
    return peak * jnp.where(t < top, rising, falling)

  return schedule


def triangle(
  peak: Number,
  num_steps: Number,
  at: Number = 0.23,
  first_fraction: Number = 0.2,
  final_fraction: Number = 0.07,
) -> Schedule:
  """Linear from `peak * first_fraction` to `peak`, then to `peak * final_fraction`.

  The defaults are those of arXiv 2404.00498.

  Args:
    peak: largest value.
    num_steps: count at which the final value is reached.
    at: share of the steps at which the peak lies, in [0, 1].
    first_fraction: of the peak, at count 0, in [0, 1].
    final_fraction: of the peak, in [0, 1].
  """
  check_bounds('num_steps', num_steps, 1)
  check_bounds('at', at, 0, 1)
  check_bounds('first_fraction', first_fraction, 0, 1)
  check_bounds('final_fraction', final_fraction, 0, 1)

  def schedule(count):
    t, top = _float(count), at * num_steps
    rising = first_fraction + (1 - first_fraction) * _fraction(t, 0, top)
    falling = 1 - (1 - final_fraction) * _fraction(t, top, num_steps)
    return peak * jnp.where(t < top, rising, falling)

  return schedule


def step_decay(peak: Number, every_steps: Number, factor: Number = 0.1) -> Schedule:
  """`peak * factor^n` after n times `every_steps` updates."""
  check_bounds('every_steps', every_steps, 1)
  check_bounds('factor', factor, 0)
  return lambda count: peak * jnp.power(factor, _float(count) // every_steps)


def drops(
  peak: Number, num_steps: int, at: Sequence[float] = (0.5, 0.75), factor: Number = 0.1
) -> Schedule:
  """Constant, multiplied by `factor` at each share `at` of the run.

  The defaults are those of residual and densely connected nets on CIFAR
  (arXiv 1512.03385, 1608.06993).
  """
  check_bounds('factor', factor, 0)
  steps = [int(num_steps * share) for share in at]

  def schedule(count):
    t = _float(count)
    return peak * jnp.power(factor, sum((t >= step).astype(t.dtype) for step in steps))

  return schedule


def exponential(peak: Number, every_steps: Number, factor: Number = 0.1) -> Schedule:
  """`peak * factor^(t / every_steps)` after t updates: `step_decay` without steps."""
  check_bounds('every_steps', every_steps, 1)
  check_bounds('factor', factor, 0)
  return lambda count: peak * jnp.power(factor, _float(count) / every_steps)


def warmup(
  peak: Number, warmup_steps: Number, first_fraction: Number = 0.0
) -> Schedule:
  """Linear from `peak * first_fraction` to `peak`, then constant (arXiv:1706.02677).

  Args:
    peak: the value from count `warmup_steps` on.
    warmup_steps: of the linear part, at least 0.
    first_fraction: of the peak, at count 0, in [0, 1].
  """
  check_bounds('warmup_steps', warmup_steps, 0)
  check_bounds('first_fraction', first_fraction, 0, 1)

  def schedule(count):
    t = _float(count)
    rise = first_fraction + (1 - first_fraction) * _fraction(t, 0, warmup_steps)
    return peak * jnp.where(t < warmup_steps, rise, 1.0)

  return schedule


def _part(num_steps: int, share: float) -> int:
  return max(1, round(share * num_steps))


# Of a peak and the length of a run; a longer run has the same shape.
SCHEDULES: Mapping[str, Callable[[Number, int], Schedule]] = {
  'constant': lambda peak, num_steps: constant(peak),
  # A tenth after each 30 of 100 epochs.
  'step': lambda peak, num_steps: step_decay(peak, _part(num_steps, 0.3), 0.1),
  'steps': drops,
  'exponential': lambda peak, num_steps: exponential(peak, num_steps, 0.01),
  'cosine': cosine,
  'one_cycle': one_cycle,
  'warmup': lambda peak, num_steps: warmup(peak, _part(num_steps, 0.1)),
  'warmup_cosine': lambda peak, num_steps: warmup_cosine(
    peak, num_steps, _part(num_steps, 0.1)
  ),
}


def named_schedule(
  name: str, peak: Number, num_steps: int, at: Sequence[float] | None = None
) -> Schedule:
  """A schedule of a whole run by its name; `step` falls at 30, 60 and 90 % of it.

  Args:
    name: one of SCHEDULES: constant; step, to a tenth three times; steps, to a tenth at
      half and at three quarters of the run, or at each share `at`; exponential, to a
      hundredth at the end; cosine, to 0; one_cycle; warmup, a tenth of the run, then
      constant; warmup_cosine, a tenth of the run, then to 0.
    peak: largest value.
    num_steps: of the run, at least 1.
    at: see steps; other names do not read it. None: that of `drops`.

  Raises:
    ConfigError: another name, or no steps.
  """
  check_choice('schedule', name, SCHEDULES)
  check_bounds('num_steps', num_steps, 1)
  if name == 'steps' and at is not None:
    return drops(peak, num_steps, at)
  return SCHEDULES[name](peak, num_steps)


def _float(count: Any) -> Array:
  return jnp.maximum(jnp.asarray(count), 0).astype(jnp.float32)


def _fraction(t: Array, start: Any, end: Any) -> Array:
  """How much of [start, end] has passed, in [0, 1]; a step where they are equal."""
  return jnp.clip((t - start) / jnp.maximum(end - start, 1e-6), 0.0, 1.0)


def _ease(fraction: Array) -> Array:
  return 0.5 * (1 - jnp.cos(jnp.pi * fraction))
