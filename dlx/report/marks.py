"""Marks of a run that went wrong: gradients that explode, a return to chance.

A number whose chance was declared is at chance within TOLERANCE of the way from chance
to the best that can be, 0 or 100 %. Of the training loss and the headline without a
declared chance the first logged value stands for it: they are back where they began
when they keep less than RETAINED of their largest gain.
"""

import bisect
import itertools
from typing import NamedTuple, Sequence

from dlx.report import chart, declarations
from dlx.report.markup import Run, text

GROWTH = 100.0  # A gradient norm this many times the median of those before.
TOLERANCE = 0.02
RETAINED = 0.1


class Mark(NamedTuple):
  """What is to be looked at.

  Attributes:
    split, name: of the metric.
    step: from which on; also that of a line in its chart.
    word: beside that line.
    sentence: for the list at the top of the page.
  """

  split: str
  name: str
  step: float
  word: str
  sentence: str


def marks(run: Run) -> list[Mark]:
  """All marks of a run, by step."""
  leading = {'train/loss', *declarations.headline(run)}
  found = []
  for name, lines in run.curves.items():
    for line in lines:
      declared = declarations.of(run, line.name, name)
      points = chart.finite(line.points)
      label = f'{declared.title}, {line.name}'
      if declared.group == 'gradient norm':
        marked = growth(points)
      elif declared.chance is not None or f'{line.name}/{name}' in leading:
        marked = fall(declared, points)
      else:
        marked = None
      if marked is not None:
        step, word, sentence = marked
        found.append(Mark(line.name, name, step, word, f'{label}: {sentence}'))
  return sorted(found, key=lambda mark: mark.step)


def growth(points: Sequence[chart.Point]) -> tuple[float, str, str] | None:
  """The first point that is GROWTH times the median of those before: step and words."""
  before: list[float] = []  # Kept in order: a run may have logged 100,000 norms.
  for step, value in points:
    n = len(before)
    median = (before[(n - 1) // 2] + before[n // 2]) / 2 if before else 0.0
    if value >= GROWTH * median > 0:
      times = chart.compact(float(f'{value / median:.2g}'))
      return step, f'× {times}', f'{times} times the median before, at step {step:,}.'
    bisect.insort(before, value)
  return None


def fall(
  declared: declarations.Declared, points: Sequence[chart.Point]
) -> tuple[float, str, str] | None:
  """From where to the end a number is at chance, or back where it began."""
  if declared.better is None or len(points) < 3:
    return None
  known = declared.chance is not None
  start = declared.chance if declared.chance is not None else points[0][1]
  sign = 1 if declared.better == 'higher' else -1
  gains = [sign * (y - start) for _, y in points]
  bound = 1.0 if declared.better == 'higher' else 0.0
  bounded = known and (bound == 0 or declared.unit == '%')
  room = abs(bound - start) if bounded else max(gains)
  least = (TOLERANCE if known else RETAINED) * room
  last = len([*itertools.takewhile(lambda gain: gain <= least, reversed(gains))])
  if room <= 0 or last < (1 if known else 2) or (last == len(points) and not known):
    return None
  step = points[-last][0]
  value = ' '.join(declarations.shown(declared, start)).rstrip()
  if not known:
    return step, 'as at first', f'back where it began, {value}, from step {step:,} on.'
  if last == len(points):
    return step, 'chance', f'has not left chance, {value}.'
  return step, 'chance', f'fell back to chance, {value}, at step {step:,}.'


def banner(found: Sequence[Mark]) -> str:
  """The marks as a list; '' without any."""
  if not found:
    return ''
  rows = ''.join(f'<li>{text(mark.sentence)}</li>' for mark in found)
  return (
    f'<div class="banner">Look at this first:<ul>{rows}</ul>A lower learning rate, a '
    'warm-up or --config.clip_norm often helps.</div>'
  )
