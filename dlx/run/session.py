"""One session of a run: what lives while the loop turns."""

import contextlib
from typing import Any, Mapping, NamedTuple

from absl import logging
import jax
from jax.sharding import Mesh
import numpy as np

from dlx.data.dataset import Dataset, Loaded, Resident
from dlx.experiment import Config, Experiment
from dlx.run import cadence, evaluation, nonfinite, sharding
from dlx.run.checkpoint.checkpointer import Checkpointer, NotFinite
from dlx.run.diagnosis import diagnose
from dlx.run.dispatch import Dispatch
from dlx.run.drawing import draw_figures
from dlx.run.in_flight import InFlight
from dlx.run.processes import meet, put
from dlx.run.records.reporter import Reporter, reported
from dlx.run.records.result import write_result
from dlx.run.records.workdir import Workdir
from dlx.run.stop_request import StopRequest
from dlx.run.timing import Clock, Trace
from dlx.state import TrainState, ratios, zeros_like


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    status: 'finished' (result.json is written), 'stopped' (at `stop_at`) or
      'interrupted' (by a signal; the state is saved).
    step: steps done.
    metrics: last figures by "split/name".
    state: on the devices; None where the run had been finished before.
  """

  status: str
  step: int
  metrics: Mapping[str, Any]
  state: TrainState | None


class _Logged(NamedTuple):
  """A closed log window whose sums are still on the device."""

  step: int
  sums: Any
  seconds: Mapping[str, float]
  rate: float


class Run:
  """Everything that outlives one dispatch; a context manager. See loop.py's `fit`."""

  def __init__(
    self,
    experiment: Experiment,
    config: Config,
    folder: Workdir,
    mesh: Mesh,
    dispatch: Dispatch,
    loaded: Mapping[int, tuple[Dataset, Loaded]],
    clock: Clock,
    terminal: bool | None,
  ):
    self.experiment, self.config, self.folder = experiment, config, folder
    self.mesh, self.dispatch, self.clock = mesh, dispatch, clock
    self.terminal = terminal
    self.checkpoints = Checkpointer(
      folder.path / 'checkpoints',
      keep=config.keep_checkpoints,
      best_metric=config.best_metric,
      best_mode=config.best_mode,
      note=logging.warning,
    )
    with clock.span('input'):
      self.placed = {
        key: evaluation.place(dataset, data, mesh)
        for key, (dataset, data) in loaded.items()
      }
    self.train = self.placed[id(experiment.train_data)]
    self.programs: dict[int, Any] = {}  # By shape id.
    self.zero_window = jax.jit(
      lambda: zeros_like(dispatch.window), out_shardings=dispatch.arrays
    )
    self.evaluators: dict[str, evaluation.Evaluator] = {}
    self.shardings = jax.tree.map(lambda x: x.sharding, dispatch.state)
    self.after_eval = None
    if experiment.after_eval is not None:
      after_eval = sharding.traced_under(mesh, experiment.after_eval)
      self.after_eval = jax.jit(
        after_eval, donate_argnums=0, out_shardings=self.shardings
      )
    self.members = dispatch.state.stop.shape  # (n,), or () where there are none.
    self.rows = next(iter(experiment.train_data.shapes[0].values())).shape[0]
    self.in_flight = InFlight(
      config.steps_per_dispatch, dispatch.arrays, self._not_finite
    )
    self.pending: _Logged | None = None
    self.saved: tuple[int, int] | None = None  # (step, evaluated) of the last save.
    self.stop_request = StopRequest()
    self.reporter: Reporter = None  # type: ignore[assignment]
    self.stream = None
    self.trace = Trace(None, folder.path)

  def __enter__(self):
    self.stop_request.__enter__()
    return self

  def __exit__(self, *exc):
    with contextlib.ExitStack() as last_first:  # What fails keeps none of the others.
      last_first.callback(self.stop_request.__exit__, *exc)
      # A failed process must not wait for the others: they may wait for it elsewhere.
      if exc[0] is None or jax.process_count() == 1:
        last_first.callback(self.checkpoints.close)
      if self.reporter is not None:
        last_first.callback(self.reporter.close)
      last_first.callback(self.trace.stop)
      last_first.callback(self._end_stream)

  def go(self, stop_at: int | None, trace_steps: tuple[int, int] | None) -> Outcome:
    """The loop itself."""
    config, evals = self.config, self.experiment.evals
    self._begin()
    trace = self.trace = Trace(trace_steps, self.folder.path)
    end = min(config.num_steps, stop_at or config.num_steps)
    self._evaluate_if_due()
    self._save_if_due()
    while self.step < end and not self.stopped:
      if self.stop_request.agreed():
        return self._leave('interrupted')
      trace.update(self.step, self._drain)
      most, cuts = self.in_flight.pace.steps, trace.cuts
      self._advance(cadence.next_boundary(self.step, most, end, config, evals, cuts))
      self._log_if_due()
      self._evaluate_if_due()
      self._save_if_due()
      if self.step < config.num_steps and cadence.due(
        self.step, config.figure_every_steps, config.num_steps
      ):
        self._figures()
    trace.stop(self._drain)
    if self.stopped or (self.step == config.num_steps and not self._evals_missing()):
      return self._finish()
    return self._leave('interrupted' if self.stop_request.here else 'stopped')

  # The parts, in the order of a boundary.

  def _begin(self):
    """State and window: restored, or fresh; lines past them are dropped."""
    with self.clock.span('other'):
      restored = self.checkpoints.restore(self.dispatch.state, self.dispatch.window)
    if restored is None:
      self.state, self.window = self.fresh(), self.zero_window()
      self.step, self.evaluated = 0, -1
    else:
      self.state, self.window = restored.state, restored.window
      self.step, self.evaluated = restored.step, int(self.state.evaluated)
      self.saved = self.step, self.evaluated
    self.stopped = bool(np.all(self.state.stop))
    self.reporter = Reporter(
      self.folder.path,
      self.config.num_steps,
      members=self.members,
      evaluated=self.evaluated,
      step=None if restored is None else self.step,
      terminal=self.terminal,
    )
    self.clock.add(self.reporter.seconds)
    if changed := self.folder.changed():
      self.reporter.note(f'Other than at the start: {changed}. Bits may differ.')
    for split, placed in self._data().items():
      self.reporter.data(split, placed.loaded.origin)
    self.rate_mark = self.step, self.clock.seconds()['train']

  def fresh(self) -> TrainState:
    with self.clock.span('compile'):
      state = self.dispatch.init(jax.random.key(self.config.seed))
    if self.experiment.warm_start is not None:
      with self.folder.starting() as record:
        state, record['warm_start'] = self.experiment.warm_start(state)
      state = put(state, self.shardings)
      # Buffers of its own: one that stands twice in a donated state is an error.
      state = nonfinite.copy(state)
    return state

  def _advance(self, to: int):
    """Enqueues the dispatch to step `to`; at most two are in flight afterwards."""
    with self.clock.span('train'):
      self.in_flight.make_room()
      data, n = self._input(to)
      run = self.program(self.experiment.train_data.shape_id(self.step), data)
      steps = self.in_flight.count(n)
      self.state, self.window, bad = run(self.state, self.window, data, steps)
      self.in_flight.add(bad, n)
      self.step += n
      self._write_pending()

  def _input(self, to: int) -> tuple[Any, int]:
    """What the dispatch reads, and the number of its steps."""
    data = self.experiment.train_data
    if isinstance(data, Resident):
      last = self.step + 1
      while last < to and data.shape_id(last) == data.shape_id(self.step):
        last += 1
      return self.train.arrays, last - self.step
    with self.clock.span('input'):
      if self.stream is None:
        self.stream = evaluation.stream(
          self.train, self.mesh, self.step, self.config.num_steps
        )
      return next(self.stream), 1

  def program(self, shape_id: int, data):
    """The dispatch for batches of this shape, compiled at its first use."""
    if shape_id not in self.programs:
      with self.clock.span('compile'):
        run = self.dispatch.run[shape_id]
        lowered = run.lower(self.state, self.window, data, self.in_flight.count(1))
        self.programs[shape_id] = lowered.compile()
        meet()
      self.in_flight.pace.idle()
    return self.programs[shape_id]

  def _not_finite(self, step: int):
    self._fail(step + 1, f'The metrics of step {step} are not finite.')

  def _drain(self):
    with self.clock.span('train'):
      self.in_flight.drain()

  def _log_if_due(self):
    config = self.config
    if not cadence.due(self.step, config.log_every_steps, config.num_steps):
      return
    self._write_pending()
    seconds = self.clock.seconds()
    step, train = self.rate_mark
    rate = (self.step - step) * self.rows / max(seconds['train'] - train, 1e-9)
    self.rate_mark = self.step, seconds['train']
    self.pending = _Logged(self.step, self.window, seconds, rate)
    self.window = self.zero_window()

  def _write_pending(self):
    """Fetches the sums of the last closed window: one dispatch late, so no waiting."""
    if self.pending is None:
      return
    logged, self.pending = self.pending, None
    values = {k: np.array(v) for k, v in ratios(jax.device_get(logged.sums)).items()}
    self.reporter.write(logged.step, 'train', values, logged.seconds, logged.rate)

  def _evals_missing(self) -> list[str]:
    """Evaluations that are due at this step and not folded in yet."""
    if self.evaluated >= self.step:
      return []
    return cadence.evals_due(self.step, self.experiment.evals, self.config)

  def _evaluate_if_due(self):
    names = self._evals_missing()
    if not names or self.stopped:
      return
    self._drain()
    self._write_pending()
    try:
      asked = lambda: self.stop_request.here
      found = {name: self.evaluate(name, self.state, asked) for name in names}
    except evaluation.Interrupted:
      return  # The loop leaves next; the state is saved as it was before.
    self.evaluated = self.step
    for name in names:
      self.reporter.write(self.step, name, found[name].figures, self.clock.seconds())
    self.state = self.fold_in(self.state, self.step, found)
    self.stopped = bool(np.all(self.state.stop))

  def evaluate(
    self, name: str, state: TrainState, interrupted=lambda: False
  ) -> evaluation.Summary:
    e = self.experiment.evals[name]
    if name not in self.evaluators:
      with self.clock.span('compile'):
        self.evaluators[name] = evaluation.Evaluator(
          e, self.placed[id(e.data)], self.mesh, self.dispatch.state
        )
        meet()
    with self.clock.span('eval'):
      return self.evaluators[name].run(state, interrupted)

  def fold_in(
    self, state: TrainState, step: int, found: Mapping[str, evaluation.Summary]
  ) -> TrainState:
    """`evaluated` and `after_eval`, from the summaries of one boundary."""
    evaluated = put(np.int32(step), sharding.replicated(self.mesh))
    state = state._replace(evaluated=evaluated)
    if self.after_eval is None:
      return state
    scalars = {
      f'{name}/{k}': v
      for name, summary in found.items()
      for k, v in summary.scalars.items()
      if reported(v, self.members)
    }
    return self.after_eval(state, scalars)

  def _save_if_due(self):
    due = cadence.save_due(self.step, self.experiment.evals, self.config)
    if due or (self.stopped and self.step):
      self._save()

  def _save(self):
    """Lines first, so that no figure of a saved step can be lost; then the state."""
    if self.saved == (self.step, self.evaluated):
      return
    self._drain()
    self._write_pending()
    with self.clock.span('save'):
      self.reporter.flush()
      evaluated = self.evaluated == self.step
      splits = cadence.evals_due(self.step, self.experiment.evals, self.config)
      figures = {
        name: value
        for name, value in self.reporter.latest.items()
        if evaluated and name.partition('/')[0] in splits
      }
      try:
        self.checkpoints.save(self.step, self.state, self.window, figures)
      except NotFinite as error:
        self._fail(self.step, f'{error}.')
    self.saved = self.step, self.evaluated

  def _leave(self, status: str) -> Outcome:
    if self.step:
      self._save()
    self.checkpoints.wait()
    return Outcome(status, self.step, dict(self.reporter.latest), self.state)

  def _finish(self) -> Outcome:
    """Figures and result.json, last: without it the run counts as unfinished."""
    self._save()
    metrics = dict(self.reporter.latest)
    if self.stopped:  # after_eval may have put other parameters back: evaluate those.
      for name in self.experiment.evals:
        found = self.reporter.scalars(self.evaluate(name, self.state).figures)
        metrics |= {f'{name}/{k}': v for k, v in found.items()}
    self._figures()
    with self.clock.span('save'):
      self.checkpoints.wait()
    if self.reporter.events is not None:
      self.reporter.events.hparams(
        self.step,
        self.folder.record['config'],
        {k: float(np.mean(v)) for k, v in metrics.items()},
      )
    write_result(
      self.folder.path,
      self.folder.record,
      state=self.state,
      step=self.step,
      rows=self.rows,
      metrics=metrics,
      seconds=self.clock.seconds(),
      stopped_early=self.stopped,
      origins={name: p.loaded.origin for name, p in self._data().items()},
    )
    return Outcome('finished', self.step, metrics, self.state)

  def _data(self) -> dict[str, evaluation.Placed]:
    return {
      'train': self.train,
      **{name: self.placed[id(e.data)] for name, e in self.experiment.evals.items()},
    }

  def _figures(self):
    """Draws the figures of this step; needs no training step to have run before."""
    self._drain()
    with self.clock.span('figures'):
      draw_figures(
        self.experiment.figures,
        self.state,
        self.step,
        folder=self.folder.path,
        events=self.reporter.events,
        batch=lambda data: evaluation.one_batch(self.placed[id(data)], self.mesh, 0),
        summary=lambda name: self.evaluate(name, self.state).figures,
      )

  def _end_stream(self):
    if self.stream is not None:
      self.stream.close()
      self.stream = None

  def _fail(self, end: int, symptom: str):
    """Raises NonFiniteError, after a replay that finds the tensor."""
    self.in_flight.forget()
    self._end_stream()
    raise diagnose(self, end, symptom)
