"""Sections of report.html about how a run was made: time, config, provenance."""

import re
import shlex
from typing import Any, Mapping

from dlx.report import chart
from dlx.report.markup import Run, get, section, table, text, titled
from dlx.run.records.command import reproduce
from dlx.run.records.json_files import flat

STAGES = ('compile', 'read', 'input', 'train', 'eval', 'save', 'figures', 'other')


def times(run: Run) -> str:
  seconds = get(run.result, 'seconds') or run.spent
  parts = [
    (s, float(seconds[s]))
    for s in STAGES
    if isinstance(seconds.get(s), (int, float)) and seconds[s] > 0
  ]
  if not parts:
    return ''
  more = [_waited(seconds)] if 'read' in seconds else []
  sessions = seconds.get('sessions')
  count = len(sessions) if isinstance(sessions, (list, tuple)) else sessions
  if isinstance(count, int) and count > 1:
    more.append(f'summed over {count} sessions')
  note = f'<p class="note">{text("; ".join(more))}</p>' if more else ''
  return section(
    'Where the time went', f'<div class="card box">{chart.shares(parts)}{note}</div>'
  )


def _waited(seconds: Mapping[str, Any]) -> str:
  """Whether the loop waited for batches, in words."""
  waited, trained = float(seconds['input']), float(seconds['train'])
  if not waited:
    return 'the steps waited for no input'
  share = 100 * waited / (waited + trained)
  return f'{share:.0f} % of the time of the steps was waiting for input'


def shown(value: Any) -> str:
  if value is None:
    return 'None'
  if isinstance(value, float):
    return f'{value:g}' if float(f'{value:g}') == value else repr(value)
  return str(value)


def pairs(value: Any) -> Any:
  """A mapping as `name=value, ...`; anything else as it is."""
  if not isinstance(value, Mapping):
    return value
  return ', '.join(f'{k}={shown(v)}' for k, v in value.items())


def configuration(run: Run) -> str:
  """All fields; those that differ from their defaults stand out.

  Where config.json holds no `defaults`, those named on the command line do.
  """
  fields = flat(get(run.config, 'config'))
  if not fields:
    return ''
  defaults = get(run.config, 'defaults')
  known = flat(defaults) if isinstance(defaults, Mapping) else {}
  argv = [str(a) for a in run.config.get('argv') or []]
  named = {m[2] for a in argv if (m := re.match(r'--(no)?config\.([^=]+)', a))}
  rows, marked = [], 0
  for name, value in fields.items():
    changed = (name in known and known[name] != value) if known else name in named
    marked += changed
    was = (
      f'<td class="was">{text(shown(known[name]))}</td>'
      if changed and known
      else '<td></td>'
      if known
      else ''
    )
    none = ' class="none"' if value is None else ''
    rows.append(
      f'<tr{" class=changed" if changed else ""}><th>{text(name)}</th>'
      f'<td{none}>{text(shown(value))}</td>{was}</tr>'
    )
  what = (
    'differ from the defaults, which stand beside them'
    if known
    else 'were set on the command line'
  )
  verb = (
    what
    if marked != 1
    else what.replace('differ ', 'differs ')
    .replace('were', 'was')
    .replace(
      'the defaults, which stand beside them', 'its default, which stands beside it'
    )
  )
  note = (
    f'<p class="note">Marked: {marked} field{"s" * (marked != 1)} that {verb}.</p>'
    if marked
    else ''
  )
  half = (len(rows) + 1) // 2
  tables = ''.join(
    f'<div><table>{"".join(part)}</table></div>'
    for part in (rows[:half], rows[half:])
    if part
  )
  return section(
    'Configuration',
    f'<div class="card box"><div class="grid2">{tables}</div>{note}</div>',
  )


def _data(run: Run) -> str:
  out = []
  for split, origin in (run.result.get('dataset') or {}).items():
    if not isinstance(origin, Mapping):
      origin = {'origin': origin}
    size = origin.get('size')
    parts = [
      origin.get('name'),
      f'{size:,} examples' if isinstance(size, int) else size,
      origin.get('kind'),
      origin.get('path'),
    ]
    parts += [
      f'{k}: {v}'
      for k, v in origin.items()
      if k not in ('name', 'size', 'kind', 'path', 'split')
    ]
    out.append((split, ', '.join(str(p) for p in parts if p not in (None, ''))))
  return titled('Data', table(out))


def machine(run: Run) -> str:
  r, c = run.result, run.config
  device = r.get('device') or c.get('device') or {}
  rows = [
    ('device', device.get('kind')),
    ('devices', device.get('count')),
    ('platform', device.get('platform')),
    ('CPU threads', r.get('threads') or c.get('threads')),
    ('mesh', pairs(c.get('mesh'))),
    ('XLA_FLAGS', r.get('xla_flags') or c.get('xla_flags')),
  ]
  found = r.get('versions') or c.get('versions') or {}
  versions = list(found.items())
  return titled('Hardware', table(rows)) + titled('Versions', table(versions))


def provenance(run: Run) -> str:
  r, c = run.result, run.config
  argv = [str(a) for a in c.get('argv') or []]
  # One word a span, so that a line breaks between words only.
  words = ' '.join(f'<span>{text(shlex.quote(a))}</span>' for a in reproduce(argv))
  command = (
    (f'<pre><code>{words}</code><button type="button">copy</button></pre>')
    if argv
    else ''
  )
  git = r.get('git') or c.get('git') or {}
  if not isinstance(git, Mapping):
    git = {'commit': git}
  commit = git.get('commit')
  if commit and git.get('dirty'):
    commit = f'{commit} + uncommitted changes'
  warm, other = c.get('warm_start'), c.get('init_from') or {}
  begun = {k: other[k] for k in ('path', 'step', 'averaged', 'digest') if k in other}
  rows = [
    ('workdir', run.name),
    ('experiment', c.get('experiment')),
    ('commit', commit),
    ('fingerprint', r.get('fingerprint')),
    ('warm start', pairs(warm)),
    ('begun from', pairs(begun) if begun else None),
  ]
  return titled('Command', command) + titled('Provenance', table(rows)) + _data(run)
