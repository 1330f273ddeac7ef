"""Optuna's samplers and pruners, so that a trial is a function of seed, index, history.

A sampler is made anew for each trial, seeded by the number of the search and the index
of the trial: a search that was killed and started again chooses what it would have
chosen. For grid and random search the index alone decides, on any number of workers.
"""

import math
from typing import Any, Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import (
  BaseDistribution,
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.study.search import SEARCHES
from dlx.study.search.space import MOST_POINTS, Dimension, Space, generator

INDEX = 'index'  # User attribute of a trial: its place in the search.
ETA = 3  # Of the trials at a rung 1 in ETA goes on, ETA times as far.
_ORDER = 0x5EED  # Of the stream that puts points of a finite space in order.


def distribution(dimension: Dimension) -> BaseDistribution:
  """What Optuna knows of a field."""
  if dimension.kind == 'int':
    return IntDistribution(int(dimension.low), int(dimension.high))
  if dimension.kind == 'points':
    if dimension.ordered:
      return IntDistribution(0, len(dimension.points) - 1)
    return CategoricalDistribution(dimension.params())
  log = dimension.kind == 'loguniform'
  return FloatDistribution(dimension.low, dimension.high, log=log)


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
  """The choices of the sampler for one trial."""

  def pick(dimension: Dimension) -> Any:
    name, of = dimension.name, distribution(dimension)
    if isinstance(of, CategoricalDistribution):
      return trial.suggest_categorical(name, of.choices)
    if isinstance(of, IntDistribution):
      return trial.suggest_int(name, of.low, of.high)
    assert isinstance(of, FloatDistribution)
    return trial.suggest_float(name, of.low, of.high, log=of.log)

  return space.choose(pick)


class Plan:
  """Which points a search takes.

  Attributes:
    most: trials that there are at most; None: without end.
    batch: trials that are best chosen at once.
  """

  def __init__(self, search: str, space: Space, seed: int):
    """Args: `search`: one of SEARCHES; `seed`: of the search.

    Raises:
      ConfigError: no such search, or a space that it cannot take.
    """
    check_choice('--search', search, SEARCHES)
    if seed < 0:
      raise ConfigError(f'--seed={seed} is not allowed: must be at least 0.')
    self.search, self.space, self.seed = search, space, seed
    self._points: Sequence[Mapping[str, Any]] | None = None
    self.batch = 1 if search == 'halving' else 8
    if search == 'grid':
      self._points = space.grid()
    elif search in ('random', 'halving') and space.finite:
      self._points = self._shuffled()
    elif search == 'cmaes':
      if len(numeric(space)) < 2:
        raise ConfigError(
          '--search=cmaes needs two or more fields of numbers without a condition, as '
          'ranges or lists that rise: give them, or --search=tpe.'
        )
      self.batch = 4 + math.floor(3 * math.log(len(numeric(space))))
    self.most = None if self._points is None else len(self._points)

  def _shuffled(self) -> Sequence[Mapping[str, Any]] | None:
    """All points in random order, so that none comes twice; None: too many."""
    points = []
    for point in self.space.points():
      if len(points) == MOST_POINTS:
        return None
      points.append(point)
    order = generator(self.seed, _ORDER).permutation(len(points))
    return [points[i] for i in order]

  def params(self, index: int) -> Mapping[str, Any] | None:
    """The choices of a trial, where they do not depend on those before it."""
    if self._points is not None:
      return self._points[index]
    if self.search in ('random', 'halving'):
      return self.space.draw(self.seed, index)
    return None

  def sampler(self, index: int) -> optuna.samplers.BaseSampler:
    """For one trial."""
    if (params := self.params(index)) is not None:
      return Given(params)
    number = int(generator(self.seed, index).integers(2**32))
    if self.search == 'cmaes':
      return Cmaes(self.space, self.seed, index)
    return optuna.samplers.TPESampler(seed=number, multivariate=True, group=True)


def numeric(space: Space) -> list[Dimension]:
  """Fields of numbers that are varied in all trials."""
  return [
    d
    for d in space.dimensions.values()
    if not d.of and not isinstance(distribution(d), CategoricalDistribution)
  ]


class Given(optuna.samplers.BaseSampler):
  """Choices that are known."""

  def __init__(self, params: Mapping[str, Any]):
    self._params = params

  def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict:
    return {}

  def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict) -> dict:
    return {}

  def sample_independent(
    self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
  ) -> Any:
    return self._params[param_name]


class Cmaes(optuna.samplers.BaseSampler):
  """CMA-ES (arXiv:1604.00772) over the fields of `numeric`; the others are random.

  Optuna's own sampler keeps its state as a pickle in the storage, which whoever may
  write there could use to run code. This one makes it again from the numbers of the
  trials: whole generations, in the order of their indices.
  """

  def __init__(self, space: Space, seed: int, index: int):
    self._space, self._seed, self._index = space, seed, index

  def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict:
    return {d.name: distribution(d) for d in numeric(self._space)}

  def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict) -> dict:
    import cmaes

    names, d = list(search_space), len(search_space)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    known = study.get_trials(deepcopy=False, states=states)
    known = [t for t in known if INDEX in t.user_attrs and set(names) <= set(t.params)]
    known.sort(key=lambda t: t.user_attrs[INDEX])
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    seed = int(generator(self._seed, self._index).integers(2**31))
    found = cmaes.CMA(
      mean=np.full(d, 0.5), sigma=1 / 6, bounds=np.tile([0.0, 1.0], (d, 1)), seed=seed
    )
    size = found.population_size
    for i in range(0, len(known) - size + 1, size):
      solutions = []
      for t in known[i : i + size]:
        x = [to_unit(search_space[name], t.params[name]) for name in names]
        # Ranks alone count: what diverged is behind all others.
        solutions.append((np.array(x), 1e300 if t.value is None else sign * t.value))
      found.tell(solutions)
    x_D = found.ask()
    return {
      n: from_unit(search_space[n], x) for n, x in zip(names, x_D.tolist(), strict=True)
    }

  def sample_independent(
    self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
  ) -> Any:
    return self._space.draw_field(param_name, self._seed, self._index)


def to_unit(of: BaseDistribution, param: Any) -> float:
  """A choice as a number from 0 to 1; whole numbers are the middle of their share."""
  if isinstance(of, IntDistribution):
    return (param - of.low + 0.5) / (of.high - of.low + 1)
  assert isinstance(of, FloatDistribution)
  scale = math.log if of.log else float
  return (scale(param) - scale(of.low)) / (scale(of.high) - scale(of.low))


def from_unit(of: BaseDistribution, x: float) -> Any:
  """The choice that a number from 0 to 1 stands for."""
  if isinstance(of, IntDistribution):
    return min(of.high, of.low + math.floor(x * (of.high - of.low + 1)))
  assert isinstance(of, FloatDistribution)
  if of.log:
    found = math.exp(math.log(of.low) + x * (math.log(of.high) - math.log(of.low)))
  else:
    found = of.low + x * (of.high - of.low)
  return min(max(found, of.low), of.high)


class Halving(optuna.pruners.BasePruner):
  """Successive halving without waiting (ASHA, arXiv:1810.05934, algorithm 2).

  At a rung a trial goes on if it is among the best third of those that have come there,
  the best of fewer than three. It writes nothing, so that a trial that is asked again
  after a restart has the same answer; Optuna's own notes what it decided.
  """

  def __init__(self, first: int):
    """`first`: step of the first rung; the others are ETA times as far."""
    self.first = first

  def rungs(self, last: int) -> list[int]:
    """Steps of the rungs below the last step."""
    found, step = [], self.first
    while step < last:
      found.append(step)
      step *= ETA
    return found

  def prune(self, study: Any, trial: FrozenTrial) -> bool:
    step = trial.last_step
    if step is None:
      return False
    mine = trial.intermediate_values[step]
    if math.isnan(mine):
      return True
    others = [
      t.intermediate_values[step]
      for t in study.get_trials(deepcopy=False)
      if t.number != trial.number
      and t.state != TrialState.FAIL
      and step in t.intermediate_values
    ]
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    better = sum(sign * other < sign * mine for other in others)
    return better >= max(1, (len(others) + 1) // ETA)
