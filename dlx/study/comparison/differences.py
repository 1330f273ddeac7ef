"""Quality and cost of groups, the differences between them, and their curves."""

import math
from typing import Mapping, NamedTuple, Sequence

from dlx.study import statistics
from dlx.study.comparison import groups as lib
from dlx.study.comparison.groups import Group
from dlx.study.comparison.workdirs import COSTS
from dlx.study.statistics import Band, Interval, Summary

METHODS = ('welch', 'bootstrap')


class Choices(NamedTuple):
  """How groups are compared.

  Attributes:
    metrics: "split/name"; None: the headlines.
    by: fields by which groups are formed; None: all but the seed.
    baseline: number or label of a group; None: the first.
    method: of METHODS.
    confidence: of the intervals, in (0, 1).
    seed: of the bootstrap.
    spread: of the bands, 'sd' or 'range'.
    cost: of COSTS, what quality is drawn against.
  """

  metrics: Sequence[str] | None = None
  by: Sequence[str] | None = None
  baseline: str | None = None
  method: str = 'welch'
  confidence: float = 0.95
  seed: int = 0
  spread: str = 'sd'
  cost: str = 'train_seconds'


class Difference(NamedTuple):
  """A group against the baseline in one metric.

  Attributes:
    metric: "split/name".
    group: the other group.
    interval: of its mean above that of the baseline; None: a group has a single run.
    difference: of the means.
    pairs: of runs with the same seed, where no seed occurs twice in a group.
    paired: interval of the mean difference of the pairs; None: fewer than two.
  """

  metric: str
  group: Group
  difference: float
  interval: Interval | None
  pairs: int = 0
  paired: Interval | None = None


class Comparison(NamedTuple):
  """Groups side by side.

  Attributes:
    groups: at least one.
    baseline: that the differences are against.
    metrics: "split/name", the first leads.
    quality: by metric and number of the group; a group of which no run has a finite
      value has none.
    costs: by name of COSTS and number of the group, as `quality`.
    differences: by metric, then in the order of the groups.
    bands: by "split/name" and number of the group: the curves of every metric, where
      its runs share a step.
    choices: what was asked for.
  """

  groups: Sequence[Group]
  baseline: Group
  metrics: Sequence[str]
  quality: Mapping[str, Mapping[int, Summary]]
  costs: Mapping[str, Mapping[int, Summary]]
  differences: Sequence[Difference]
  bands: Mapping[str, Mapping[int, Band]]
  choices: Choices


def compare(found: Sequence[Group], choices: Choices) -> Comparison:
  """Compares groups.

  Raises:
    ConfigError: a metric or a baseline that is not there.
  """
  metrics = lib.metrics(found, choices.metrics)
  base = lib.baseline(found, choices.baseline)
  quality = {
    metric: _summaries({one.number: finite(one, metric) for one in found})
    for metric in metrics
  }
  costs = {
    name: _summaries({one.number: one.costs(name) for one in found}) for name in COSTS
  }
  differences = [
    _difference(base, one, metric, choices)
    for metric in metrics
    for one in found
    if one is not base and {base.number, one.number} <= quality[metric].keys()
  ]
  return Comparison(
    found, base, metrics, quality, costs, differences, _bands(found, choices), choices
  )


def finite(group: Group, metric: str) -> list[float]:
  """The values of the runs that have one that counts."""
  return [x for x in group.values(metric) if math.isfinite(x)]


def _summaries(values: Mapping[int, list[float]]) -> dict[int, Summary]:
  return {number: statistics.summary(x) for number, x in values.items() if x}


def _difference(base: Group, one: Group, metric: str, choices: Choices) -> Difference:
  a, b = finite(one, metric), finite(base, metric)
  interval = None
  if min(len(a), len(b)) > 1 and choices.method == 'welch':
    interval = statistics.welch_interval(a, b, confidence=choices.confidence)
  elif min(len(a), len(b)) > 1:
    interval = statistics.bootstrap_interval(
      a, b, confidence=choices.confidence, seed=choices.seed
    )
  means = statistics.summary(a).mean - statistics.summary(b).mean
  pairs = _pairs(base, one, metric)
  paired = None
  if len(pairs) > 1:
    paired = statistics.paired_interval(*zip(*pairs), confidence=choices.confidence)
  return Difference(metric, one, means, interval, len(pairs), paired)


def _pairs(base: Group, one: Group, metric: str) -> list[tuple[float, float]]:
  """Finite values of the runs of `one` and of `base` that have the same seed."""
  found = []
  for group in (one, base):
    seeds = [lib.shown(run.fields.get(lib.SEED, lib.ABSENT)) for run in group.runs]
    if lib.ABSENT in seeds or len(set(seeds)) < len(seeds):
      return []
    found.append(
      dict(zip(seeds, (r.metrics.get(metric, math.nan) for r in group.runs)))
    )
  a, b = found
  both = [(a[seed], b[seed]) for seed in a if seed in b]
  return [pair for pair in both if all(map(math.isfinite, pair))]


def _bands(
  found: Sequence[Group], choices: Choices
) -> dict[str, dict[int, statistics.Band]]:
  names = dict.fromkeys(name for g in found for run in g.runs for name in run.curves)
  out: dict[str, dict[int, Band]] = {}
  for name in names:
    for one in found:
      curves = [run.curves[name] for run in one.runs if name in run.curves]
      if curves:
        band = statistics.band(curves, spread=choices.spread)
        if band.step.size:
          out.setdefault(name, {})[one.number] = band
  return out
