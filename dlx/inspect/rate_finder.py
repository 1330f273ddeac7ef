"""The learning rate that a range test suggests (arXiv:1506.01186).

One short run whose rate grows geometrically from step to step. The optimiser stays as
it is: the update of a step is scaled by the rate of the test over the rate that the
schedule gives, which the step reports as `learning_rate` (`--config.curves`). So it
works for every experiment whose updates are proportional to the rate, and compiles
nothing but the train step.
"""

from typing import Any, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Subject
from dlx.state import is_key

FIELDS = ('lr', 'learning_rate', 'peak_lr', 'base_lr', 'max_lr')
LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 120
SMOOTHING = 0.9  # Of the loss, from step to step.
STOP = 4.0  # The test ends where the smoothed loss is so many times its least.
FAR = 25.0  # A rate is wrong by this factor: the suggestion is good to one decade.


class Curve(NamedTuple):
  """What a range test saw.

  Attributes:
    rates: of each step.
    losses: of the batch of each step, before its update.
  """

  rates: np.ndarray
  losses: np.ndarray

  @property
  def smooth(self) -> np.ndarray:
    """The losses, averaged with a decay of SMOOTHING and without bias to 0."""
    found, total, weight = [], 0.0, 0.0
    for loss in self.losses:
      total = SMOOTHING * total + (1 - SMOOTHING) * loss
      weight = SMOOTHING * weight + (1 - SMOOTHING)
      found.append(total / weight)
    return np.array(found)


def rate_field(config: Any) -> str | None:
  """The field of a Config that is its learning rate; None: there is none."""
  named = (n for n in FIELDS if isinstance(getattr(config, n, None), float | int))
  return next(named, None)


def range_test(subject: Subject, steps: int = STEPS) -> Curve | str:
  """Runs the test; a string: why this experiment cannot be asked."""
  rates = np.geomspace(LOWEST, HIGHEST, steps)
  scaled = jax.jit(_scaled)
  done = iter(rates)

  def after(old, new, metrics):
    base, rate = metrics['learning_rate'], next(done)
    scale = rate / base if base > 0 else 0.0
    return new._replace(params=scaled(old.params, new.params, jnp.float32(scale)))

  def enough(metrics: Sequence[Mapping[str, float]]) -> bool:
    smooth = Curve(rates, np.array([m['loss'] for m in metrics])).smooth
    return len(smooth) > 10 and smooth[-1] > STOP * smooth.min() > 0

  first = subject.run(1).metrics[0]
  if 'loss' not in first:
    return "the train step reports no 'loss'"
  if 'learning_rate' not in first:
    return (
      'the train step reports no learning_rate (curves.of does, with --config.curves)'
    )
  run = subject.run(steps, after=after, enough=enough)
  losses = np.array([m['loss'] for m in run.metrics])
  finite = np.isfinite(losses)
  return Curve(rates[: len(losses)][finite], losses[finite])


def _scaled(old: Any, new: Any, scale: jax.Array) -> Any:
  """Parameters moved by `scale` times the update."""

  def one(a, b):
    if is_key(a) or not jnp.issubdtype(a.dtype, jnp.floating):
      return b
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return (a.astype(wide) + scale * (b.astype(wide) - a.astype(wide))).astype(a.dtype)

  return jax.tree.map(one, old, new)


def suggested(curve: Curve) -> float | None:
  """A tenth of the rate at which the loss was least; None: it has not fallen.

  The smoothed loss lags behind, by some 1 / (1 - SMOOTHING) steps: that is taken off,
  too.
  """
  smooth = curve.smooth
  if len(smooth) < 10:
    return None
  start = smooth[: max(5, len(smooth) // 10)].mean()
  at = int(smooth.argmin())
  if not smooth[at] < 0.98 * start:
    return None
  lag = int(1 / (1 - SMOOTHING)) // 2
  return float(curve.rates[max(0, at - lag)] / 10)


def report(subject: Subject) -> Report:
  """The suggestion, and whether the rate of the config is far from it."""
  if isinstance(subject.experiment.overfit, str):
    return skipped(f'one loss does not tell: {subject.experiment.overfit}')
  curve = range_test(subject)
  if isinstance(curve, str):
    return skipped(curve)
  field = rate_field(subject.config)
  given = None if field is None else float(getattr(subject.config, field))
  best = suggested(curve)
  from dlx.figures.curves import rate_finder

  picture = rate_finder(curve.rates, curve.losses, curve.smooth, best, given)
  figures = {'rate_finder': picture}
  if best is None:
    finding = Finding(
      'no_rate_learns',
      'warning',
      f'The loss did not fall at any rate from {LOWEST:g} to {curve.rates[-1]:.2g}: '
      f'{curve.losses[0]:.4g} at first, {curve.smooth.min():.4g} at best.',
      'Mend what stands above: no learning rate helps here.',
      field or 'tx',
    )
    return Report([finding], 'no rate learns', figures=figures)
  said = f'suggests {best:.1e}'
  if given is None:
    return Report((), said, figures=figures)
  said += f', --config.{field} is {given:.3g}'
  factor = given / best
  if 1 / FAR <= factor <= FAR:
    return Report((), said, figures=figures)
  high = factor > 1
  name = 'rate_too_high' if high else 'rate_too_low'
  times = f'{factor:.0f} times above' if high else f'{1 / factor:.0f} times below'
  finding = Finding(
    name,
    'error',
    f'--config.{field}={given:.3g} is {times} the {best:.1e} that the range test '
    'suggests.',
    f'Set --config.{field}={best:.0e}; the suggestion is good to a factor of 10.',
    field or 'tx',
  )
  return Report([finding], said, figures=figures)
