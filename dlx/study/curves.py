"""Curves of a run, step by step, and when one of them reaches a level."""

import math
from typing import Any, Iterable, Mapping, Sequence

# (step, value), by step.
Curve = Sequence[tuple[float, float]]


def of_lines(lines: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
  """Curves of one run by "split/name", of the numbers in the lines of metrics.jsonl.

  What is no number, as the values of several members, is left out; of equal steps the
  last counts.

  Args:
    lines: mappings with `step`, `split` and `metrics`, a number by name.
  """
  found: dict[str, dict[float, float]] = {}
  for line in lines:
    for name, value in line['metrics'].items():
      if type(value) in (int, float):
        found.setdefault(f'{line["split"]}/{name}', {})[line['step']] = float(value)
  return {name: sorted(points.items()) for name, points in found.items()}


def steps_to(curve: Curve, level: float, *, better: str = 'higher') -> float:
  """The first step of a curve at which it has reached a level; inf: it never does.

  Nothing is known between two steps of the curve: the true one lies up to their
  distance earlier.

  Args:
    curve: (step, value), by step; nan reaches nothing.
    level: reached by what is equal, too.
    better: 'higher', or 'lower' where a value shall fall to the level.

  Raises:
    ValueError: another word.
  """
  if better not in ('higher', 'lower'):
    raise ValueError(f'better={better!r} is not allowed: must be higher or lower.')
  for step, value in curve:
    if value >= level if better == 'higher' else value <= level:
      return float(step)
  return math.inf
