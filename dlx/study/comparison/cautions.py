"""What keeps groups from being compared, or makes it weaker: a line each."""

import math
from typing import Any, Callable, Iterator, Mapping, Sequence

from dlx.run.records import agreement
from dlx.study.comparison import groups as lib
from dlx.study.comparison.differences import Comparison
from dlx.study.comparison.groups import SEED, Group
from dlx.study.comparison.workdirs import Trained

SHOWN = 3  # Names of a list; the others are counted.


def cautions(found: Comparison) -> list[str]:
  """The lines, the gravest first; none where nothing is to be said."""
  groups = found.groups
  return [
    *_missing(groups, found.metrics),
    *_mixed(groups, found.choices.by),
    *_spread(
      groups,
      'Other data',
      lambda run: run.data,
      'their metrics may be of other examples',
    ),
    *_lengths(groups),
    *_declared(found),
    *_seeds(groups),
    *_members(groups, found.metrics),
    *_spread(
      groups,
      'Other machines or versions',
      lambda run: run.machine,
      'seconds and rates do not compare, and bits may differ',
    ),
    *_intervals(found),
    *_costs(found),
  ]


def _missing(groups: Sequence[Group], metrics: Sequence[str]) -> Iterator[str]:
  for metric in metrics:
    lacking = [r for g in groups for r in g.runs if metric not in r.metrics]
    if lacking:
      yield f'{metric} is missing in {_runs(lacking)}: means are of the others.'
    bad = [
      r
      for g in groups
      for r in g.runs
      if metric in r.metrics and not math.isfinite(r.metrics[metric])
    ]
    if bad:
      yield (
        f'{metric} is not finite in {_runs(bad)}: means are of the others and flatter '
        'groups in which runs fail.'
      )


def _mixed(groups: Sequence[Group], by: Sequence[str] | None) -> Iterator[str]:
  """Fields in which runs of one group differ."""
  for one in groups:
    fields = [run.fields for run in one.runs]
    names = dict.fromkeys(name for of in fields for name in of)
    free = by is None
    told = []
    for name in lib.differing(fields, [*names]):
      if name not in (SEED, 'folder') and (not free or name in agreement.FREE):
        values = dict.fromkeys(lib.shown(of.get(name, lib.ABSENT)) for of in fields)
        told.append(f'{name} ({_list([*values])})')
    if told:
      why = ', which decide no result' if free else ': its spread is not of seeds alone'
      yield f'Runs of group {one.number} differ in {_list(told)}{why}.'


def _spread(
  groups: Sequence[Group],
  what: str,
  of: Callable[[Trained], Mapping[str, Any]],
  therefore: str,
) -> Iterator[str]:
  """One line where runs do not share what should be the same."""
  runs = [(one.number, of(run)) for one in groups for run in one.runs]
  names = dict.fromkeys(name for _, found in runs for name in found)
  told = []
  for name in names:
    where: dict[str, set[int]] = {}
    for number, found in runs:
      if name in found:
        where.setdefault(lib.shown(found[name]), set()).add(number)
    if len(where) > 1:
      told.append(
        f'{name} '
        + ', '.join(f'{value} ({_numbers(g)})' for value, g in [*where.items()][:4])
      )
  if told:
    yield f'{what}: {_list(told)}: {therefore}.'


def _lengths(groups: Sequence[Group]) -> Iterator[str]:
  steps: dict[int, set[int]] = {}
  for one in groups:
    for run in one.runs:
      steps.setdefault(run.step, set()).add(one.number)
  if len(steps) > 1:
    told = ', '.join(f'{n:,} ({_numbers(g)})' for n, g in sorted(steps.items())[:6])
    more = f' and {len(steps) - 6} more' if len(steps) > 6 else ''
    yield f'Unequal lengths: steps {told}{more}; metrics are those of the last step.'
  stopped = [r for g in groups for r in g.runs if r.stopped_early]
  if stopped:
    yield f'Early stopping ended {_runs(stopped)}.'
  under_way = [r for g in groups for r in g.runs if not r.finished]
  if under_way:
    yield f'Not finished, taken as they are: {_runs(under_way)}.'


def _declared(found: Comparison) -> Iterator[str]:
  """Metrics of one name that runs declare in other ways."""
  for metric in found.metrics:
    of = [
      lib.declaration([one], metric)
      for one in found.groups
      if one.number in found.quality[metric]
    ]
    if len({(x.title, x.better, x.unit) for x in of}) > 1:
      yield f'{metric} is not declared alike by all groups: it may mean two things.'


def _seeds(groups: Sequence[Group]) -> Iterator[str]:
  for one in groups:
    by_seed: dict[str, list[Trained]] = {}
    for run in one.runs:
      if SEED in run.fields:
        by_seed.setdefault(lib.shown(run.fields[SEED]), []).append(run)
    for seed, runs in by_seed.items():
      if len(runs) > 1:
        yield (
          f'{_runs(runs)} of group {one.number} have the same seed, {seed}: they are '
          'no independent samples.'
        )


def _members(groups: Sequence[Group], metrics: Sequence[str]) -> Iterator[str]:
  many = {m for g in groups for run in g.runs for m in metrics if m in run.members}
  if many:
    yield f'{_list(sorted(many))}: of each run the mean over its members.'


def _intervals(found: Comparison) -> Iterator[str]:
  single = [str(one.number) for one in found.groups if len(one.runs) == 1]
  if single and len(found.groups) > 1:
    yield (
      f'One run alone in group{"s" * (len(single) > 1)} {_list(single)}: no spread, no '
      'interval.'
    )
  made = [d for d in found.differences if d.interval is not None]
  few = min(
    (min(len(d.group.runs), len(found.baseline.runs)) for d in made), default=99
  )
  if made and found.choices.method == 'bootstrap' and few < 10:
    yield (
      f'A bootstrap of {few} runs gives intervals that are too narrow: '
      '--interval=welch is the better guide.'
    )
  if len(made) > 1:
    share = f'{100 * found.choices.confidence:g} %'
    yield (
      f'{len(made)} intervals of {share} each, not corrected for their number: expect '
      f'{len(made) * (1 - found.choices.confidence):.2g} of them to miss.'
    )


def _costs(found: Comparison) -> Iterator[str]:
  joint = [str(g.number) for g in found.groups if any(r.together > 1 for r in g.runs)]
  if joint:
    of = f'group{"s" * (len(joint) > 1)} {_list(joint)}'
    yield (
      f'One program trained several runs of {of} together: seconds are a share of its '
      'time, examples/s are those of all.'
    )
  name = found.choices.cost
  without = [str(g.number) for g in found.groups if g.number not in found.costs[name]]
  if without:
    yield (
      f'No {name.replace("_", " ")} known of group{"s" * (len(without) > 1)} '
      f'{_list(without)}: not in the figure of cost and quality.'
    )


def _runs(runs: Sequence[Trained]) -> str:
  return _list([run.name for run in runs])


def _list(words: Sequence[str]) -> str:
  more = len(words) - SHOWN
  return ', '.join(words[:SHOWN]) + (f' and {more} more' if more > 0 else '')


def _numbers(of: set[int]) -> str:
  listed = _list([str(number) for number in sorted(of)])
  return f'group{"s" * (len(of) > 1)} {listed}'
