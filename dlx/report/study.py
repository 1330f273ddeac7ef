"""report.html of a study: claims first, then figures, the table and what was run.

Made from study.json and figures/ alone; nothing of the study is executed.
"""

import math
import shlex
from typing import Any, Mapping, NamedTuple, Sequence

from etils import epath

from dlx.errors import DataError
from dlx.report import page
from dlx.report.document import document, pictures
from dlx.report.markup import get, section, table, text
from dlx.run.records.json_files import flat, read_json

NAME = 'study.json'


class Shown(NamedTuple):
  """What the workdir of a study holds.

  Attributes:
    name: of the workdir.
    record: study.json.
    figures: (name, PNG).
  """

  name: str
  record: Mapping[str, Any]
  figures: Sequence[tuple[str, bytes]]


def read(workdir: epath.Path, name: str = NAME) -> Shown:
  """What a workdir holds.

  Args:
    workdir: of a study, or of a sweep.
    name: of the file that holds its record.

  Raises:
    DataError: that file is damaged.
  """
  record = read_json(workdir / name)
  runs = record.get('runs') if isinstance(record, dict) else None
  if not isinstance(runs, dict) or not all(isinstance(r, dict) for r in runs.values()):
    raise DataError(f'{workdir / name} is not of a study: take another workdir.')
  figures = [
    (path.name.removesuffix('.png'), path.read_bytes())
    for path in sorted((workdir / 'figures').glob('*.png'))
  ]
  return Shown(workdir.name, record, figures)


def title(shown: Shown) -> str:
  """Name of the study; of one that was given by its path, its file's name."""
  name = str(shown.record.get('study') or shown.name)
  return name.rpartition('/')[2].removesuffix('.py')


def whole(shown: Shown) -> str:
  """The whole of report.html."""
  body = (
    header(shown)
    + claims(shown)
    + pictures(shown.figures)
    + results(shown)
    + runs(shown)
    + configuration(shown)
    + reproduce(shown)
  )
  made = 'Written by dlx.report from the files of the workdir.'
  return document(title(shown), body, made)


def header(shown: Shown) -> str:
  """Title, state and size of the study."""
  record, of = shown.record, shown.record['runs']
  done = [r for r in of.values() if 'metrics' in r]
  finished = bool(record.get('finished'))
  status = 'finished' if finished else f'unfinished, {len(done)} of {len(of)} runs'
  groups = {r.get('group') for r in of.values()}
  experiments = sorted({str(r.get('experiment')) for r in of.values()})
  seconds = sum(x for r in done if isinstance(x := r.get('seconds'), (int, float)))
  device, threads = record.get('device') or {}, record.get('threads')
  where = f'{get(device, "count") or 1} × {get(device, "kind") or "device"}'
  if get(device, 'platform') == 'cpu' and threads:
    where += f', {threads} threads'
  parts = [
    f'{len(of)} runs of {", ".join(experiments)} in {len(groups)} groups',
    ' '.join(page.duration(seconds)),
    where,
    shown.name if shown.name != title(shown) else None,
  ]
  sub = ''.join(f'<span>{text(p)}</span>' for p in parts if p)
  banner = ''
  if not finished:
    banner = (
      '<div class="banner">This study has not finished; the same command goes on with '
      'the runs that are left.</div>'
    )
  return (
    f'<header><div class="over"><span>dlx · study</span>'
    f'<span class="status {"done" if finished else "open"}">{text(status)}</span></div>'
    f'<h1>{text(title(shown))}</h1><p class="sub">{sub}</p>{banner}</header>'
  )


def claims(shown: Shown) -> str:
  """Every claim, whether it held, and its numbers."""
  out = []
  for claim in shown.record.get('claims') or ():
    held = get(claim, 'holds') is True
    out.append(
      f'<li class="card claim"><div class="over">'
      f'<span class="status {"done" if held else "open"}">'
      f'{"held" if held else "not held"}</span></div>'
      f'<h3>{text(get(claim, "claim"))}</h3><p>{text(get(claim, "numbers"))}</p></li>'
    )
  return section('Claims', f'<ul class="claims">{"".join(out)}</ul>' if out else '')


def results(shown: Shown) -> str:
  """The table; a column is called by the title of its metric, with its unit."""
  rows = [row for row in shown.record.get('table') or () if isinstance(row, Mapping)]
  columns = list(dict.fromkeys(name for row in rows for name in row))
  if not columns:
    return ''
  head = ''.join(f'<th>{text(_column(shown, name))}</th>' for name in columns)
  body = ''.join(
    f'<tr>{"".join(f"<td>{text(_cell(row.get(c)))}</td>" for c in columns)}</tr>'
    for row in rows
  )
  grid = f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
  said = shown.record.get('note')
  note = f'<p class="note">{text(said)}</p>' if said else ''
  return section('Results', f'<div class="card box rows">{grid}{note}</div>')


def _column(shown: Shown, name: str) -> str:
  said = get(shown.record, 'declared', name)
  split, _, short = name.rpartition('/')
  if not split:
    return name[:1].upper() + name[1:]
  heading = str(get(said, 'title') or short).replace('_', ' ')
  unit = get(said, 'unit')
  unit = f' ({unit})' if unit and unit != '%' else ''
  return f'{heading}, {split}{unit}'


def _cell(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:.4g}' if math.isfinite(value) else '–'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  return '' if value is None else str(value)


def runs(shown: Shown) -> str:
  """Every run, folded away: its fields and its numbers."""
  names = [str(m) for m in shown.record.get('metrics') or ()]
  head = ['run', 'group', 'fields', *names]
  body = []
  for name, run in shown.record['runs'].items():
    fields = ', '.join(f'{k}={v}' for k, v in flat(run.get('fields') or {}).items())
    state = 'diverged' if run.get('diverged') else '' if 'metrics' in run else 'to do'
    numbers = [_cell(get(run, 'metrics', m)) for m in names]
    if state and numbers:
      numbers[0] = state
    cells = [name, run.get('group'), fields, *numbers]
    body.append(f'<tr>{"".join(f"<td>{text(c)}</td>" for c in cells)}</tr>')
  grid = (
    f'<table><thead><tr>{"".join(f"<th>{text(h)}</th>" for h in head)}</tr></thead>'
    f'<tbody>{"".join(body)}</tbody></table>'
  )
  return section(
    'Runs',
    f'<details><summary>{len(body)} runs</summary>'
    f'<div class="card box rows">{grid}</div></details>',
  )


def configuration(shown: Shown) -> str:
  """The fields of the study."""
  fields = flat(shown.record.get('config') or {})
  rows = [(name, _cell(value)) for name, value in fields.items()]
  grid = table(rows)
  return section('Configuration', f'<div class="card box">{grid}</div>' if grid else '')


def reproduce(shown: Shown) -> str:
  """The command, and the versions."""
  record = shown.record
  argv = [str(a) for a in record.get('argv') or ()]
  command = ''
  if argv:
    launcher = str(record.get('launcher') or 'launch.train')
    told = shlex.join(['python', '-m', launcher, *argv[1:]])
    command = f'<pre><code>{text(told)}</code></pre>'
  versions = get(record, 'versions') or {}
  commit = get(record, 'git', 'commit')
  grid = table([('commit', commit), *versions.items()])
  body = command + grid
  return section('Reproduce', f'<div class="card box">{body}</div>' if body else '')
