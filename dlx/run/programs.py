"""The programs that train: compiled, given their data, sent, waited for."""

from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp

from dlx.data.batches.prefetch import Ahead
from dlx.data.dataset import Resident
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run import calls, processes
from dlx.run.at import At
from dlx.run.dispatch import Dispatch, compiled, flops_of_step
from dlx.run.feed import Placed, one_batch, stream
from dlx.run.in_flight import InFlight
from dlx.run.initial import Source
from dlx.run.records.workdir import Workdir
from dlx.run.timing import Clock
from dlx.state import TrainState, is_key


class Programs:
  """Compiles each dispatch at its first use, and sends it; a context manager.

  Attributes:
    mesh: of devices.
    rows: of a global batch.
    sent: the step to which the last dispatch goes.
    flops_per_step: operations of a step on all devices, of those that were compiled the
      most; None: not known.
    calling: is told of each program the shape of its batches and what it calls, see
      calls.py; whoever keeps the records sets it.
  """

  def __init__(
    self,
    experiment: Experiment,
    config: Config,
    dispatch: Dispatch,
    data: Placed,
    clock: Clock,
  ):
    """Compiles nothing. `data`: that of training."""
    self._experiment, self._config = experiment, config
    self._dispatch, self._data, self._clock = dispatch, data, clock
    self._compiled: dict[int, Callable] = {}  # By shape id.
    self._in_flight = InFlight(config.steps_per_dispatch, dispatch.arrays)
    self._stream: Ahead | None = None  # From the step of its first use on.
    self.sent = 0
    self.flops_per_step: int | None = None
    self.calling: Callable[[int, Mapping[str, int]], None] = lambda *_: None
    self.mesh = dispatch.mesh
    train = experiment.train_data
    fields = [*train.shapes[0].values()]  # None: it reads no data.
    self.rows = train.rows or (fields[0].shape[0] if fields else config.batch_size)

  def __enter__(self) -> 'Programs':
    return self

  def __exit__(self, *exc):
    self.abandon()

  @property
  def most_steps(self) -> int:
    """Steps of the next dispatch, where nothing cuts it."""
    return self._in_flight.pace.steps

  def fresh(self, folder: Workdir, source: Source | None = None) -> At:
    """A run before step 0; what was read of other runs is added to config.json.

    Args:
      source: what --init_from asks for; the experiment's own warm_start comes after it.
    """
    with self._clock.span('compile'):
      state = self._dispatch.init(jax.random.key(self._config.seed))
    reads = [('warm_start', self._experiment.warm_start)]
    if source is not None:
      reads.insert(0, ('init_from', source.take))
    reads = [(name, take) for name, take in reads if take is not None]
    for name, take in reads:
      # A fit on the host is training, too.
      with folder.starting() as record, self._clock.span('train'):
        state, record[name] = take(state)
        if step := int(state.step):
          raise ConfigError(
            f'warm_start gives a state of step {step}: must be 0, as the run begins '
            'there; take the other parts of that state alone.'
          )
    if reads:
      shardings = jax.tree.map(lambda x: x.sharding, self._dispatch.state)
      # Buffers of its own: one that stands twice in a donated state is an error.
      state = copy(processes.put(state, shardings))
    return At(state, self.zeros())

  def zeros(self) -> Any:
    """An empty log window."""
    return self._dispatch.zeros()

  def advance(self, at: At, to: int) -> At:
    """Sends the dispatch to step `to`; at most two are in flight afterwards.

    It ends earlier where the batches change shape, and after one step where data is
    streamed.

    Raises:
      NotFinite: a dispatch that was sent before.
    """
    with self._clock.span('train'):
      self._in_flight.make_room()
      data, n = self._input(at.step, to)
      program = self._program(at, data)
      steps, self.sent = self._in_flight.count(n), at.step + n
      with jax.profiler.StepTraceAnnotation('train', step_num=at.step):
        state, window, bad = program(at.state, at.window, data, steps)
      self._in_flight.add(bad, n)
    return at._replace(state=state, window=window, step=at.step + n)

  def one_step(self, at: At) -> tuple[At, bool]:
    """One step, waited for, and whether its metrics are finite; for a replay."""
    data = self._data.arrays
    if not isinstance(self._data.dataset, Resident):
      data = self.batch(at.step)
    program, steps = self._program(at, data), self._in_flight.count(1)
    state, window, bad = program(at.state, at.window, data, steps)
    fine = int(jax.device_get(bad)) < 0
    return at._replace(state=state, window=window, step=at.step + 1), fine

  def batch(self, step: int) -> Any:
    """What the train step reads at a step, placed."""
    return one_batch(self._data, step)

  def drain(self):
    """Waits for all that is in flight.

    Raises:
      NotFinite: see `advance`.
    """
    with self._clock.span('train'):
      self._in_flight.drain()

  def abandon(self):
    """Waits for nothing more, and ends the stream."""
    self._in_flight.forget()
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  def _input(self, step: int, to: int) -> tuple[Any, int]:
    """What the dispatch reads, and the number of its steps."""
    data = self._experiment.train_data
    if isinstance(data, Resident):
      last = step + 1
      while last < to and data.shape_id(last) == data.shape_id(step):
        last += 1
      return self._data.arrays, last - step
    with self._clock.span('read' if self._stream is None else 'input'):
      if self._stream is None:
        self._stream = stream(self._data, step, self._config.num_steps)
      return next(self._stream), 1

  def _program(self, at: At, data: Any) -> Callable:
    """The dispatch for batches of the shape of this step."""
    shape_id = self._experiment.train_data.shape_id(at.step)
    if shape_id not in self._compiled:
      with self._clock.span('compile'), jax.transfer_guard('allow'):
        run = self._dispatch.run[shape_id]
        one = self._in_flight.count(1)
        given = (at.state, at.window, data, one)
        tell = lambda program: self.calling(shape_id, calls.of(program))
        self._compiled[shape_id] = compiled(run, *given, lowered=tell)
        self._count(run, given)
        processes.meet()
      self._in_flight.pace.idle()
    return self._compiled[shape_id]

  def _count(self, run: Any, given: tuple[Any, ...]):
    backend = jax.default_backend()
    found = flops_of_step(
      run,
      *given,
      resident=isinstance(self._experiment.train_data, Resident),
      platform='cuda' if backend == 'gpu' else backend,
    )
    if found is not None:
      self.flops_per_step = max(found, self.flops_per_step or 0)


def copy(state: TrainState) -> TrainState:
  """A state with buffers of its own, that outlives the donation of the first."""
  return jax.jit(
    lambda tree: jax.tree.map(lambda x: x if is_key(x) else jnp.copy(x), tree)
  )(state)
