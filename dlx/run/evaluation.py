"""Evaluations: passes over finite data, when they are due, what the state takes in."""

from typing import Callable, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from dlx.data.dataset import Resident
from dlx.experiment import Config, Experiment
from dlx.run import cadence, processes
from dlx.run.at import At
from dlx.run.dispatch import Dispatch, compiled, placed
from dlx.run.feed import Placed, stream
from dlx.run.records.reporter import reported
from dlx.run.rehearsal import Evaluating
from dlx.run.timing import Clock
from dlx.state import TrainState


class Summary(NamedTuple):
  """What one pass found.

  Attributes:
    scalars: device scalars (or one a member) by name, for `after_eval`.
    figures: NumPy values, or trees of them, by name, for metrics and pictures.
  """

  scalars: Mapping[str, jax.Array]
  figures: Mapping[str, np.ndarray]


class Interrupted(Exception):
  """An evaluation was dropped because the run was asked to leave."""


class Evaluator:
  """One Eval, compiled once and run many times."""

  def __init__(self, traced: Evaluating, data: Placed, dispatch: Dispatch):
    """Compiles. `dispatch`: of the run whose states are evaluated."""
    self._placed = data
    count = data.dataset.num_batches(data.loaded.data)
    if count is None:
      raise ValueError('The data of an evaluation must be finite: num_batches is None.')
    self._count = count
    self._zeros, self._summarize = traced.zeros, traced.summarize
    reads = data.arrays
    if not isinstance(data.dataset, Resident):
      reads = placed(data.dataset.shapes[0], data.shardings[0])
    self._accumulate = compiled(
      traced.accumulate, self._zeros(), dispatch.state, reads, np.int32(0)
    )

  def run(self, state: TrainState, interrupted: Callable[[], bool]) -> Summary:
    """One pass. The host waits, so that at most two batches are in flight.

    Raises:
      Interrupted: `interrupted()` held before a batch.
    """
    sums, tickets = self._zeros(), []
    source = None
    if not isinstance(self._placed.dataset, Resident):
      source = stream(self._placed, 0, self._count)
    try:
      for i in range(self._count):
        if interrupted():
          raise Interrupted
        data = self._placed.arrays if source is None else next(source)
        sums, ticket = self._accumulate(sums, state, data, np.int32(i))
        tickets.append(ticket)
        if len(tickets) > 2:
          jax.block_until_ready(tickets.pop(0))
    finally:
      if source is not None:
        source.close()
    found = self._summarize(sums)
    return Summary(found, jax.tree.map(np.array, dict(found)))


class Evaluations:
  """The evaluations of a run; each is compiled at its first pass."""

  def __init__(
    self,
    experiment: Experiment,
    config: Config,
    dispatch: Dispatch,
    data: Mapping[int, Placed],
    clock: Clock,
    traced: Mapping[str, Evaluating],
  ):
    """Compiles nothing. `data`: by the id of the Dataset; `traced`: by name."""
    self._evals, self._config, self._traced = experiment.evals, config, traced
    self._dispatch, self._data, self._clock = dispatch, data, clock
    self._compiled: dict[str, Evaluator] = {}

  def due(self, at: At) -> list[str]:
    """Names of those that this step asks for and the state has not taken in yet."""
    if at.stopped or at.evaluated >= at.step:
      return []
    return cadence.evals_due(at.step, self._evals, self._config)

  def new(self, names: Sequence[str]) -> bool:
    """Whether one of these has never run in this session."""
    return any(name not in self._compiled for name in names)

  def run(
    self,
    names: Sequence[str],
    state: TrainState,
    interrupted: Callable[[], bool] = lambda: False,
  ) -> dict[str, Summary]:
    """One pass of each.

    Raises:
      Interrupted: `interrupted()` held before a batch.
    """
    return {name: self._pass(name, state, interrupted) for name in names}

  def _pass(self, name: str, state: TrainState, interrupted) -> Summary:
    if name not in self._compiled:
      with self._clock.span('compile'):
        e = self._evals[name]
        data = self._data[id(e.data)]
        self._compiled[name] = Evaluator(self._traced[name], data, self._dispatch)
        processes.meet()
    with self._clock.span('eval'):
      return self._compiled[name].run(state, interrupted)

  def fold_in(self, at: At, found: Mapping[str, Summary]) -> At:
    """`evaluated` and `after_eval`, from the summaries of one boundary."""
    evaluated = processes.put(np.int32(at.step), self._dispatch.arrays)
    state = at.state._replace(evaluated=evaluated)
    if self._dispatch.after_eval is not None:
      members = self._dispatch.state.stop.shape
      scalars = {
        f'{name}/{k}': v
        for name, summary in found.items()
        for k, v in summary.scalars.items()
        if reported(v, members)
      }
      state = self._dispatch.after_eval(state, scalars)
    return at._replace(
      state=state, evaluated=at.step, stopped=bool(np.all(jax.device_get(state.stop)))
    )
