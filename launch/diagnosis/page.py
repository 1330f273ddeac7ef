"""Findings for a terminal, as JSON, and as one self-contained HTML page."""

import base64
import importlib.resources
import io
from typing import Any, Mapping, Sequence
import unicodedata

from dlx.inspect import findings as library
from dlx.inspect.findings import Finding, Report
from dlx.report.markup import section, text

MARKS = {'error': 'ERROR', 'warning': 'warn', 'note': 'note', None: 'ok'}


def printable(said: str) -> str:
  """One line without control characters: a file's text could hold some."""
  return ''.join(
    ' ' if unicodedata.category(c).startswith('C') else c
    for c in ' '.join(said.split())
  )


def line(title: str, report: Report, seconds: float) -> str:
  """One check, as it is printed when it is done."""
  mark = 'skip' if report.skipped else MARKS[library.worst(report.findings)]
  said = printable(report.skipped or report.said)
  return f'{mark:<5} {seconds:6.1f} s  {title}{": " if said else ""}{said}'


def summary(found: Sequence[Finding]) -> str:
  """All findings for a terminal: what, evidence, fix and line."""
  if not found:
    return 'Nothing is wrong.'
  lines = []
  for one in found:
    where = f'  ({one.where})' if one.where else ''
    lines.append(f'{MARKS[one.severity]:<5}  {one.name}{where}')
    lines.append(f'       {printable(one.evidence)}')
    if one.fix:
      lines.append(f'       fix: {printable(one.fix)}')
  return '\n'.join(lines)


def as_json(
  about: Mapping[str, Any], found: Sequence[Finding], reports: Mapping[str, Report]
) -> dict[str, Any]:
  """What --out=FILE.json holds."""
  return {
    **about,
    'findings': [one._asdict() for one in found],
    'checks': {
      name: {
        'said': report.said,
        'skipped': report.skipped,
        'findings': [one.name for one in report.findings],
        'tables': {k: [list(row) for row in v] for k, v in report.tables.items()},
      }
      for name, report in reports.items()
    },
  }


def as_html(
  about: Mapping[str, Any],
  found: Sequence[Finding],
  reports: Mapping[str, Report],
  titles: Mapping[str, str],
) -> str:
  """The page: findings, what each check measured, figures, tables."""
  css = (importlib.resources.files('dlx.report') / 'page.css').read_text('utf-8')
  rows = [('severity', 'finding', 'evidence', 'fix', 'line')]
  rows += [(f.severity, f.name, f.evidence, f.fix, f.where) for f in found]
  said = [('check', 'result')]
  for name, one in reports.items():
    result = f'not asked: {one.skipped}' if one.skipped else one.said
    said.append((titles[name], result))
  drawn = ''.join(
    f'<figure class="card figure"><img alt="{text(name)}" style="height:auto" '
    f'src="data:image/png;base64,{_png(figure)}"></figure>'
    for report in reports.values()
    for name, figure in report.figures.items()
  )
  tables = ''.join(
    section(title, _box(table))
    for report in reports.values()
    for title, table in report.tables.items()
  )
  errors = sum(f.severity == 'error' for f in found)
  status = f'{errors} errors' if errors else 'no error'
  facts = ''.join(
    f'<span>{text(k)} {text(v)}</span>' for k, v in about.items() if k != 'experiment'
  )
  body = (
    '<header><div class="over"><span>dlx · doctor</span><span class="status '
    f'{"open" if errors else "done"}">{status}</span></div>'
    f'<h1>{text(about["experiment"])}</h1><p class="sub">{facts}</p></header>'
    + section('Findings', _box(rows) if found else _box([('Nothing is wrong.',)]))
    + section('Checks', _box(said))
    + section('Figures', f'<div class="grid2">{drawn}</div>' if drawn else '')
    + tables
  )
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "img-src data:; style-src 'unsafe-inline'\">"
    f'<title>{text(about["experiment"])} · doctor</title><style>{css}'
    'figure.card img { max-width: 100% } .card.box { overflow-x: auto }'
    '.box th, .box td { width: auto; padding-right: 20px; overflow-wrap: normal }'
    '</style></head>'
    f'<body><main>{body}</main></body></html>\n'
  )


def _box(rows: Sequence[Sequence[str]]) -> str:
  first, *rest = rows
  head = ''.join(f'<th>{text(cell)}</th>' for cell in first)
  body = ''.join(
    '<tr>' + ''.join(f'<td>{text(cell)}</td>' for cell in row) + '</tr>' for row in rest
  )
  table = f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
  return f'<div class="card box">{table}</div>'


def _png(figure: Any) -> str:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png')
  return base64.b64encode(buffer.getvalue()).decode()
