"""What a few runs say of many: means with their spread, and intervals of differences.

NumPy in, numbers out; everything in float64. A run is one sample: seeds are drawn, so
that the spread is that of training, not that of the examples of a test set.
"""

import math
from typing import Any, NamedTuple, Sequence

import numpy as np

RESAMPLES = 10_000


class Summary(NamedTuple):
  """Some runs of one kind.

  Attributes:
    count: of the runs, at least 1.
    mean: of their values.
    sd: standard deviation of a run, with count - 1; None for a single run.
    error: standard error of the mean, sd / sqrt(count); None for a single run.
    low, high: the least and the largest value.
  """

  count: int
  mean: float
  sd: float | None
  error: float | None
  low: float
  high: float


class Interval(NamedTuple):
  """How far the mean of one group lies above that of another.

  Attributes:
    difference: of the means.
    error: standard error of it.
    low, high: ends of the interval.
    method: what made it, in words.
    confidence: share of such intervals that hold the true difference, where the
      assumptions of the method hold.
  """

  difference: float
  error: float
  low: float
  high: float
  method: str
  confidence: float


class MeanInterval(NamedTuple):
  """Where the mean of one group lies.

  Attributes:
    mean: of the values.
    low, high: ends of the interval.
    confidence: see Interval.
  """

  mean: float
  low: float
  high: float
  confidence: float


class Band(NamedTuple):
  """Curves of several runs as one: at the steps that all of them have.

  Attributes:
    step, mean, low, high: float64[S].
    count: of the runs.
  """

  step: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray
  count: int


def summary(values: Any) -> Summary:
  """Mean and spread of the values of runs.

  Raises:
    ValueError: none, or one that is not finite.
  """
  x = _values('values', values, least=1)
  sd = float(x.std(ddof=1)) if x.size > 1 else None
  error = None if sd is None else sd / math.sqrt(x.size)
  return Summary(x.size, float(x.mean()), sd, error, float(x.min()), float(x.max()))


def standard_error(a: Any, b: Any) -> float:
  """That of mean(a) - mean(b), of groups of unequal variances, two runs each or more.

  Raises:
    ValueError: fewer runs, or a value that is not finite.
  """
  return math.sqrt(sum(x.var(ddof=1) / x.size for x in _groups(a, b)))


def mean_interval(values: Any, *, confidence: float = 0.95) -> MeanInterval:
  """The t interval of a mean (Student 1908): exact for normally distributed values.

  Two such intervals that do not overlap are more than what `welch_interval` asks for:
  that of the difference may be above 0 where they overlap.

  Args:
    values: of the runs, two or more.
    confidence: in (0, 1).

  Raises:
    ValueError: fewer runs, a value that is not finite, another confidence.
  """
  from scipy import special

  _check_confidence(confidence)
  x = _values('values', values, least=2)
  error = float(x.std(ddof=1)) / math.sqrt(x.size)
  reach = float(special.stdtrit(x.size - 1, (1 + confidence) / 2)) * error
  mean = float(x.mean())
  return MeanInterval(mean, mean - reach, mean + reach, confidence)


def welch_interval(a: Any, b: Any, *, confidence: float = 0.95) -> Interval:
  """Welch's t interval of mean(a) - mean(b) (Welch 1947): unequal variances.

  Exact up to the degrees of freedom for values that are normally distributed. Where no
  value of either group differs from the others the interval is a point.

  Args:
    a, b: values of the runs, two each or more.
    confidence: in (0, 1).

  Raises:
    ValueError: fewer runs, a value that is not finite, another confidence.
  """
  from scipy import special

  _check_confidence(confidence)
  x, y = _groups(a, b)
  parts = np.array([z.var(ddof=1) / z.size for z in (x, y)])
  error, difference = math.sqrt(parts.sum()), float(x.mean() - y.mean())
  reach = 0.0
  if error:
    shares = parts / parts.sum()  # Squares of small variances would be 0.
    freedom = 1 / (shares**2 / np.array([x.size - 1, y.size - 1])).sum()
    reach = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
  low, high = difference - reach, difference + reach
  return Interval(difference, error, low, high, "Welch's t interval", confidence)


def paired_error(a: Any, b: Any) -> float:
  """Standard error of mean(a - b), of two pairs or more.

  Args:
    a, b: values of pairs, in the same order: runs with the same seed share their
      beginning and their batches, and what they share cancels out.

  Raises:
    ValueError: unequal lengths, fewer pairs, or a value that is not finite.
  """
  x = _differences(a, b)
  return float(x.std(ddof=1)) / math.sqrt(x.size)


def paired_interval(a: Any, b: Any, *, confidence: float = 0.95) -> Interval:
  """Paired t interval of mean(a - b) (Student 1908).

  Exact where the differences are normally distributed. It is narrower than Welch's
  where the values of a pair go together, and has fewer degrees of freedom, n - 1. Where
  all differences are equal the interval is a point.

  Args:
    a, b: values of pairs, see `paired_error`.
    confidence: in (0, 1).

  Raises:
    ValueError: unequal lengths, fewer than two pairs, a value that is not finite,
      another confidence.
  """
  from scipy import special

  _check_confidence(confidence)
  x = _differences(a, b)
  difference, error = float(x.mean()), paired_error(a, b)
  reach = float(special.stdtrit(x.size - 1, (1 + confidence) / 2)) * error
  low, high = difference - reach, difference + reach
  return Interval(difference, error, low, high, 'paired t interval', confidence)


def bootstrap_interval(
  a: Any, b: Any, *, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
  """Percentile bootstrap of mean(a) - mean(b) (Efron 1979): each group drawn anew.

  It assumes no distribution, but of few runs it is too narrow: the spread of a resample
  is sqrt((n - 1) / n) of the standard deviation that is reported, 0.82 for 3 runs.

  Args:
    a, b: values of the runs, two each or more.
    confidence: in (0, 1).
    seed: of the resamples; the same one gives the same interval.
    resamples: their number, at least 1.

  Raises:
    ValueError: fewer runs, a value that is not finite, another confidence.
  """
  _check_confidence(confidence)
  if resamples < 1:
    raise ValueError(f'resamples={resamples} is not allowed: must be at least 1.')
  x, y = _groups(a, b)
  random = np.random.default_rng(seed)
  drawn = [
    z[random.integers(0, z.size, (resamples, z.size))].mean(axis=1) for z in (x, y)
  ]
  tail = (1 - confidence) / 2
  low, high = np.quantile(drawn[0] - drawn[1], (tail, 1 - tail))
  method = f'bootstrap percentile interval of {resamples} resamples, seed {seed}'
  difference = float(x.mean() - y.mean())
  error = standard_error(x, y)
  return Interval(difference, error, float(low), float(high), method, confidence)


def band(
  curves: Sequence[Sequence[tuple[float, float]]], *, spread: str = 'sd'
) -> Band:
  """The mean of curves and a band around it.

  Only steps at which every curve has a finite value count: a mean of fewer runs at the
  end would jump where a run leaves it.

  Args:
    curves: (step, value) of each run; of equal steps the last counts.
    spread: 'sd', one standard deviation to either side (none for a single run), or
      'range', from the least to the largest.

  Raises:
    ValueError: no curve, or another spread.
  """
  if not curves or spread not in ('sd', 'range'):
    raise ValueError(f'{len(curves)} curves, spread={spread!r}: not allowed.')
  found = [{s: v for s, v in curve if math.isfinite(v)} for curve in curves]
  steps = sorted(set(found[0]).intersection(*found[1:]))
  values = np.array([[one[s] for s in steps] for one in found], np.float64)
  mean = values.mean(axis=0)
  if spread == 'range':
    low, high = values.min(axis=0), values.max(axis=0)
  else:
    sd = values.std(axis=0, ddof=1) if len(found) > 1 else np.zeros_like(mean)
    low, high = mean - sd, mean + sd
  return Band(np.array(steps, np.float64), mean, low, high, len(found))


def pareto(cost: Any, quality: Any, *, better: str) -> np.ndarray:
  """bool[N]: which points no other one beats: none is as cheap and as good, and more.

  Args:
    cost: [N], lower is better.
    quality: [N].
    better: 'higher' or 'lower', of the quality.

  Raises:
    ValueError: unequal lengths, a number that is not finite, another word.
  """
  if better not in ('higher', 'lower'):
    raise ValueError(f'better={better!r} is not allowed: must be higher or lower.')
  x, y = (_values(k, v, 0) for k, v in (('cost', cost), ('quality', quality)))
  if x.size != y.size:
    raise ValueError(f'{x.size} costs for {y.size} qualities: must be as many.')
  y = -y if better == 'higher' else y
  as_good = (x[:, None] <= x) & (y[:, None] <= y)
  more = (x[:, None] < x) | (y[:, None] < y)
  return ~(as_good & more).any(axis=0)


def _values(name: str, values: Any, least: int) -> np.ndarray:
  x = np.asarray(values, np.float64)
  if x.ndim != 1 or x.size < least or not np.isfinite(x).all():
    raise ValueError(
      f'{name} of shape {x.shape} is not allowed: must be at least {least} finite '
      'numbers, one a run.'
    )
  return x


def _groups(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
  return _values('a', a, 2), _values('b', b, 2)


def _differences(a: Any, b: Any) -> np.ndarray:
  x, y = _groups(a, b)
  if x.size != y.size:
    raise ValueError(f'{x.size} values and {y.size} are no pairs: must be as many.')
  return x - y


def _check_confidence(confidence: float):
  if not 0 < confidence < 1:
    raise ValueError(
      f'confidence={confidence} is not allowed: must lie between 0 and 1.'
    )
