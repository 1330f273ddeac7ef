"""What config.json declares of the numbers that a run reports: `metrics`, `headline`.

A file from elsewhere may hold anything: what is no declaration counts as none.
"""

import math
from typing import Any, Mapping, NamedTuple

BETTER = ('higher', 'lower')


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


def of(config: Mapping[str, Any], split: str, name: str) -> Declared:
  """The declaration of "split/name", or of the name in every split.

  Args:
    config: what config.json holds.
    split, name: of the metric.
  """
  all_of = config.get('metrics')
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
    better if better in BETTER else None,
    word('meaning'),
    word('unit'),
    word('group'),
    chance if abs(chance) < 1e15 else None,  # None also for nan.
  )


def headline(config: Mapping[str, Any]) -> list[str]:
  """The "split/name" that lead, the first first."""
  found = config.get('headline')
  return [x for x in found if isinstance(x, str)] if isinstance(found, list) else []
