"""A comparison as tables for people, and as numbers for programs."""

import csv
import io
import math
from typing import Any, Mapping, Sequence

from dlx.run.tables import Table
from dlx.study.comparison import groups as lib
from dlx.study.comparison.differences import Comparison, Difference
from dlx.study.comparison.groups import Group
from dlx.study.comparison.workdirs import COSTS, Trained
from dlx.study.results import mean_and_sd
from dlx.study.statistics import Interval, Summary

TITLES = {
  'seconds': 'seconds',
  'train_seconds': 'seconds of steps',
  'examples_per_second': 'examples/s',
  'parameters': 'parameters',
  'flops': 'FLOPs',
}


def tables(found: Comparison) -> list[Table]:
  """All tables, the leading one first; those that would be empty are left out."""
  made = [results(found), differences(found), paired(found)]
  made += [costs(found), fields(found), runs(found)]
  return [table for table in made if table.rows and len(table.columns) > 2]


def heading(found: Comparison) -> str:
  """How much is compared, in a few words."""
  groups, count = len(found.groups), sum(len(one.runs) for one in found.groups)
  names = dict.fromkeys(lib.shown(g.runs[0].fields['experiment']) for g in found.groups)
  return (
    f'{", ".join([*names][:4])}: {groups} group{"s" * (groups > 1)} of {count} '
    f'run{"s" * (count > 1)}'
  )


def lead(found: Comparison) -> list[str]:
  """The best group by each metric for which better is declared, a sentence each."""
  out = []
  for metric in found.metrics:
    better = lib.declaration(found.groups, metric).better
    of = found.quality[metric]
    if better is None or len(of) < 2:
      continue
    choose = max if better == 'higher' else min
    number = choose(of, key=lambda n: of[n].mean)
    best = next(one for one in found.groups if one.number == number)
    value = quality(of[number], scaled(found, metric), len(best.runs))
    line = f'Best {titled(found, metric)}: group {number} ({best.label}), {value}'
    for d in found.differences:
      if d.metric == metric and d.group is best:
        middle, _, interval = difference(d, scaled(found, metric))
        line += f'; {middle} against group {found.baseline.number}'
        line += f' {interval}, {verdict(found, d)}' if interval else ', one run alone'
    out.append(f'{line}.')
  return out


def results(found: Comparison) -> Table:
  """A row for each group: mean, standard deviation and error of each metric."""
  columns, rows = ['#', 'group', 'runs'], []
  for metric in found.metrics:
    columns += [titled(found, metric), 'se']
  for one in found.groups:
    name = one.label
    name += ' (baseline)' if one is found.baseline and len(found.groups) > 1 else ''
    row = [str(one.number), name, str(len(one.runs))]
    for metric in found.metrics:
      of, scale = found.quality[metric].get(one.number), scaled(found, metric)
      row += [quality(of, scale, len(one.runs)), error(of, scale)]
    rows.append(row)
  note = '±: standard deviation of a run; se: standard error of the mean.'
  return Table('Results', columns, rows, note, words=2)


def differences(found: Comparison) -> Table:
  """A row for each group and metric, against the baseline."""
  rows = [
    [
      str(d.group.number),
      d.group.label,
      titled(found, d.metric),
      *difference(d, scaled(found, d.metric)),
      verdict(found, d),
    ]
    for d in found.differences
  ]
  share = f'{100 * found.choices.confidence:g} %'
  columns = ['#', 'group', 'metric', 'difference', 'se', f'{share} interval', '']
  made = next((d.interval.method for d in found.differences if d.interval), None)
  note = f'{made[:1].upper()}{made[1:]}.' if made else 'Single runs: no interval.'
  base = f'{found.baseline.number} ({found.baseline.label})'
  return Table(f'Differences from group {base}', columns, rows, note, words=3)


def paired(found: Comparison) -> Table:
  """A row for each group and metric of which runs have the seeds of the baseline."""
  rows = [
    [
      str(d.group.number),
      d.group.label,
      titled(found, d.metric),
      str(d.pairs),
      *_told(d.paired, scaled(found, d.metric)),
      _verdict(found, d.metric, d.paired),
    ]
    for d in found.differences
    if d.paired is not None
  ]
  share = f'{100 * found.choices.confidence:g} %'
  columns = ['#', 'group', 'metric', 'pairs', 'difference', 'se', f'{share} interval']
  base = f'{found.baseline.number} ({found.baseline.label})'
  title = f'Differences of runs with the same seed, from group {base}'
  note = 'Paired t interval: what a seed does to both runs of a pair cancels out.'
  return Table(title, [*columns, ''], rows, note, words=3)


def costs(found: Comparison) -> Table:
  """A row for each group: the first metric, and means of what a run cost."""
  known = [name for name in COSTS if found.costs[name]]
  lead, rows = found.metrics[0], []
  for one in found.groups:
    of = found.quality[lead].get(one.number)
    cells = [cost(name, found.costs[name].get(one.number)) for name in known]
    row = [str(one.number), one.label]
    rows.append([*row, quality(of, scaled(found, lead), len(one.runs)), *cells])
  columns = ['#', 'group', titled(found, lead), *(TITLES[name] for name in known)]
  note = (
    'Of one run. FLOPs: operations of matrix products and convolutions in all steps.'
    if known
    else 'No run says what it cost.'
  )
  return Table('Costs', columns, rows if known else [], note, words=2)


def fields(found: Comparison) -> Table:
  """A row for each group: the fields in which the configs differ."""
  names = [*found.groups[0].fields]
  rows = [
    [str(one.number), *(lib.shown(one.fields[name]) for name in names)]
    for one in found.groups
  ]
  title = 'Fields that differ'
  return Table(title, ['#', *names, ''][: len(names) + 1], rows if names else [])


def runs(found: Comparison) -> Table:
  """A row for each run."""
  columns = ['#', 'workdir', 'seed', 'steps']
  columns += [titled(found, m) for m in found.metrics] + ['seconds']
  rows = []
  for one in found.groups:
    for run in one.runs:
      seed = lib.shown(run.fields.get(lib.SEED, ''))
      row = [str(one.number), run.path, seed, f'{run.step:,}']
      for metric in found.metrics:
        value = run.metrics.get(metric)
        row.append('' if value is None else number(value * scaled(found, metric)))
      seconds = run.costs.get('seconds')
      rows.append([*row, '' if seconds is None else number(seconds)])
  return Table('Runs', columns, rows, words=2)


def titled(found: Comparison, metric: str) -> str:
  """Name and unit of a metric; shares are told in percent."""
  unit = lib.declaration(found.groups, metric).unit
  return f'{metric} ({unit})' if unit else metric


def scaled(found: Comparison, metric: str) -> float:
  return 100.0 if lib.declaration(found.groups, metric).unit == '%' else 1.0


def quality(of: Summary | None, scale: float, runs: int) -> str:
  """Mean and standard deviation; how many runs count where not all do."""
  if of is None:
    return '-'
  count = f' (n={of.count})' if of.count < runs else ''
  sd = math.nan if of.sd is None else of.sd * scale
  return mean_and_sd(of.mean * scale, sd) + count


def error(of: Summary | None, scale: float) -> str:
  return '' if of is None or of.error is None else two_digits(of.error * scale)


def difference(d: Difference, scale: float) -> tuple[str, str, str]:
  """Difference, standard error and interval, with digits as the error has them."""
  if d.interval is None:
    return signed(d.difference * scale, None), '', ''
  return _told(d.interval, scale)


def _told(interval: Interval, scale: float) -> tuple[str, str, str]:
  error = interval.error * scale
  middle, *ends = (
    signed(x * scale, error) for x in (interval.difference, *interval[2:4])
  )
  return middle, two_digits(error), f'[{ends[0]}, {ends[1]}]'


def verdict(found: Comparison, d: Difference) -> str:
  """What the interval says: better or worse where it does not hold zero."""
  return '' if d.interval is None else _verdict(found, d.metric, d.interval)


def _verdict(found: Comparison, metric: str, interval: Interval) -> str:
  if interval.low <= 0 <= interval.high:
    return 'undecided'
  better = lib.declaration(found.groups, metric).better
  higher = interval.low > 0
  if better is None:
    return 'higher' if higher else 'lower'
  return 'better' if higher == (better == 'higher') else 'worse'


def cost(name: str, of: Summary | None) -> str:
  if of is None:
    return '-'
  if name in ('parameters', 'flops') and of.low == of.high:
    return f'{of.mean:,.0f}' if name == 'parameters' else f'{of.mean:.3g}'
  return mean_and_sd(of.mean, of.sd) if of.sd else number(of.mean)


def two_digits(value: float) -> str:
  """A standard deviation or an error."""
  places = _places(value) if value else None
  return f'{value:.2g}' if places is None else f'{value:,.{places}f}'


def number(value: float) -> str:
  """About four digits."""
  if not math.isfinite(value):
    return str(value)
  return f'{value:,.0f}' if 1e4 <= abs(value) < 1e6 else f'{value:.4g}'


def signed(value: float, error: float | None) -> str:
  """With its sign, to two digits of the error."""
  places = _places(error) if error else None
  if places is None or abs(value) >= 1e6:
    return f'{value:+.3g}'
  return f'{value:+.{places}f}'


def _places(sd: float) -> int | None:
  """Digits behind the point that show two of sd; None: better with an exponent."""
  places = 1 - math.floor(math.log10(sd))
  return None if places > 7 else max(0, places)


def as_json(found: Comparison, cautions: Sequence[str]) -> dict[str, Any]:
  """All numbers, unrounded, for table.json; shares as shares."""
  return {
    'baseline': found.baseline.number,
    'confidence': found.choices.confidence,
    'cautions': [*cautions],
    'groups': [_group(found, one) for one in found.groups],
    'differences': [
      {
        'metric': d.metric,
        'group': d.group.number,
        'difference': d.difference,
        'interval': None if d.interval is None else d.interval._asdict(),
        'pairs': d.pairs,
        'paired': None if d.paired is None else d.paired._asdict(),
      }
      for d in found.differences
    ],
  }


def as_csv(found: Comparison) -> str:
  """A line for each group: fields, counts, metrics and costs, unrounded."""
  lines = []
  for one in found.groups:
    line: dict[str, Any] = {'group': one.number, 'label': cell(one.label)}
    line['runs'] = len(one.runs)
    line |= {f'field {cell(k)}': _plain(v) for k, v in one.fields.items()}
    for of in (found.quality, found.costs):
      for name, by_group in of.items():
        summary = by_group.get(one.number)
        values = {} if summary is None else summary._asdict()
        for part in ('count', 'mean', 'sd', 'error', 'low', 'high'):
          value = values.get(part)
          line[f'{cell(name)} {part}'] = '' if value is None else repr(value)
    lines.append(line)
  text = io.StringIO()
  writer = csv.DictWriter(text, [*lines[0]], lineterminator='\n')
  writer.writeheader()
  writer.writerows(lines)
  return text.getvalue()


def cell(text: str) -> str:
  """A text that a spreadsheet does not take for a formula."""
  return f"'{text}" if text[:1] in ('=', '+', '-', '@', '\t', '\r') else text


def _plain(value: Any) -> Any:
  """A value of a field as a cell: a number as it is, nothing where it is absent."""
  if value == lib.ABSENT:
    return ''
  return value if isinstance(value, (int, float)) else cell(lib.shown(value))


def _group(found: Comparison, one: Group) -> dict[str, Any]:
  of = lambda by_name: {
    name: _summary(by_group.get(one.number)) for name, by_group in by_name.items()
  }
  return {
    'number': one.number,
    'label': one.label,
    'fields': dict(one.fields),
    'metrics': of(found.quality),
    'costs': of(found.costs),
    'runs': [_run(found, run) for run in one.runs],
  }


def _summary(of: Summary | None) -> dict[str, Any] | None:
  return None if of is None else of._asdict()


def _run(found: Comparison, run: Trained) -> dict[str, Any]:
  metrics: Mapping[str, float] = {
    name: run.metrics[name] for name in found.metrics if name in run.metrics
  }
  return {
    'workdir': run.path,
    'seed': run.fields.get(lib.SEED),
    'steps': run.step,
    'finished': run.finished,
    'metrics': dict(metrics),
    'costs': dict(run.costs),
  }
