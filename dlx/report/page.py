"""The sections of report.html, each a pure function from what a run wrote to HTML.

Every text that comes from a workdir goes through `text`.
"""

import base64
import html
import re
import shlex
from typing import Any, Mapping, NamedTuple, Sequence

from dlx.report import chart
from dlx.report import style

FRACTIONS = re.compile(r'(^|_)(accuracy|acc|precision|recall|f1|auc|top\d+)($|_)')
SMALLER = re.compile(r'loss|err|mae|mse|rmse|perplexity|nll|ece|fid')
FIRST = ('accuracy', 'loss')  # Metrics that lead, in this order on the cards.
MAX_CHARTS = 12  # More charts are folded away.
STAGES = ('compile', 'input', 'train', 'eval', 'save', 'other')


class Run(NamedTuple):
  """What a workdir holds.

  Attributes:
    name: of the workdir.
    config: config.json.
    result: result.json; {} where the run has not ended.
    curves: metric -> its lines, one a split.
    splits: all splits, 'train' first: they decide the colours.
    last: the newest value of every "split/name".
    step: the last step that was logged.
    elapsed: seconds so far, where the metrics say so.
    figures: (name, PNG).
  """

  name: str
  config: Mapping[str, Any]
  result: Mapping[str, Any]
  curves: Mapping[str, Sequence[chart.Series]]
  splits: Sequence[str]
  last: Mapping[str, float]
  step: int
  elapsed: float | None
  figures: Sequence[tuple[str, bytes]]


def text(value: Any) -> str:
  return html.escape(str(value))


def section(title: str, body: str) -> str:
  return f'<section><h2>{text(title)}</h2>{body}</section>' if body else ''


def table(rows: Sequence[tuple[str, Any]]) -> str:
  """Two columns; rows without a value are left out."""
  body = ''.join(f'<tr><th>{text(k)}</th><td>{text(v)}</td></tr>'
                 for k, v in rows if v not in (None, '', {}, []))
  return f'<table>{body}</table>' if body else ''


def titled(title: str, body: str) -> str:
  return f'<h3>{text(title)}</h3>{body}' if body else ''


def get(mapping: Any, *names: str) -> Any:
  """A nested value, or None where any name on the way is missing."""
  for name in names:
    mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
  return mapping


def duration(seconds: float) -> tuple[str, str]:
  """A number and its unit: 8.31 s, 4:05 min, 3:20 h."""
  if seconds < 100:
    return f'{seconds:.3g}', 's'
  if seconds < 3600:
    return f'{int(seconds // 60)}:{int(seconds % 60):02d}', 'min'
  return f'{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}', 'h'


def flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  out = {}
  for name, value in (tree or {}).items():
    if isinstance(value, Mapping):
      out |= flat(value, f'{prefix}{name}.')
    else:
      out[prefix + name] = value
  return out


def finished(run: Run) -> bool:
  return bool(run.result) and run.result.get('finished', True) is not False


def title(run: Run) -> str:
  """Name of the experiment; of a fork that was given by its path, its file's name."""
  name = str(run.result.get('experiment') or run.config.get('experiment') or run.name)
  return name.rstrip('/').rpartition('/')[2].removesuffix('.py') or run.name


def num_steps(run: Run) -> int | None:
  return get(run.result, 'num_steps') or get(run.config, 'config', 'num_steps')


def header(run: Run) -> str:
  steps = num_steps(run)
  done = finished(run)
  step = run.result.get('step', run.step)
  parts = [get(run.config, 'config', 'dataset')]
  device = get(run.result, 'device') or {}
  parts.append(f'{step:,} steps' if done else None)
  if (seed := get(run.config, 'config', 'seed')) is not None:
    parts.append(f'seed {seed}')
  if device:
    parts.append(f'{device.get("count", 1)} × {device.get("kind", "device")}')
    if device.get('platform') == 'cpu' and run.result.get('threads'):
      parts[-1] += f', {run.result["threads"]} threads'
  parts.append(run.name)
  sub = ''.join(f'<span>{text(p)}</span>' for p in parts if p)
  of = f' of {steps:,}' if steps else ''
  status = 'finished' if done else f'unfinished, step {step:,}{of}'
  banner = ''
  if not done:
    share = min(100.0, 100 * step / steps) if steps else 0
    banner = ('<div class="banner">This run has not finished: the page shows what it has '
              f'written so far, up to step {step:,}{of}. The same command goes on from the '
              f'newest checkpoint.<div class="bar"><i style="width:{share:.1f}%"></i></div>'
              '</div>')
  return (f'<header><div class="over"><span>dlx · run report</span>'
          f'<span class="status {"done" if done else "open"}">{text(status)}</span></div>'
          f'<h1>{text(title(run))}</h1><p class="sub">{sub}</p>{banner}</header>')


def _card(label: str, value: str, unit: str = '', more: str = '', extra: str = '') -> str:
  small = f'<small>{text(unit)}</small>' if unit else ''
  note = f'<div class="more">{text(more)}</div>' if more else ''
  return (f'<div class="card"><div class="label">{text(label)}</div>'
          f'<div class="value">{text(value)}{small}</div>{extra}{note}</div>')


def _is_percent(name: str, value: float) -> bool:
  return bool(FRACTIONS.search(name)) and 0 <= value <= 1


def _metric_card(run: Run, full: str, value: float) -> str:
  split, _, name = full.rpartition('/')
  shown, unit = ((f'{100 * value:.2f}', '%') if _is_percent(name, value)
                 else (chart.compact(value), ''))
  more = extra = ''
  line = next((s for s in run.curves.get(name, ()) if s.name == split), None)
  if line is not None:
    points = chart.finite(line.points)
    extra = chart.spark(points, color(run, split))
    if split != 'train' and len(points) > 2:
      best = (min if SMALLER.search(name) else max)(points, key=lambda p: p[1])
      number = (f'{100 * best[1]:.2f} %' if _is_percent(name, best[1])
                else chart.compact(best[1]))
      more = f'best {number} @ {best[0]:,}'
  return _card(f'{split} {name}'.replace('_', ' '), shown, unit, more, extra)


def color(run: Run, split: str) -> int:
  return run.splits.index(split) % chart.COLORS if split in run.splits else 0


def rank(name: str) -> tuple[int, str]:
  return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def cards(run: Run) -> str:
  """The figures that a reader looks for first."""
  values = {k: v for k, v in (get(run.result, 'metrics') or run.last).items()
            if isinstance(v, (int, float))}
  order = lambda k: (k.startswith('train/'), rank(k.rpartition('/')[2]), k)
  names = sorted(values, key=order)
  lead = [n for n in names if not n.startswith('train/')][:4]
  train = [n for n in names if n.startswith('train/')]
  train.sort(key=lambda n: n != 'train/loss')
  lead += train[:1 if lead else 4]
  out = [_metric_card(run, n, values[n]) for n in lead]
  total = get(run.result, 'seconds', 'total')
  total = run.elapsed if total is None else total
  if total is not None:
    compile_s = get(run.result, 'seconds', 'compile')
    more = '' if compile_s is None else f'compile {compile_s:.3g} s'
    out.append(_card('wall time', *duration(total), more))
  if rate := run.result.get('examples_per_second'):
    device = get(run.result, 'device', 'kind') or ''
    out.append(_card('examples per second', chart.compact(float(f'{rate:.4g}')), '',
                     f'on {device}' if device else ''))
  return f'<div class="cards">{"".join(out)}</div>' if out else ''


def curves(run: Run) -> str:
  lead = {'loss': 0, 'accuracy': 1}
  names = sorted(run.curves, key=lambda n: (lead.get(n, 2), n))
  drawn = [d for n in names if (d := chart.chart(
      n, run.curves[n], [color(run, s.name) for s in run.curves[n]]))]
  if not drawn:
    return ''
  body = f'<div class="grid2">{"".join(drawn[:MAX_CHARTS])}</div>'
  if rest := drawn[MAX_CHARTS:]:
    body += (f'<details><summary>{len(rest)} more metrics</summary>'
             f'<div class="grid2">{"".join(rest)}</div></details>')
  return section('Curves', body)


def _size(png: bytes) -> tuple[int, int]:
  """(width, height) in pixels out of a PNG's header; (1, 1) of anything else."""
  if png[:8] != b'\x89PNG\r\n\x1a\n' or len(png) < 24:
    return 1, 1
  return int.from_bytes(png[16:20], 'big'), int.from_bytes(png[20:24], 'big')


def figures(run: Run) -> str:
  out = []
  for name, png in run.figures:
    width, height = _size(png)
    wide = ' wide' if width > 1.8 * height or len(run.figures) == 1 else ''
    data = base64.b64encode(png).decode()
    label = name.replace('_', ' ').replace('-', ' ')
    label = label[:1].upper() + label[1:]
    out.append(f'<figure class="card figure{wide}"><figcaption><h3>{text(label)}</h3>'
               f'</figcaption><img alt="{text(label)}" width="{width}" height="{height}" '
               f'style="height:auto" src="data:image/png;base64,{data}"></figure>')
  return section('Figures', f'<div class="grid2">{"".join(out)}</div>' if out else '')


def times(run: Run) -> str:
  seconds = get(run.result, 'seconds') or {}
  parts = [(s, float(seconds[s])) for s in STAGES if seconds.get(s)]
  if not parts:
    return ''
  more = []
  sessions = seconds.get('sessions')
  count = len(sessions) if isinstance(sessions, (list, tuple)) else sessions
  if isinstance(count, int) and count > 1:
    more.append(f'summed over {count} sessions')
  note = f'<p class="note">{text("; ".join(more))}</p>' if more else ''
  return section('Where the time went',
                 f'<div class="card box">{chart.shares(parts)}{note}</div>')


def shown(value: Any) -> str:
  if value is None:
    return 'None'
  if isinstance(value, float):
    return f'{value:g}' if float(f'{value:g}') == value else repr(value)
  return str(value)


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
    was = (f'<td class="was">{text(shown(known[name]))}</td>' if changed and known
           else '<td></td>' if known else '')
    none = ' class="none"' if value is None else ''
    rows.append(f'<tr{" class=changed" if changed else ""}><th>{text(name)}</th>'
                f'<td{none}>{text(shown(value))}</td>{was}</tr>')
  what = ('differ from the defaults, which stand beside them' if known
          else 'were set on the command line')
  verb = what if marked != 1 else what.replace('differ ', 'differs ').replace(
      'were', 'was').replace('the defaults, which stand beside them',
                             'its default, which stands beside it')
  note = (f'<p class="note">Marked: {marked} field{"s" * (marked != 1)} '
          f'that {verb}.</p>' if marked else '')
  half = (len(rows) + 1) // 2
  tables = ''.join(f'<div><table>{"".join(part)}</table></div>'
                   for part in (rows[:half], rows[half:]) if part)
  return section('Configuration',
                 f'<div class="card box"><div class="grid2">{tables}</div>{note}</div>')


def _data(run: Run) -> str:
  out = []
  for split, origin in (run.result.get('dataset') or {}).items():
    if not isinstance(origin, Mapping):
      origin = {'origin': origin}
    size = origin.get('size')
    parts = [origin.get('name'), f'{size:,} examples' if isinstance(size, int) else size,
             origin.get('kind'), origin.get('path')]
    parts += [f'{k}: {v}' for k, v in origin.items()
              if k not in ('name', 'size', 'kind', 'path', 'split')]
    out.append((split, ', '.join(str(p) for p in parts if p not in (None, ''))))
  return titled('Data', table(out))


def machine(run: Run) -> str:
  r, c = run.result, run.config
  device = r.get('device') or c.get('device') or {}
  rows = [('device', device.get('kind')), ('devices', device.get('count')),
          ('platform', device.get('platform')),
          ('CPU threads', r.get('threads') or c.get('threads')),
          ('mesh', shown(c['mesh']) if c.get('mesh') else None),
          ('XLA_FLAGS', r.get('xla_flags') or c.get('xla_flags'))]
  found = r.get('versions') or c.get('versions') or {}
  versions = [(k, v) for k, v in found.items()]
  return _data(run) + titled('Hardware', table(rows)) + titled('Versions', table(versions))


def provenance(run: Run) -> str:
  r, c = run.result, run.config
  argv = [str(a) for a in c.get('argv') or []]
  command = (f'<pre><code>{text(shlex.join(argv))}</code>'
             '<button type="button">copy</button></pre>') if argv else ''
  git = r.get('git') or c.get('git') or {}
  if not isinstance(git, Mapping):
    git = {'commit': git}
  commit = git.get('commit')
  if commit and git.get('dirty'):
    commit = f'{commit} + uncommitted changes'
  warm = c.get('warm_start')
  rows = [('workdir', run.name), ('experiment', c.get('experiment')), ('commit', commit),
          ('fingerprint', r.get('fingerprint')),
          ('warm start', shown(warm) if warm else None)]
  return titled('Command', command) + titled('Provenance', table(rows))


def page(run: Run) -> str:
  """The whole of report.html."""
  boxes = ''.join(f'<div class="card box">{b}</div>'
                  for b in (provenance(run), machine(run)) if b)
  geometry = [chart.WIDTH, chart.HEIGHT, chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM]
  body = (header(run) + cards(run) + curves(run) + figures(run) + times(run) +
          configuration(run) +
          section('Reproduce', f'<div class="grid2">{boxes}</div>' if boxes else ''))
  return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
          '<meta name="viewport" content="width=device-width, initial-scale=1">'
          # Nothing is fetched, whatever a workdir holds.
          '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
          "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
          f'<title>{text(title(run))} · dlx</title><style>{style.CSS}</style></head>'
          f'<body><main>{body}<footer>Written by dlx.report from the files of the workdir. '
          'Self-contained: nothing is loaded from elsewhere.</footer></main>'
          '<dialog><img alt=""></dialog>'
          f'<script>{style.JS.replace("GEOMETRY", str(geometry))}</script></body></html>\n')
