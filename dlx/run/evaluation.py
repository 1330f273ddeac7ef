"""Passes over finite data, and the batches of a training stream on the devices."""

from typing import Any, Callable, Generator, Mapping, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from dlx.data.batches.prefetch import Ahead
from dlx.data.dataset import Dataset, Loaded, Resident, Streamed
from dlx.experiment import Eval
from dlx.run import processes, sharding
from dlx.run.dispatch import get_batch, make_eval
from dlx.state import TrainState


class Placed(NamedTuple):
  """Data of one Dataset, ready for use: resident arrays on the devices."""

  dataset: Dataset
  loaded: Loaded
  arrays: Any


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


def place(dataset: Dataset, loaded: Loaded, mesh: Mesh) -> Placed:
  """Resident arrays to every device of the mesh; streamed data stays on the host."""
  arrays = None
  if isinstance(dataset, Resident):
    arrays = processes.put(loaded.data, sharding.replicated(mesh))
  return Placed(dataset, loaded, arrays)


def stream(placed: Placed, mesh: Mesh, start: int, stop: int) -> Ahead:
  """Placed global batches `start` to `stop - 1` of streamed data; close it.

  They are read ahead, and a thread sends two of them ahead to the devices.
  """
  return Ahead(_stream(placed, mesh, start, stop))


def _stream(
  placed: Placed, mesh: Mesh, start: int, stop: int
) -> Generator[Any, None, None]:
  from dlx.data.batches.streamed import (
    batches,  # Grain: 2 s of imports that few runs need.
  )

  data = placed.dataset
  assert isinstance(data, Streamed)
  shardings = [sharding.batch_shardings(mesh, data, i) for i in range(len(data.shapes))]
  # Of all fields together: one may lie whole on every device.
  parts = [
    sharding.rows_of_process(shardings[0][name], x.shape)
    for name, x in data.shapes[0].items()
  ]
  rows = slice(min(p.start for p in parts), max(p.stop for p in parts))
  source = batches(data, placed.loaded.data, start, stop, rows)
  try:
    for step, batch in enumerate(source, start):
      shape_id = data.shape_id(step)
      yield sharding.put_batch(batch, shardings[shape_id], data.shapes[shape_id], rows)
  finally:
    source.close()


def one_batch(placed: Placed, mesh: Mesh, step: int) -> Any:
  """Batch `step`, placed: for figures and for the replay of the NaN guard."""
  data = placed.dataset
  if isinstance(data, Resident):
    shape_id = data.shape_id(step)
    return jax.jit(lambda a, i: get_batch(data, a, i, shape_id))(
      placed.arrays, jnp.int32(step)
    )
  batches = stream(placed, mesh, step, step + 1)
  batch = next(batches)
  batches.close()
  return batch


class Evaluator:
  """One Eval, compiled once and run many times."""

  def __init__(self, evaluation: Eval, placed: Placed, mesh: Mesh, state: TrainState):
    """Compiles. `state`: ShapeDtypeStructs with shardings."""
    self._mesh, self._placed = mesh, placed
    data = placed.dataset
    count = data.num_batches(placed.loaded.data)
    if count is None:
      raise ValueError('The data of an evaluation must be finite: num_batches is None.')
    self._count = count
    self._zeros, accumulate, self._summarize = make_eval(evaluation, mesh, state)
    reads = placed.arrays
    if not isinstance(data, Resident):
      shardings = sharding.batch_shardings(mesh, data)
      reads = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name])
        for name, x in data.shapes[0].items()
      }
    self._accumulate = accumulate.lower(
      self._zeros(), state, reads, np.int32(0)
    ).compile()

  def run(self, state: TrainState, interrupted: Callable[[], bool]) -> Summary:
    """One pass. The host waits, so that at most two batches are in flight.

    Raises:
      Interrupted: `interrupted()` held before a batch.
    """
    sums, tickets = self._zeros(), []
    placed = self._placed
    source = (
      None
      if isinstance(placed.dataset, Resident)
      else stream(placed, self._mesh, 0, self._count)
    )
    try:
      for i in range(self._count):
        if interrupted():
          raise Interrupted
        data = placed.arrays if source is None else next(source)
        sums, ticket = self._accumulate(sums, state, data, np.int32(i))
        tickets.append(ticket)
        if len(tickets) > 2:
          jax.block_until_ready(tickets.pop(0))
    finally:
      if source is not None:
        source.close()
    found = self._summarize(sums)
    return Summary(found, jax.tree.map(np.array, dict(found)))
