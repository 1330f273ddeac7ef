"""Curves as inline SVG, drawn without any library. A script may add to them, not must.

Colours are CSS variables --s0, --s1, ... of the page, so that one drawing serves light
and dark.
"""

import html
import itertools
import json
import math
from typing import Any, NamedTuple, Sequence

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 12, 30
GEOMETRY = (WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM)
MAX_POINTS = 400  # Of one drawn line; extremes are kept.
SMOOTH_ABOVE = 60  # A noisy line of more points is drawn thin under its moving average.
COLORS = 6
PARTS = 7  # Colours of the parts of a whole.
LOG_RATIO = 30.0  # A curve that spans more than this is shown on a log scale at first.

Point = tuple[float, float]


class Series(NamedTuple):
  """One line of a chart.

  Attributes:
    name: split.
    points: (step, value), by step. Values that are not finite leave a gap.
    low: as points: the least of all members; empty where there is one member.
    high: as points: the largest of all members.
  """

  name: str
  points: Sequence[Point]
  low: Sequence[Point] = ()
  high: Sequence[Point] = ()


def compact(value: float) -> str:
  """A number of about four significant digits for people."""
  if not math.isfinite(value):
    return 'nan' if math.isnan(value) else '∞' if value > 0 else '−∞'
  size = abs(value)
  if size >= 1e6 or 0 < size < 1e-3:
    mantissa, exponent = f'{value:.2e}'.split('e')
    text = f'{mantissa.rstrip("0").rstrip(".")}e{int(exponent)}'
  elif value == int(value):
    text = f'{int(value):,}'
  else:
    text = f'{value:.4g}' if size < 1e4 else f'{value:,.0f}'
  return text.replace('-', '−')


def short(value: float) -> str:
  """A tick label: 2,000, 20k, 1.5M, 0.25."""
  for limit, unit in ((1e9, 'G'), (1e6, 'M'), (1e4, 'k')):
    if abs(value) >= limit:
      return f'{value / (1e3 if unit == "k" else limit):.4g}{unit}'.replace('-', '−')
  return compact(value)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
  """At most `most` + 1 round numbers in [low, high]: multiples of 1, 2 or 5 * 10^n."""
  span = high - low
  if not span > 0:
    return [low]
  base = 10.0 ** math.floor(math.log10(span / most))
  step = next(base * m for m in (1, 2, 5, 10, 20) if span / (base * m) <= most + 1e-9)
  first = math.ceil(low / step - 1e-9)
  last = math.floor(high / step + 1e-9)
  # Rounded, since 3 * 0.1 is not 0.3.
  digits = max(0, -math.floor(math.log10(step)))
  return [round(i * step, digits) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
  """Powers of ten in [low, high]; with their 2- and 5-folds where those are few."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  inside = lambda values: [
    v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)
  ]
  tens = inside([10.0**e for e in range(first, last + 1)])
  if len(tens) > 6:
    return tens[:: -(-len(tens) // 6)]
  if len(tens) >= 3:
    return tens
  return inside([m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)])


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
  """At most `most` points that keep the first, the last and the extremes between."""
  points = list(points)
  if len(points) <= most:
    return points
  buckets = max(1, (most - 2) // 2)
  inner = points[1:-1]
  kept = [points[0]]
  for b in range(buckets):
    part = inner[b * len(inner) // buckets : (b + 1) * len(inner) // buckets]
    if part:
      kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
  return kept + [points[-1]]


def smooth(points: Sequence[Point], log: bool = False) -> list[Point]:
  """Mean over a window centred at each point, about a 20th of all and never lopsided.

  Geometric where `log`, so that it runs through the middle of a line on a log scale.
  """
  if log:
    points = [(x, y) for x, y in points if y > 0]
  values = [math.log(y) if log else y for _, y in points]
  sums = [0.0, *itertools.accumulate(values)]
  reach = max(1, len(points) // 40)
  out = []
  for i, (x, _) in enumerate(points):
    r = min(reach, i, len(points) - 1 - i)  # Narrower towards both ends: no lag.
    mean = (sums[i + r + 1] - sums[i - r]) / (2 * r + 1)
    out.append((x, math.exp(mean) if log else mean))
  return out


def is_noisy(points: Sequence[Point]) -> bool:
  """Whether a line of many points turns back and forth rather than bends."""
  y = [p[1] for p in finite(points)]
  if len(y) <= SMOOTH_ABOVE:
    return False
  steps = [b - a for a, b in itertools.pairwise(y)]
  turns = sum(a * b < 0 for a, b in itertools.pairwise(steps))
  return turns > len(y) / 10


def finite(points: Sequence[Point]) -> list[Point]:
  """The points whose value can be drawn."""
  return [p for p in points if math.isfinite(p[1])]


class Axes:
  """Maps steps and values to places in the drawing."""

  def __init__(self, series: Sequence[Series], log: bool):
    drawn = [
      p for s in series for p in (*finite(s.points), *finite(s.low), *finite(s.high))
    ]
    xs, ys = [p[0] for p in drawn], [p[1] for p in drawn]
    self.log = log
    self.x0, self.x1 = 0.0, max(*xs, 1.0)  # From 0, so that charts can be compared.
    low, high = min(ys), max(ys)
    if log:
      pad = max(0.02, 0.05 * math.log10(high / low))
      self.y0, self.y1 = low / 10**pad, high * 10**pad
    else:
      pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
      self.y0, self.y1 = low - pad, high + pad
      if low >= 0 > self.y0:
        self.y0 = 0.0  # No room below zero for what is never negative.
      if 0.5 < high <= 1 < self.y1:
        self.y1 = 1 + 0.02 * (1 - self.y0)  # A fraction ends at one.

  def x(self, step: float) -> float:
    return LEFT + (step - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

  def y(self, value: float) -> float:
    f = math.log if self.log else float
    share = (f(value) - f(self.y0)) / (f(self.y1) - f(self.y0))
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

  def path(self, points: Sequence[Point], move: str = 'M') -> str:
    """An SVG path; broken where a value cannot be drawn."""
    out, pen = [], move
    for step, value in points:
      if not math.isfinite(value) or (self.log and value <= 0):
        pen = 'M'
        continue
      out.append(f'{pen}{self.x(step):.1f} {self.y(value):.1f}')
      pen = 'L'
    return ''.join(out)


def _grid(axes: Axes) -> list[str]:
  out = []
  values = log_ticks(axes.y0, axes.y1) if axes.log else ticks(axes.y0, axes.y1, 6)
  for value in values:
    y = axes.y(value)
    out.append(
      f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
      f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" '
      f'text-anchor="end">{short(value)}</text>'
    )
  base = HEIGHT - BOTTOM
  out.append(
    f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>'
    f'<text class="tick" x="{LEFT - 22}" y="{base + 18}" '
    'text-anchor="end">step</text>'
  )
  for step in ticks(axes.x0, axes.x1, 6):
    if step == int(step):
      out.append(
        f'<text class="tick" x="{axes.x(step):.1f}" y="{base + 18}" '
        f'text-anchor="middle">{short(step)}</text>'
      )
  return out


def _line(axes: Axes, series: Series, color: int) -> list[str]:
  out = []
  if series.low and series.high:
    band = axes.path(finite(series.high)) + axes.path(finite(series.low)[::-1], 'L')
    out.append(f'<path class="band" style="fill:var(--s{color})" d="{band}Z"/>')
  stroke = f'style="stroke:var(--s{color})"'
  noisy = is_noisy(series.points)
  css = 'raw' if noisy else 'line'
  out.append(f'<path class="{css}" {stroke} d="{axes.path(thin(series.points))}"/>')
  if noisy:
    smoothed = thin(smooth(finite(series.points), axes.log))
    out.append(f'<path class="line" {stroke} d="{axes.path(smoothed)}"/>')
  elif len(series.points) <= 30:
    for step, value in finite(series.points):
      if value > 0 or not axes.log:
        out.append(
          f'<circle class="dot" style="fill:var(--s{color})" '
          f'cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}" r="3"/>'
        )
  return out


def _phases(axes: Axes, phases: Sequence[tuple[str, float]]) -> list[str]:
  """A line and a name where each phase begins, but for the first, at step 0."""
  return [
    f'<g class="phase"><path d="M{axes.x(start):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    f'<text class="tick" x="{axes.x(start) + 4:.1f}" y="{TOP + 10}">'
    f'{html.escape(name)}</text></g>'
    for name, start in phases
    if 0 < start <= axes.x1
  ]


def svg(
  series: Sequence[Series],
  colors: Sequence[int],
  log: bool,
  hidden: bool,
  phases: Sequence[tuple[str, float]] = (),
) -> str:
  """One drawing of all lines on the same axes."""
  axes = Axes(series, log)
  body = _grid(axes) + _phases(axes, phases)
  for line, color in zip(series, colors):
    body += _line(axes, line, color)
  domain = [axes.x0, axes.x1, axes.y0, axes.y1]
  names = ', '.join(s.name for s in series)
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" data-log="{int(log)}" '
    f'data-domain="{html.escape(json.dumps(domain))}" '
    f'aria-label="{html.escape(names)} against step"{" hidden" if hidden else ""}>'
    f'{"".join(body)}<g class="hover"></g></svg>'
  )


def chart(
  name: str,
  series: Sequence[Series],
  colors: Sequence[int],
  *,
  note: str = '',
  phases: Sequence[tuple[str, float]] = (),
  band: str = 'line: mean of members, band: all of them',
) -> str:
  """A card with one metric of all splits against the step; '' if nothing is finite.

  A metric that is positive everywhere is drawn twice, and a button changes between the
  linear and the log scale; the first shown is the one that suits its span.

  Args:
    name: the heading.
    series: the lines.
    colors: of each line.
    note: what is shown.
    phases: (name, first step).
    band: what the bands are, where there are any.
  """
  values = [p[1] for s in series for p in finite(s.points)]
  if not values:
    return ''
  lows = [p[1] for s in series for p in finite(s.low)]
  can_log = min(values + lows) > 0 and max(values) > min(values)
  log = can_log and max(values) / min(values) > LOG_RATIO
  legend = ''.join(
    f'<li><i style="background:var(--s{c})"></i>{html.escape(s.name)} '
    f'<b>{compact(s.points[-1][1])}</b></li>'
    for s, c in zip(series, colors)
  )
  buttons = ''
  if can_log:
    buttons = (
      '<span class="scale">'
      + ''.join(
        f'<button type="button" data-log="{i}" '
        f'aria-pressed="{str(log == bool(i)).lower()}">{text}</button>'
        for i, text in enumerate(('linear', 'log'))
      )
      + '</span>'
    )
  drawings = svg(series, colors, False, log, phases)
  if can_log:
    drawings += svg(series, colors, True, not log, phases)
  notes = []
  if any(is_noisy(s.points) for s in series):
    notes.append('bold: moving average')
  if any(s.low for s in series):
    notes.append(band)
  if lost := sum(len(s.points) - len(finite(s.points)) for s in series):
    notes.append(f'{lost} value{"s" * (lost > 1)} not finite')
  data: list[dict[str, Any]] = [
    {'name': s.name, 'color': c, 'points': thin(finite(s.points))}
    for s, c in zip(series, colors)
  ]
  told = ' '.join(x for x in (note, '; '.join(notes)) if x)
  told = f'<p class="note">{html.escape(told)}</p>' if told else ''
  return (
    f'<figure class="card chart"><figcaption><h3>{html.escape(name)}</h3>'
    f'<ul class="legend">{legend}</ul>{buttons}</figcaption>'
    f'<div class="plot">{drawings}<div class="tip" hidden></div></div>{told}'
    f'<script type="application/json">{script_json(data)}</script></figure>'
  )


def script_json(value: Any) -> str:
  """JSON that cannot end the script element that it stands in."""
  return (
    json.dumps(value)
    .replace('<', '\\u003c')
    .replace('>', '\\u003e')
    .replace('&', '\\u0026')
  )


def spark(points: Sequence[Point], color: int) -> str:
  """A small line without axes; '' for fewer than three points."""
  points = thin(finite(points), 60)
  if len(points) < 3:
    return ''
  x0, x1 = points[0][0], points[-1][0]
  low, high = min(p[1] for p in points), max(p[1] for p in points)
  span = (high - low) or 1.0
  xy = [
    (100 * (x - x0) / ((x1 - x0) or 1), 24 - 20 * (y - low) / span) for x, y in points
  ]
  d = 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in xy)
  return (
    '<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" '
    f'aria-hidden="true"><path style="stroke:var(--s{color})" d="{d}"/></svg>'
  )


def shares(parts: Sequence[tuple[str, float]]) -> str:
  """A bar that splits seconds by name, with the seconds and shares below it."""
  total = sum(v for _, v in parts) or 1.0
  bar, legend = [], []
  for i, (name, seconds) in enumerate(parts):
    name = html.escape(name)
    color = 'var(--other)' if name == 'other' else f'var(--t{i % PARTS})'
    percent = 100 * seconds / total
    label = f'{percent:.0f} %' if percent >= 7 else ''
    bar.append(
      f'<span style="flex-grow:{seconds:.6g};background:{color}" '
      f'title="{name}: {seconds:.2f} s">{label}</span>'
    )
    legend.append(
      f'<li><i style="background:{color}"></i>{name}'
      f'<b>{seconds:.2f} s</b><em>{percent:.1f} %</em></li>'
    )
  return (
    f'<div class="shares">{"".join(bar)}</div><ul class="parts">{"".join(legend)}</ul>'
  )
