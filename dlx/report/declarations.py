"""What a run declared of the numbers that it reports; nothing is told from names.

They stand in config.json under `metrics`, `headline` and `phases`. A file from
elsewhere may hold anything: what is no declaration counts as none.
"""

import math

from dlx.report import chart
from dlx.report.markup import Run, get
from dlx.run.records import declared
from dlx.run.records.declared import Declared

CHOOSE = {'higher': max, 'lower': min}


def of(run: Run, split: str, name: str) -> Declared:
  """The declaration of "split/name", or of the name in every split."""
  return declared.of(run.config, split, name)


def headline(run: Run) -> list[str]:
  """The "split/name" that lead, the first first."""
  return declared.headline(run.config)


def phases(run: Run) -> list[tuple[str, float]]:
  """(name, first step) of the parts of a run that does one thing after the other."""
  found = get(run.config, 'phases')
  out = []
  for phase in found if isinstance(found, list) else ():
    if isinstance(phase, list) and len(phase) == 2 and isinstance(phase[0], str):
      # A bool is no step; an integer may be too large for a float.
      if type(phase[1]) in (int, float) and 0 <= phase[1] < 1e15:
        out.append((phase[0], float(phase[1])))
  return out


def best(
  of_metric: Declared, points: list[tuple[float, float]]
) -> tuple[float, float] | None:
  """The point of the best value, the first of equals.

  None where neither direction is better, or all values are the same.
  """
  choose = CHOOSE.get(of_metric.better or '')
  varied = len({value for _, value in points}) > 1
  return choose(points, key=lambda p: p[1]) if choose and varied else None


def shown(of_metric: Declared, value: float) -> tuple[str, str]:
  """A number for people, and its unit; shares in percent."""
  if of_metric.unit == '%' and math.isfinite(value):
    return f'{100 * value:.2f}'.replace('-', '−'), '%'
  return chart.compact(value), of_metric.unit
