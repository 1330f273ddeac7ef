"""A comparison as curves and figures."""

from typing import TYPE_CHECKING, Mapping, Sequence

import numpy as np

from dlx.figures import comparison as figures
from dlx.figures.comparison import Line, Point
from dlx.run.records.declared import Declared
from dlx.study import statistics
from dlx.study.comparison import groups as lib
from dlx.study.comparison import tables
from dlx.study.comparison.differences import Comparison
from dlx.study.comparison.groups import Group

if TYPE_CHECKING:
  from matplotlib.figure import Figure

MOST = 6  # Groups in one drawing: the baseline, and the best of the others.
SPREADS = {
  'sd': 'a standard deviation of a run',
  'range': 'least to largest of the runs',
}
AXES = {
  'seconds': 'Seconds of a run, in total',
  'train_seconds': 'Seconds of a run, in training steps',
  'examples_per_second': 'Examples a second',
  'parameters': 'Parameters',
  'flops': 'FLOPs of a run',
}


def chosen(found: Comparison) -> list[Group]:
  """The groups that are drawn, in their order."""
  lead = found.metrics[0]
  better = lib.declaration(found.groups, lead).better
  sign = -1 if better == 'higher' else 1

  def rank(one: Group) -> tuple[bool, bool, float]:
    of = found.quality[lead].get(one.number)
    return (
      one is not found.baseline,
      of is None,
      float(one.number) if of is None or better is None else sign * of.mean,
    )

  kept = sorted(found.groups, key=rank)[:MOST]
  return [one for one in found.groups if one in kept]


def lines(found: Comparison) -> dict[str, tuple[Declared, list[Line]]]:
  """Curves by "split/name", those of the compared metrics first; shares in percent."""
  names = [*dict.fromkeys([*found.metrics, *found.bands])]
  groups = chosen(found)
  out = {}
  for name in names:
    scale, made = tables.scaled(found, name), []
    for place, one in enumerate(groups):
      band = found.bands.get(name, {}).get(one.number)
      if band is not None:
        mean, low, high = (scale * x for x in (band.mean, band.low, band.high))
        made.append(Line(labelled(one), band.step, mean, low, high, place))
    if any(np.size(line.step) > 1 for line in made):
      out[name] = lib.declaration(found.groups, name), made
  return out


def labelled(one: Group) -> str:
  return f'{one.number}: {one.label}'


def draw(found: Comparison) -> dict[str, 'Figure']:
  """Figures by name: curves and intervals of the compared metrics, cost and quality."""
  out: dict[str, Figure] = {}
  lead = found.metrics[0]
  if (drawn := _pareto(found, lead)) is not None:
    out['cost_and_quality'] = drawn
  places = {one.number: i for i, one in enumerate(chosen(found))}
  for metric in found.metrics:
    scale = tables.scaled(found, metric)
    rows = {
      labelled(d.group): (
        scale * d.difference,
        scale * d.interval.low,
        scale * d.interval.high,
      )
      for d in found.differences
      if d.metric == metric and d.interval is not None and d.group.number in places
    }
    if rows:
      share = f'{100 * found.choices.confidence:g} %'
      out[f'differences_{_file(metric)}'] = figures.intervals(
        rows,
        title=f'{metric}: difference from group {found.baseline.number}',
        xlabel=f'{tables.titled(found, metric)}, {share} intervals',
        places=[places[int(label.partition(':')[0])] for label in rows],
      )
  every = lines(found)
  for metric in found.metrics:
    if metric in every:
      out[f'curves_{_file(metric)}'] = figures.curves(
        every[metric][1],
        title=every[metric][0].title + ', ' + metric.rpartition('/')[0],
        ylabel=tables.titled(found, metric),
        spread=SPREADS[found.choices.spread],
      )
  return out


def _pareto(found: Comparison, metric: str) -> 'Figure | None':
  """None where fewer than two groups have both, or no direction is declared."""
  cost = found.costs[found.choices.cost]
  quality = found.quality[metric]
  better = lib.declaration(found.groups, metric).better
  groups = [g for g in found.groups if {g.number} <= cost.keys() & quality.keys()]
  if len(groups) < 2 or better is None:
    return None
  sign = -1 if found.choices.cost == 'examples_per_second' else 1  # More is cheaper.
  best = statistics.pareto(
    [sign * cost[g.number].mean for g in groups],
    [quality[g.number].mean for g in groups],
    better=better,
  )
  places: Mapping[int, int] = {g.number: i for i, g in enumerate(chosen(found))}
  scale = tables.scaled(found, metric)
  points = [
    Point(
      g.label,
      str(g.number),
      cost[g.number].mean,
      scale * quality[g.number].mean,
      cost[g.number].sd or 0.0,
      scale * (quality[g.number].sd or 0.0),
      bool(front),
      places.get(g.number, len(places) + i),
    )
    for i, (g, front) in enumerate(zip(groups, best, strict=True))
  ]
  return figures.pareto(
    points,
    title='Filled: no other group is as good for less',
    xlabel=AXES[found.choices.cost],
    ylabel=tables.titled(found, metric),
  )


def _file(metric: str) -> str:
  """A name of a file; what a metric is called is no path."""
  kept: Sequence[str] = [c if c.isalnum() or c in '-_' else '_' for c in metric]
  return ''.join(kept)[:80]
