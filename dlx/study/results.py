"""What the runs of a study found: numbers by group, and claims on them."""

import functools
import math
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import numpy as np

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.study.curves import Curve, steps_to
from dlx.study.declaration import Run, Verdict
from dlx.study.statistics import Interval, paired_error, standard_error, welch_interval

COSTS = ('train_seconds', 'parameters', 'step_seconds', 'step_flops')


class Finished(NamedTuple):
  """What one run found.

  Attributes:
    run: as declared.
    config: all fields of its Config, as JSON.
    metrics: last figures by "split/name"; {} of a run that diverged.
    seconds: its share of the time, compilation included.
    diverged: whether a step gave what is not finite.
    curves: all figures over the run by "split/name"; {} of a run that diverged.
    costs: some of COSTS: `train_seconds`, its share of those in steps and fits alone;
      `parameters`, their number; `step_seconds` and `step_flops`, seconds and
      operations of a step, of a program of several runs its share. What is not known is
      not there.
  """

  run: Run
  config: Mapping[str, Any]
  metrics: Mapping[str, float]
  seconds: float
  diverged: bool = False
  curves: Mapping[str, Curve] = {}
  costs: Mapping[str, float] = {}


class Results:
  """The runs of a study by name, and numbers of the groups that they make.

  Numbers of a group leave out the runs that diverged; `num_diverged` counts those.
  """

  def __init__(self, runs: Mapping[str, Finished]):
    self.runs = runs

  @functools.cached_property
  def groups(self) -> dict[str, list[str]]:
    """Names of the runs of each group, in the order of declaration."""
    found: dict[str, list[str]] = {}
    for name, finished in self.runs.items():
      found.setdefault(finished.run.group or name, []).append(name)
    return found

  def of(self, group: str) -> list[Finished]:
    """The runs of a group.

    Raises:
      ConfigError: there is no such group.
    """
    if group not in self.groups:
      raise ConfigError(
        f'{group!r} is no group of this study: must be one of {", ".join(self.groups)}.'
      )
    return [self.runs[name] for name in self.groups[group]]

  def num_diverged(self, group: str) -> int:
    return sum(finished.diverged for finished in self.of(group))

  def values(self, metric: str, group: str) -> np.ndarray:
    """float64 [K], of the K runs of a group that did not diverge.

    Raises:
      ConfigError: no such group, or a run that does not report the metric.
    """
    found = [finished.metrics for finished in self.of(group) if not finished.diverged]
    return np.array([_one(metrics, metric, group) for metrics in found], np.float64)

  def curves(self, metric: str, group: str) -> list[Curve]:
    """(step, value) over the run, of each run of a group that did not diverge.

    Of an evaluation a point a pass: `eval_every_steps` and `eval_at_start` of the run
    say when; of `train/...` a point every `log_every_steps`, the mean since the last.

    Raises:
      ConfigError: as `values`.
    """
    found = [finished.curves for finished in self.of(group) if not finished.diverged]
    return [_one(curves, metric, group) for curves in found]

  def steps_to(
    self, metric: str, group: str, level: float, *, better: str = 'higher'
  ) -> np.ndarray:
    """Steps until the metric has reached a level: float64 [K], as `values`.

    Args:
      metric: "split/name".
      group: of the runs.
      level: see `dlx.study.curves.steps_to`; inf of a run that never reaches it.
      better: 'higher' or 'lower'.

    Raises:
      ConfigError: as `values`.
    """
    curves = self.curves(metric, group)
    return np.array([steps_to(c, level, better=better) for c in curves], np.float64)

  def mean(self, metric: str, group: str) -> float:
    """Of the group; nan where all of it diverged."""
    values = self.values(metric, group)
    return float(values.mean()) if len(values) else math.nan

  def sd(self, metric: str, group: str) -> float:
    """Standard deviation of the runs, n - 1; nan of fewer than two."""
    values = self.values(metric, group)
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan

  def cost(self, name: str, group: str) -> float:
    """Mean over the runs of a group of `seconds` or one of `costs`; nan: not known."""
    known = [{'seconds': run.seconds, **run.costs} for run in self.of(group)]
    found = [costs.get(name, math.nan) for costs in known]
    return sum(found) / len(found)

  def best(self, metric: str, groups: Iterable[str], *, better: str = 'lower') -> str:
    """The group of the best mean; the first of equals.

    Groups of which a run diverged are passed over, unless all are such.

    Args:
      metric: "split/name".
      groups: one at least.
      better: 'lower' or 'higher'.

    Raises:
      ConfigError: no groups; no such group or metric; another word.
    """
    check_choice('better', better, ('lower', 'higher'))
    names = list(groups)
    if not names:
      raise ConfigError(f'The best of no groups by {metric} is not known: name some.')
    found = [name for name in names if not self.num_diverged(name)] or names
    sign = 1 if better == 'lower' else -1
    means = {name: sign * self.mean(metric, name) for name in found}
    return min(found, key=lambda name: (math.isnan(means[name]), means[name]))

  def field(self, name: str, group: str) -> Any:
    """The value of a field in the runs of a group, a name with dots in a nested one.

    Raises:
      ConfigError: the runs of the group differ in it.
    """
    found = []
    for finished in self.of(group):
      value: Any = finished.config
      for part in name.split('.'):
        value = value[part]
      found.append(value)
    if any(value != found[0] for value in found):
      raise ConfigError(f'config.{name} differs among the runs of {group}.')
    return found[0]

  def row(self, group: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Cells of a table: the number of runs, and `MEAN ± SD` of each metric.

    Also how many diverged, where any run of the study did; those do not count.
    """
    found: dict[str, Any] = {'runs': len(self.of(group))}
    if any(finished.diverged for finished in self.runs.values()):
      found['diverged'] = self.num_diverged(group)
    for metric in metrics:
      found[metric] = mean_and_sd(self.mean(metric, group), self.sd(metric, group))
    return found

  def told(self, metric: str, group: str) -> str:
    """`GROUP: MEAN (sd SD, n=N)`, and how many diverged."""
    n, lost = len(self.values(metric, group)), self.num_diverged(group)
    said = f'{group}: {self.mean(metric, group):.4g}' if n else group
    parts = [f'sd {self.sd(metric, group):.2g}'] * (n > 1) + [f'n={n}']
    parts += [f'{lost} diverged'] * bool(lost)
    return f'{said} ({", ".join(parts)})'

  def pairs(self, metric: str, group: str, than: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of the runs of two groups that have the same seed: two float64 [K].

    A pair of which a run diverged is left out.

    Raises:
      ConfigError: no such group or metric, or other seeds in the two groups.
    """
    for name in (group, than):
      self.values(metric, name)  # Raises.
    by_seed = [{f.config.get('seed'): f for f in self.of(x)} for x in (group, than)]
    once = all(len(of) == len(self.of(x)) for of, x in zip(by_seed, (group, than)))
    if not once or by_seed[0].keys() != by_seed[1].keys():
      raise ConfigError(
        f'{group} and {than} are not paired: both must have the same seeds, each once; '
        'leave paired out.'
      )
    both = [(one, by_seed[1][seed]) for seed, one in by_seed[0].items()]
    kept = [pair for pair in both if not any(one.diverged for one in pair)]
    values = [[one.metrics[metric] for one in pair] for pair in kept]
    a, b = np.array(values, np.float64).reshape(-1, 2).T
    return a, b

  def interval(
    self, metric: str, group: str, than: str, *, confidence: float = 0.95
  ) -> Interval | None:
    """Welch's interval of the mean of a group less that of another.

    Returns:
      None, where fewer than two runs of either did not diverge.

    Raises:
      ConfigError: no such group or metric.
    """
    a, b = self.values(metric, group), self.values(metric, than)
    if len(a) < 2 or len(b) < 2:
      return None
    return welch_interval(a, b, confidence=confidence)

  def lower(
    self,
    metric: str,
    group: str,
    than: str,
    errors: float = 2.0,
    *,
    paired: bool = False,
  ) -> Verdict:
    """Whether a group has the lower mean, by more than so many standard errors.

    Args:
      metric: "split/name".
      group, than: the two groups.
      errors: standard errors of the difference of the two means, sqrt(sd_1^2 / n_1 +
        sd_2^2 / n_2), the runs taken for independent; of pairs sd / sqrt(n) of their
        differences.
      paired: whether runs with the same seed are pairs: what the seed does to both of
        them cancels out.

    Raises:
      ConfigError: no such group or metric; `paired` of groups with other seeds.
    """
    return self._apart(metric, group, than, errors, paired, -1)

  def higher(
    self,
    metric: str,
    group: str,
    than: str,
    errors: float = 2.0,
    *,
    paired: bool = False,
  ) -> Verdict:
    """The same of the higher mean."""
    return self._apart(metric, group, than, errors, paired, 1)

  def _apart(
    self, metric: str, group: str, than: str, errors: float, paired: bool, sign: int
  ) -> Verdict:
    told = f'{metric} of {self.told(metric, group)}, of {self.told(metric, than)}'
    if paired:
      a, b = self.pairs(metric, group, than)
    else:
      a, b = self.values(metric, group), self.values(metric, than)
    if len(a) < 2 or len(b) < 2:
      few = 'two pairs' if paired else 'two runs of each'
      return Verdict(False, f'{told}; needed are {few}.')
    error = paired_error(a, b) if paired else standard_error(a, b)
    difference = float(a.mean() - b.mean())
    what = f'difference of {len(a)} pairs' if paired else 'difference'
    said = f'{told}; {what} {difference:.3g}, standard error {error:.2g}'
    ratio = '' if error == 0 else f' ({abs(difference) / error:.1f} of them)'
    wanted = f'asked {"below -" if sign < 0 else "above "}{errors:g} standard errors'
    return Verdict(sign * difference > errors * error, f'{said}{ratio}; {wanted}.')


def _one(of_run: Mapping[str, Any], metric: str, group: str) -> Any:
  if metric not in of_run:
    raise ConfigError(
      f'{metric} is no metric of the runs of {group}: must be one of '
      f'{", ".join(sorted(of_run))}.'
    )
  return of_run[metric]


def mean_and_sd(mean: float, sd: float) -> str:
  """`0.1234 ± 0.0012`: digits follow the spread, two of it.

  Args:
    mean: nan: there is none.
    sd: nan: of one run.
  """
  if math.isnan(mean):
    return '–'
  if math.isnan(sd) or sd == 0 or not math.isfinite(sd):
    return f'{mean:.4g}'
  digits = max(0, 1 - math.floor(math.log10(sd)))
  if digits > 5 or abs(mean) >= 1e6:
    return f'{mean:.4g} ± {sd:.2g}'
  return f'{mean:.{digits}f} ± {sd:.{digits}f}'
