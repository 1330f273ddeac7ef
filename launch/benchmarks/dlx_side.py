"""dlx's side of the bench: the dispatch of the training loop, on generated arrays."""

import pathlib
import tempfile
import time
from typing import Any
import warnings

import jax
import numpy as np

from dlx.run import sharding
from dlx.run.dispatch import get_batch, make_dispatch
from dlx.run.in_flight import InFlight
from dlx.state import ratios
from kernels.onednn import library
from launch.benchmarks import operations, workloads

LOSS = 'loss'  # The metric that every experiment's train step reports.


class Side:
  """A workload's train step as the loop runs it: donated state, resident arrays.

  Attributes:
    steps: of one dispatch, so many that it takes as long as in the loop.
    flops: of one step, as XLA counts them before optimisation; None where it does not.
  """

  def __init__(self, name: str, **fields: Any):
    """Builds, compiles and places everything.

    Args:
      name: of the workload.
      fields: of the Config, in place of the workload's.
    """
    built = workloads.build(name, **fields)
    mesh = sharding.make_mesh()
    self._dispatch = make_dispatch(built.experiment, mesh)
    self._arrays = jax.tree.map(
      lambda x: jax.device_put(x, sharding.replicated(mesh)), dict(built.arrays)
    )
    self.flops = _flops(built, self._dispatch)
    self._state = self._dispatch.init(jax.random.key(built.config.seed))
    self._window = self._dispatch.zeros()
    self._run = (
      self._dispatch.run[0]
      .lower(self._state, self._window, self._arrays, np.int32(1))
      .compile()
    )
    self._in_flight = InFlight(None, self._dispatch.arrays)

  @property
  def steps(self) -> int:
    return self._in_flight.pace.steps

  def step(self, n: int) -> float:
    """n steps, two dispatches in flight as in the loop; the mean loss over them."""
    while n:
      self._in_flight.make_room()
      steps = min(n, self.steps)
      count = self._in_flight.count(steps)
      self._state, self._window, bad = self._run(
        self._state, self._window, self._arrays, count
      )
      self._in_flight.add(bad, steps)
      n -= steps
    self._in_flight.drain()
    loss = float(np.mean(ratios(jax.device_get(self._window))[LOSS]))
    self._window = self._dispatch.zeros()
    return loss

  def profile(self, n: int) -> dict[str, Any]:
    """Traces n steps: `step_ms` of as many without a trace, and `operations`.

    Raises:
      RuntimeError: the trace names no instruction of the program.
    """
    self.step(n)
    start = time.perf_counter()
    self.step(n)
    step_ms = 1e3 * (time.perf_counter() - start) / n
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder):
        self.step(n)
      times = traced(pathlib.Path(folder))
    found = operations.of_step(self._run.as_text(), times, n)
    if not found:
      raise RuntimeError('the trace names no instruction of the program')
    return {'step_ms': step_ms, 'operations': [o._asdict() for o in found]}


def traced(folder: pathlib.Path) -> dict[str, tuple[float, int]]:
  """(seconds, calls) of every instruction of XLA's in a trace."""
  found: dict[str, tuple[float, int]] = {}
  with warnings.catch_warnings():
    # Of a type of jaxlib's; raised as an error it would end the process.
    warnings.simplefilter('ignore', DeprecationWarning)
    for path in folder.glob('**/*.xplane.pb'):
      for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for event in (event for line in plane.lines for event in line.events):
          if any(name == 'hlo_op' for name, _ in event.stats):
            seconds, calls = found.get(event.name, (0.0, 0))
            found[event.name] = seconds + event.duration_ns / 1e9, calls + 1
  return found


def _flops(built: workloads.Built, dispatch) -> float | None:
  """FLOPs of one train step: of the program that XLA is given, nothing compiled."""
  data = built.experiment.train_data

  def one(state, arrays, step):
    return built.experiment.train_step(state, get_batch(data, arrays, step, 0))

  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), built.arrays)
  with library.unused():  # XLA does not know what the calls of it compute.
    lowered = jax.jit(one).lower(dispatch.state, dict(shapes), np.int32(0))
  cost = lowered.cost_analysis()
  return None if not cost else cost.get('flops')
