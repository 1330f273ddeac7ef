"""Resident or streamed batches of a source, as the config says."""

from typing import Any

from dlx.data.batches.resident import Shuffled
from dlx.data.dataset import Dataset, Source


def shuffled(
  source: Source, *, batch_size: int, seed: Any, stream: bool = False, workers: int = 2
) -> Dataset:
  """The training stream of a source, on the devices or from the host.

  Args:
    source: what is read.
    batch_size: rows of one global batch.
    seed: of the order; a number where streamed.
    stream: False: `Shuffled`. True: `ShuffledStream`, bit for bit the same batches.
    workers: processes that make streamed batches; 0: threads of this one.
  """
  if not stream:
    return Shuffled(source, batch_size, seed)
  from dlx.data.batches.streamed import ShuffledStream

  return ShuffledStream(source, batch_size, seed, num_workers=workers)


def training(source: Source, config: Any, batch_size: int | None = None) -> Dataset:
  """`shuffled` as a config says; `batch_size` where it is not the config's."""
  return shuffled(
    source,
    batch_size=config.batch_size if batch_size is None else batch_size,
    seed=config.seed,
    stream=config.stream,
    workers=config.stream_workers,
  )
