"""report.html of a sweep: the best config first, then figures and all trials.

Made from sweep.json and figures/ alone.
"""

from typing import Any, Mapping

from dlx.report import page, study
from dlx.report.document import document, pictures
from dlx.report.markup import get, section, table, text
from dlx.report.study import Shown

NAME = 'sweep.json'


def whole(shown: Shown) -> str:
  """The whole of report.html."""
  figures = [(name.partition('_')[2], png) for name, png in shown.figures]
  body = (
    header(shown)
    + best(shown)
    + pictures(figures)
    + study.results(shown)
    + search(shown)
    + study.runs(shown)
    + study.configuration(shown)
    + study.reproduce(shown)
  )
  made = 'Written by dlx.report from the files of the workdir.'
  return document(f'{study.title(shown)}, sweep', body, made)


def header(shown: Shown) -> str:
  """Title, state and size of the sweep."""
  record = shown.record
  rows = [row for row in record.get('table') or () if isinstance(row, Mapping)]
  finished = bool(record.get('finished'))
  runs = record['runs'].values()
  seconds = sum(x for r in runs if isinstance(x := r.get('seconds'), (int, float)))
  parts = [
    f'{len(rows)} trials, {len(runs)} runs',
    f'{get(record, "search", "by")} search',
    ' '.join(page.duration(seconds)),
    f'{get(record, "device", "count") or 1} × '
    f'{get(record, "device", "kind") or "device"}',
    shown.name,
  ]
  sub = ''.join(f'<span>{text(p)}</span>' for p in parts if p)
  banner = (
    '<div class="banner">This sweep has not finished; the same command goes on.</div>'
  )
  return (
    f'<header><div class="over"><span>dlx · sweep</span>'
    f'<span class="status {"done" if finished else "open"}">'
    f'{"finished" if finished else "unfinished"}</span></div>'
    f'<h1>{text(study.title(shown))}</h1><p class="sub">{sub}</p>'
    f'{"" if finished else banner}</header>'
  )


def best(shown: Shown) -> str:
  """The best trial: its number, its fields, the command that trains it."""
  record = shown.record
  metric = ''.join(str(m) for m in (record.get('metrics') or ())[:1])
  if get(record, 'best', 'value') is None:
    told = '<p>No trial has a number yet.</p>'
    return section('Best', f'<div class="card box">{told}</div>')
  value = record['best']['value']
  shown_value = f'{value:.4g}' if isinstance(value, (int, float)) else value
  fields = get(record, 'best', 'fields')
  rows: list[tuple[str, Any]] = [
    ('trial', get(record, 'best', 'trial')),
    (metric, shown_value),
    *(fields.items() if isinstance(fields, Mapping) else ()),
  ]
  command = text(get(record, 'best', 'command') or '')
  note = ''
  if metric.startswith('test/'):
    note = (
      '<p class="note">Chosen on the test set: the number is too good by the choice. '
      'Choose on validation/..., then look at test once.</p>'
    )
  return section(
    'Best',
    f'<div class="card box">{table(rows)}<pre><code>{command}</code></pre>{note}</div>',
  )


def search(shown: Shown) -> str:
  """What was searched, and what the figures stand on."""
  of = shown.record.get('search')
  of = of if isinstance(of, Mapping) else {}
  fields = of.get('fields')
  rows: list[tuple[str, Any]] = [
    *(fields.items() if isinstance(fields, Mapping) else ()),
    ('search', of.get('by')),
    ('seed', of.get('seed')),
    ('runs of a trial', of.get('seeds')),
    ('better', of.get('better')),
    ('importance by', of.get('importance_by') if of.get('importance') else None),
  ]
  grid = table(rows)
  return section('Search', f'<div class="card box">{grid}</div>' if grid else '')
