"""report.html of a run: its header, cards and curves, and all sections in order."""

from typing import Sequence

from dlx.report import chart, declarations, marks, tables
from dlx.report.document import document, pictures
from dlx.report.markup import Run, get, section, text

LEADING = 4  # Cards of evaluations where a run names no headline.
MAX_CHARTS = 12  # More charts are folded away.


def duration(seconds: float) -> tuple[str, str]:
  """A number and its unit: 8.31 s, 4:05 min, 3:20 h."""
  if seconds < 100:
    return f'{seconds:.3g}', 's'
  if seconds < 3600:
    return f'{int(seconds // 60)}:{int(seconds % 60):02d}', 'min'
  return f'{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}', 'h'


def finished(run: Run) -> bool:
  return bool(run.result) and run.result.get('finished', True) is not False


def title(run: Run) -> str:
  """Name of the experiment; of a fork that was given by its path, its file's name."""
  name = str(run.result.get('experiment') or run.config.get('experiment') or run.name)
  return name.rstrip('/').rpartition('/')[2].removesuffix('.py') or run.name


def num_steps(run: Run) -> int | None:
  return get(run.result, 'num_steps') or get(run.config, 'config', 'num_steps')


def put_back(run: Run) -> int | None:
  """Step whose weights early stopping put back; None: it did not, or of each member."""
  split, _, name = str(get(run.config, 'config', 'early_stop_metric')).partition('/')
  line = next((s for s in run.curves.get(name, ()) if s.name == split), None)
  points = chart.finite(line.points) if line is not None and not line.low else []
  if not run.result.get('stopped_early') or not points:
    return None
  choose = max if get(run.config, 'config', 'early_stop_mode') == 'max' else min
  return int(choose(points, key=lambda p: p[1])[0])


def _stopped(run: Run, step: int) -> str:
  """What early stopping did, in a sentence."""
  best, said = put_back(run), f'Stopped early at step {step:,}'
  if metric := get(run.config, 'config', 'early_stop_metric'):
    count = get(run.config, 'config', 'early_stop_patience')
    many = 's' * (count != 1)
    said += f': {metric} has not improved for {count} evaluation{many}'
  if best is not None:
    said += f'; the weights of step {best:,} are put back, and the figures are of them'
  return f'<div class="banner">{text(said)}.</div>'


def header(run: Run) -> str:
  steps = num_steps(run)
  done = finished(run)
  step = run.result.get('step', run.step)
  parts = [get(run.config, 'config', 'dataset')]
  device = get(run.result, 'device') or get(run.config, 'device') or {}
  threads = run.result.get('threads') or run.config.get('threads')
  parts.append(f'{step:,} steps' if done else None)
  if (seed := get(run.config, 'config', 'seed')) is not None:
    parts.append(f'seed {seed}')
  if device:
    parts.append(f'{device.get("count", 1)} × {device.get("kind", "device")}')
    if device.get('platform') == 'cpu' and threads:
      parts[-1] += f', {threads} threads'
  parts.append(run.name if run.name != title(run) else None)
  sub = ''.join(f'<span>{text(p)}</span>' for p in parts if p)
  of = f' of {steps:,}' if steps else ''
  status = 'finished' if done else f'unfinished, step {step:,}{of}'
  banner = ''
  if done and run.result.get('stopped_early'):
    status, banner = f'stopped early, step {step:,}{of}', _stopped(run, step)
  elif not done:
    share = min(100.0, 100 * step / steps) if steps else 0
    banner = (
      '<div class="banner">This run has not finished: the page shows what it has '
      f'written so far, up to step {step:,}{of}. The same command goes on from the '
      f'newest checkpoint.<div class="bar"><i style="width:{share:.1f}%"></i></div>'
      '</div>'
    )
  return (
    f'<header><div class="over"><span>dlx · run report</span>'
    f'<span class="status {"done" if done else "open"}">{text(status)}</span></div>'
    f'<h1>{text(title(run))}</h1><p class="sub">{sub}</p>{banner}</header>'
  )


def _card(
  label: str,
  value: str,
  unit: str = '',
  more: str = '',
  extra: str = '',
  meaning: str = '',
) -> str:
  small = f'<small>{text(unit)}</small>' if unit else ''
  note = f'<div class="more">{text(more)}</div>' if more else ''
  tip = f' title="{text(meaning)}"' if meaning else ''
  return (
    f'<div class="card"{tip}><div class="label">{text(label)}</div>'
    f'<div class="value">{text(value)}{small}</div>{extra}{note}</div>'
  )


def _metric_card(run: Run, full: str, value: float) -> str:
  split, _, name = full.rpartition('/')
  declared = declarations.of(run, split, name)
  more = extra = ''
  line = next((s for s in run.curves.get(name, ()) if s.name == split), None)
  if line is not None:
    points = chart.finite(line.points)
    extra = chart.spark(points, color(run, split))
    best = declarations.best(declared, points)
    if split != 'train' and len(points) > 2 and best is not None:
      said = ' '.join(declarations.shown(declared, best[1])).rstrip()
      more = f'best {said} @ {best[0]:,}'
  label = f'{declared.title}, {split}'.replace('_', ' ')
  shown = declarations.shown(declared, value)
  return _card(label, *shown, more, extra, declared.note)


def color(run: Run, split: str) -> int:
  return run.splits.index(split) % chart.COLORS if split in run.splits else 0


def cards(run: Run) -> str:
  """The figures that a reader looks for first: the headline, and one of training."""
  reported = get(run.result, 'metrics') or run.last
  values = {
    # Of members the mean.
    name: value if isinstance(value, (int, float)) else run.last.get(name)
    for name, value in reported.items()
  }
  values = {k: v for k, v in values.items() if v is not None}
  tested = [n for n in values if not n.startswith('train/')]
  lead = [n for n in declarations.headline(run) if n in values] or tested[:LEADING]
  train = [n for n in values if n.startswith('train/')]
  train.sort(key=lambda n: n != 'train/loss')
  lead += train[: 1 if lead else LEADING]
  out = [_metric_card(run, n, values[n]) for n in lead]
  total = get(run.result, 'seconds', 'total')
  total = run.seconds if total is None else total
  if total is not None:
    compile_s = get(run.result, 'seconds', 'compile')
    more = '' if compile_s is None else f'compile {compile_s:.3g} s'
    out.append(_card('wall time', *duration(total), more))
  if rate := run.result.get('examples_per_second'):
    device = get(run.result, 'device', 'kind') or ''
    out.append(
      _card(
        'examples per second',
        chart.compact(float(f'{rate:.4g}')),
        '',
        f'on {device}' if device else '',
      )
    )
  return f'<div class="cards">{"".join(out)}</div>' if out else ''


def curves(run: Run, found: Sequence[marks.Mark] = ()) -> str:
  """A chart of each metric; of two where a name means something else in one split."""
  first = [name.rpartition('/')[2] for name in declarations.headline(run)]
  place = {name: i for i, name in reversed([*enumerate(first)])}
  phases, back = declarations.phases(run), put_back(run)
  phases += [] if back is None else [('put back', float(back))]
  names = sorted(run.curves, key=lambda n: (place.get(n, len(first)), n != 'loss', n))
  drawn = []
  for name in names:
    groups: dict[declarations.Declared, list[chart.Series]] = {}
    for line in run.curves[name]:
      groups.setdefault(declarations.of(run, line.name, name), []).append(line)
    for declared, lines in groups.items():
      splits = {line.name for line in lines}
      own = [(m.word, m.step) for m in found if m.name == name and m.split in splits]
      drawn.append(
        chart.chart(
          declared.title,
          lines,
          [color(run, line.name) for line in lines],
          note=declared.note,
          phases=[*phases, *own],
        )
      )
  drawn = [d for d in drawn if d]
  if not drawn:
    return ''
  body = f'<div class="grid2">{"".join(drawn[:MAX_CHARTS])}</div>'
  if rest := drawn[MAX_CHARTS:]:
    body += (
      f'<details><summary>{len(rest)} more metrics</summary>'
      f'<div class="grid2">{"".join(rest)}</div></details>'
    )
  return section('Curves', body)


def page(run: Run) -> str:
  """The whole of report.html."""
  boxes = ''.join(
    f'<div class="card box">{b}</div>'
    for b in (tables.provenance(run), tables.machine(run))
    if b
  )
  found = marks.marks(run)
  body = (
    header(run)
    + marks.banner(found)
    + cards(run)
    + curves(run, found)
    + pictures(run.figures, run.texts)
    + tables.times(run)
    + tables.configuration(run)
    + section('Reproduce', f'<div class="grid2">{boxes}</div>' if boxes else '')
  )
  return document(
    title(run), body, 'Written by dlx.report from the files of the workdir.'
  )
