"""What a run declared of the numbers that it reports; nothing is told from names.

They stand in config.json under `metrics`, `headline` and `phases`. A file from
elsewhere may hold anything: what is no declaration counts as none.
"""

import math
from typing import Mapping, NamedTuple

from dlx.report import chart
from dlx.report.markup import Run, get

CHOOSE = {'higher': max, 'lower': min}


class Declared(NamedTuple):
  """A number as declared; see `dlx.state.Metric`. All empty where nothing is known."""

  title: str
  better: str | None = None
  meaning: str = ''
  unit: str = ''
  group: str = ''
  chance: float | None = None

  @property
  def note(self) -> str:
    """Meaning, unit and direction in one line."""
    more = [f'in {self.unit}'] if self.unit else []
    more += [f'{self.better} is better'] if self.better else []
    said = '; '.join(more)
    said = f'{said[:1].upper()}{said[1:]}.' if said else ''
    return f'{self.meaning} {said}'.strip()


def of(run: Run, split: str, name: str) -> Declared:
  """The declaration of "split/name", or of the name in every split."""
  all_of = get(run.config, 'metrics')
  all_of = all_of if isinstance(all_of, Mapping) else {}
  found = all_of.get(f'{split}/{name}', all_of.get(name))
  if not isinstance(found, Mapping):
    return Declared(name)
  word = lambda key: found[key] if isinstance(found.get(key), str) else ''
  better, chance = word('better'), found.get('chance')
  if isinstance(chance, bool) or not isinstance(chance, int | float):
    chance = math.nan
  return Declared(
    word('title') or name,
    better if better in CHOOSE else None,
    word('meaning'),
    word('unit'),
    word('group'),
    chance if abs(chance) < 1e15 else None,  # None also for nan.
  )


def headline(run: Run) -> list[str]:
  """The "split/name" that lead, the first first."""
  found = get(run.config, 'headline')
  return [x for x in found if isinstance(x, str)] if isinstance(found, list) else []


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
  declared: Declared, points: list[tuple[float, float]]
) -> tuple[float, float] | None:
  """The point of the best value, the first of equals.

  None where neither direction is better, or all values are the same.
  """
  choose = CHOOSE.get(declared.better or '')
  varied = len({value for _, value in points}) > 1
  return choose(points, key=lambda p: p[1]) if choose and varied else None


def shown(declared: Declared, value: float) -> tuple[str, str]:
  """A number for people, and its unit; shares in percent."""
  if declared.unit == '%' and math.isfinite(value):
    return f'{100 * value:.2f}'.replace('-', '−'), '%'
  return chart.compact(value), declared.unit
