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

from dlx import figures as draw
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Run, Subject
from dlx.state import is_key

FIELDS = ('lr', 'learning_rate', 'peak_lr', 'base_lr', 'max_lr')
LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 120
# Of the steps of a short run: a schedule that ends at 0 leaves nothing to scale.
SHARE = 0.6
WINDOW = 12.0  # The loss is smoothed over a part of the test as long as this one.
STOP = 4.0  # The test ends where the smoothed loss is so many times its least.
FAR = 25.0  # A rate may be wrong by this factor: the suggestion is good to a decade.
# Share of the fall of the loss with which a low rate is none the worse: convex losses
# bear many rates. A high one is never: a short run with a schedule can outlive it.
ENOUGH = 0.5


class Curve(NamedTuple):
  """What a range test saw.

  Attributes:
    rates: of each step.
    losses: of the batch of each step, before its update.
    steps: of the whole test, of which it may have ended early.
  """

  rates: np.ndarray
  losses: np.ndarray
  steps: int

  @property
  def decay(self) -> float:
    """Of the smoothed loss, from step to step."""
    return max(0.0, 1 - WINDOW / self.steps)

  @property
  def smooth(self) -> np.ndarray:
    """The losses, averaged with `decay` and without bias to 0."""
    found, total, weight = [], 0.0, 0.0
    for loss in self.losses:
      total = self.decay * total + (1 - self.decay) * loss
      weight = self.decay * weight + (1 - self.decay)
      found.append(total / weight)
    return np.array(found)


def rate_field(config: Any) -> str | None:
  """The field of a Config that is its learning rate; None: there is none."""
  named = (n for n in FIELDS if isinstance(getattr(config, n, None), float | int))
  return next(named, None)


def range_test(subject: Subject) -> Curve | str:
  """Runs the test; a string: why this experiment cannot be asked."""
  steps = max(10, min(STEPS, int(SHARE * subject.config.num_steps)))
  rates = np.geomspace(LOWEST, HIGHEST, steps)
  scaled = jax.jit(_scaled)
  done, used = iter(rates), []

  def after(old, new, metrics):
    base, rate = metrics.get('learning_rate', 0.0), next(done)
    used.append((rate, metrics.get('loss', np.nan)))
    scale = rate / base if base > 0 else 0.0
    return new._replace(params=scaled(old.params, new.params, jnp.float32(scale)))

  def enough(metrics: Sequence[Mapping[str, float]]) -> bool:
    smooth = _curve(used, steps).smooth
    return len(metrics) > 10 and smooth[-1] > STOP * smooth.min() > 0

  first = subject.run(1).metrics[0]
  if 'loss' not in first:
    return "the train step reports no 'loss'"
  if 'learning_rate' not in first:
    return (
      'the train step reports no learning_rate (curves.of does, with --config.curves)'
    )
  subject.run(steps, after=after, enough=enough)
  return _curve(used, steps)


def _curve(used: Sequence[tuple[float, float]], steps: int) -> Curve:
  """Of steps whose loss is a number."""
  kept = [pair for pair in used if np.isfinite(pair[1])]
  rates, losses = np.array(kept, np.float64).reshape(-1, 2).T
  return Curve(rates, losses, steps)


def _scaled(old: Any, new: Any, scale: jax.Array) -> Any:
  """Parameters moved by `scale` times the update."""

  def one(a, b):
    if is_key(a) or not jnp.issubdtype(a.dtype, jnp.floating):
      return b
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return (a.astype(wide) + scale * (b.astype(wide) - a.astype(wide))).astype(a.dtype)

  return jax.tree.map(one, old, new)


def suggested(curve: Curve) -> float | None:
  """A fifth of the rate at which the loss was least; None: it has not fallen.

  A fifth, as the largest distance to the best of a grid over three tasks is least with
  it, a factor of 6 (tests/dlx/inspect/rate_grid_test.py).
  The smoothed loss lags behind, by some 1 / (1 - decay) steps: that is taken off, too.
  """
  smooth = curve.smooth
  if len(smooth) < 10:
    return None
  start = smooth[: max(5, len(smooth) // 10)].mean()
  at = int(smooth.argmin())
  if not smooth[at] < 0.98 * start:
    return None
  lag = int(1 / (1 - curve.decay)) // 2
  return float(curve.rates[max(0, at - lag)] / 5)


def reached(run: Run, curve: Curve) -> float:
  """Which share of the fall that the range test saw a run at the config's rate had."""
  tail = max(1, len(run.losses) // 10)
  start, end = float(np.mean(curve.losses[:3])), float(np.mean(run.losses[-tail:]))
  return (start - end) / (start - float(curve.smooth.min()))


def report(subject: Subject, run: Run) -> Report:
  """The suggestion, and whether the rate of the config is far from it.

  Args:
    subject: the experiment.
    run: a short run at the rate of the config, see ENOUGH.
  """
  if isinstance(subject.experiment.overfit, str):
    return skipped(f'one loss does not tell: {subject.experiment.overfit}')
  curve = range_test(subject)
  if isinstance(curve, str):
    return skipped(curve)
  field = rate_field(subject.config)
  given = None if field is None else float(getattr(subject.config, field))
  best = suggested(curve)
  picture = draw.rate_finder(curve.rates, curve.losses, curve.smooth, best, given)
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
  factor, share = given / best, reached(run, curve)
  said += f', --config.{field} is {given:.3g} and had {share:.0%} of the fall'
  if 1 / FAR <= factor <= FAR or (factor < 1 and share >= ENOUGH):
    return Report((), said, figures=figures)
  if factor > 1:
    name, times = 'rate_too_high', f'{factor:.0f} times above'
    seen = f'the loss rose from {run.losses[0]:.3g} to {max(run.losses):.3g}'
  else:
    name, times = 'rate_too_low', f'{1 / factor:.0f} times below'
    seen = f'the loss fell by {max(share, 0.0):.0%} of what the test saw'
  finding = Finding(
    name,
    'error',
    f'--config.{field}={given:.3g} is {times} the {best:.1e} that the range test '
    f'suggests; in {len(run.metrics)} steps at it {seen}.',
    f'Set --config.{field}={best:.0e}; the suggestion is good to a factor of 10.',
    field or 'tx',
  )
  return Report([finding], said, figures=figures)
