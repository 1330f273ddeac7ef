"""Fields of a Config that are varied, and the points that they span."""

import itertools
import math
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence
import zlib

import numpy as np

from dlx import config_json
from dlx.config_text import value_to_text
from dlx.errors import ConfigError

PREFIX = 'config.'
MOST_POINTS = 100_000  # Of a grid that is listed.

# What a sampler chose: by field the number of a point, its text, or a number.
Params = Mapping[str, Any]


class Dimension(NamedTuple):
  """One field that is varied.

  Attributes:
    name: of the field, with dots in a group.
    kind: 'points', 'int', 'uniform' or 'loguniform'.
    points: values of 'points'.
    low, high: ends of the others; both may occur, those of floats up to rounding.
    of: field that it depends on; '': none.
    where: values of that field where this one is varied.
    text: range and condition, as given.
  """

  name: str
  kind: str
  points: tuple[Any, ...] = ()
  low: float = 0.0
  high: float = 0.0
  of: str = ''
  where: tuple[Any, ...] = ()
  text: str = ''

  @property
  def ordered(self) -> bool:
    """Whether points are numbers that rise, so that a sampler may go by neighbours."""
    numbers = all(type(x) in (int, float) for x in self.points)
    return numbers and all(a < b for a, b in itertools.pairwise(self.points))

  @property
  def finite(self) -> bool:
    return self.kind in ('points', 'int')

  def params(self) -> list[Any]:
    """All that a sampler may choose, of a finite one."""
    if self.kind == 'int':
      return list(range(int(self.low), int(self.high) + 1))
    if self.ordered:
      return list(range(len(self.points)))
    return [value_to_text(x) for x in self.points]

  def value(self, param: Any) -> Any:
    """The value of the field that a sampler's choice stands for."""
    if self.kind != 'points':
      return int(param) if self.kind == 'int' else float(param)
    return self.points[int(param) if self.ordered else self.params().index(param)]

  def draw(self, rng: np.random.Generator) -> Any:
    """A choice at random."""
    if self.kind == 'int':
      return int(rng.integers(int(self.low), int(self.high) + 1))
    if self.kind == 'points':
      return self.params()[rng.integers(len(self.points))]
    if self.kind == 'uniform':
      return float(rng.uniform(self.low, self.high))
    low, high = math.log(self.low), math.log(self.high)
    return float(np.clip(np.exp(rng.uniform(low, high)), self.low, self.high))


class Space(NamedTuple):
  """The fields that are varied; one that depends on another comes after it.

  Attributes:
    base: Config whose other fields all runs have.
    dimensions: by name.
  """

  base: Any
  dimensions: Mapping[str, Dimension]

  def choose(self, pick: Callable[[Dimension], Any]) -> dict[str, Any]:
    """The choices for the fields that are varied, given those before them."""
    params: dict[str, Any] = {}
    for dimension in self.dimensions.values():
      if self._active(dimension, params):
        params[dimension.name] = pick(dimension)
    return params

  def _active(self, dimension: Dimension, params: Params) -> bool:
    if not dimension.of:
      return True
    parent = self.dimensions.get(dimension.of)
    if parent is None:
      return at(self.base, dimension.of) in dimension.where
    if parent.name not in params:  # Not varied itself: as it stands.
      return at(self.base, parent.name) in dimension.where
    return parent.value(params[parent.name]) in dimension.where

  def draw(self, *seed: int) -> dict[str, Any]:
    """Choices at random."""
    return self.choose(lambda dimension: self.draw_field(dimension.name, *seed))

  def draw_field(self, name: str, *seed: int) -> Any:
    """A choice at random, which depends on the seed and the name of the field alone."""
    rng = generator(*seed, zlib.crc32(name.encode()))
    return self.dimensions[name].draw(rng)

  def values(self, params: Params) -> dict[str, Any]:
    """The value of each field that is varied there."""
    return {name: self.dimensions[name].value(p) for name, p in params.items()}

  def config(self, params: Params, **fields: Any) -> Any:
    """The Config of these choices.

    Args:
      params: choices.
      fields: others of the top level, seed above all.

    Raises:
      ConfigError: it refuses them.
    """
    return config_json.config_of_fields(
      type(self.base), _nested(self.values(params)) | fields, self.base
    )

  @property
  def finite(self) -> bool:
    return all(dimension.finite for dimension in self.dimensions.values())

  def points(self) -> Iterator[dict[str, Any]]:
    """The points of a finite space, each once; the last field changes fastest."""

    def below(names: Sequence[str], params: dict[str, Any]) -> Iterator[dict[str, Any]]:
      if not names:
        yield params
        return
      dimension = self.dimensions[names[0]]
      choices = dimension.params() if self._active(dimension, params) else ()
      for choice in choices:
        yield from below(names[1:], {**params, dimension.name: choice})
      if not choices:
        yield from below(names[1:], params)

    return below(list(self.dimensions), {})

  def grid(self) -> list[dict[str, Any]]:
    """All points.

    Raises:
      ConfigError: a field without a number of values, or too many points.
    """
    for dimension in self.dimensions.values():
      if not dimension.finite:
        raise ConfigError(
          f'--search=grid is not allowed with --sweep={PREFIX}{dimension.name}='
          f'{dimension.kind}(...), which has no end of values: give lin(A,B,N) or '
          'log(A,B,N), or --search=random.'
        )
    found = list(itertools.islice(self.points(), MOST_POINTS + 1))
    if len(found) > MOST_POINTS:
      raise ConfigError(
        f'--search=grid: more than {MOST_POINTS} points are not allowed: give fewer '
        'values, or --search=random.'
      )
    return found


def generator(*seed: int) -> np.random.Generator:
  """Random numbers that depend on whole numbers from 0 on, and on nothing else."""
  return np.random.default_rng(np.random.SeedSequence(seed))


def at(config: Any, name: str) -> Any:
  """The value of a field, by dotted name in a group."""
  for part in name.split('.'):
    config = getattr(config, part)
  return config


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values by dotted name as nested mappings."""
  out: dict[str, Any] = {}
  for name, value in values.items():
    *groups, last = name.split('.')
    place = out
    for group in groups:
      place = place.setdefault(group, {})
    place[last] = value
  return out
