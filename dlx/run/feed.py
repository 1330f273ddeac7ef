"""What the devices read: arrays of resident data, batches of streamed data."""

from typing import Any, Generator, Mapping, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from dlx.data.batches.prefetch import Ahead
from dlx.data.dataset import Dataset, Loaded, Resident, Streamed
from dlx.experiment import Experiment
from dlx.run import processes, sharding
from dlx.run.dispatch import get_batch


class Placed(NamedTuple):
  """One Dataset, ready for use.

  Attributes:
    dataset: its batches by number.
    loaded: what its `load` gave.
    arrays: of resident data, on every device; None: streamed.
    shardings: of each field of a batch of streamed data, by shape id; of resident data
      none, as batches are made on the devices.
  """

  dataset: Dataset
  loaded: Loaded
  arrays: Any
  shardings: tuple[Mapping[str, Any], ...]


def load(
  experiment: Experiment, data_dir: Any, mesh: Mesh | AbstractMesh, train: bool = True
) -> dict[int, Placed]:
  """Reads and places every data set of an experiment, each once.

  Args:
    data_dir: see `Dataset.load`.
    train: False: those of evaluations and figures alone.

  Returns:
    By the id of the Dataset, as several parts may share one.

  Raises:
    ConfigError: data that are not there, or a streamed batch that the mesh does not
      divide.
  """
  wanted: list[Dataset] = [experiment.train_data] if train else []
  wanted += [e.data for e in experiment.evals.values()]
  wanted += [f.data for f in experiment.figures.values() if f.data is not None]
  once = {id(dataset): dataset for dataset in wanted}
  return {key: place(data, data.load(data_dir), mesh) for key, data in once.items()}


def origins(
  experiment: Experiment, data: Mapping[int, Placed]
) -> dict[str, Mapping[str, Any]]:
  """What the data of training and of every evaluation were read from."""
  used = {'train': experiment.train_data}
  used |= {name: e.data for name, e in experiment.evals.items()}
  return {split: data[id(d)].loaded.origin for split, d in used.items()}


def place(dataset: Dataset, loaded: Loaded, mesh: Mesh | AbstractMesh) -> Placed:
  """Resident arrays to every device of the mesh; streamed data stays on the host."""
  if isinstance(dataset, Resident):
    arrays = processes.put(loaded.data, sharding.replicated(mesh))
    return Placed(dataset, loaded, arrays, ())
  return Placed(dataset, loaded, None, sharding.of_batches(mesh, dataset))


def stream(placed: Placed, start: int, stop: int) -> Ahead:
  """Placed global batches `start` to `stop - 1` of streamed data; close it.

  They are read ahead, and a thread sends two of them ahead to the devices.
  """
  return Ahead(_stream(placed, start, stop))


def _stream(placed: Placed, start: int, stop: int) -> Generator[Any, None, None]:
  from dlx.data.batches.streamed import (
    batches,  # Grain: 2 s of imports that few runs need.
  )

  data, shardings = placed.dataset, placed.shardings
  assert isinstance(data, Streamed)
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


def one_batch(placed: Placed, step: int) -> Any:
  """Batch `step`, placed: for figures and for the replay of the NaN guard."""
  data = placed.dataset
  if isinstance(data, Resident):
    shape_id = data.shape_id(step)
    return jax.jit(lambda a, i: get_batch(data, a, i, shape_id))(
      placed.arrays, jnp.int32(step)
    )
  batches = stream(placed, step, step + 1)
  batch = next(batches)
  batches.close()
  return batch
