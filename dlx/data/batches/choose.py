"""Batches of sources as the config says, with a split held out where it asks.

What is larger than RESIDENT_BYTES, or is made on demand, as pictures of files are, is
read on the host whatever the config says: the same batches, few in memory at a time.
"""

from typing import Any

import numpy as np

from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.dataset import Dataset, Source
from dlx.data.sources import held_out

RESIDENT_BYTES = 4 << 30  # Of a split; more is not put on the devices.
WORTH_WORKERS = 2048  # Pictures of a pass; starting workers takes as long as decoding.


def fits(source: Source) -> bool:
  """Whether a split may lie on the devices, by the size that it declares."""
  if source.on_demand:
    return False
  of_one = sum(
    np.dtype(x.dtype).itemsize * int(np.prod(x.shape)) for x in source.shapes.values()
  )
  return (source.size or 0) * of_one <= RESIDENT_BYTES


def in_order(source: Source, batch_size: int, workers: int = 0) -> Dataset:
  """One pass over a source: on the devices, or from the host where it is too large.

  Args:
    source: what is read.
    batch_size: rows of one global batch.
    workers: processes that make rows which are made on demand; 0, or fewer rows than
      WORTH_WORKERS: threads of this one.
  """
  if fits(source):
    return InOrder(source, batch_size)
  from dlx.data.batches.streamed import InOrderStream

  many = source.on_demand and (source.size or 0) >= WORTH_WORKERS
  return InOrderStream(source, batch_size, num_workers=workers if many else 0)


def shuffled(
  source: Source,
  *,
  batch_size: int,
  seed: Any,
  shuffle: bool = True,
  stream: bool = False,
  workers: int = 2,
) -> Dataset:
  """The training stream of a source, on the devices or from the host.

  Args:
    source: what is read.
    batch_size: rows of one global batch.
    seed: of the order; a number where streamed.
    shuffle: False: the order of the source in every epoch.
    stream: False: `Shuffled`, where it fits. True: `ShuffledStream`, bit for bit the
      same batches.
    workers: processes that make streamed batches; 0: threads of this one.
  """
  if not stream and fits(source):
    return Shuffled(source, batch_size, seed, shuffle)
  from dlx.data.batches.streamed import ShuffledStream

  return ShuffledStream(source, batch_size, seed, shuffle, num_workers=workers)


def training(
  source: Source, config: Any, batch_size: int | None = None, shuffle: bool = True
) -> Dataset:
  """`shuffled` as a config says; `batch_size` where it is not the config's."""
  return shuffled(
    source,
    batch_size=config.batch_size if batch_size is None else batch_size,
    seed=config.seed,
    shuffle=shuffle,
    stream=config.stream,
    workers=config.stream_workers,
  )


def parts(
  train: Source, config: Any, *, by_class: str | None = None
) -> tuple[Source, Source | None]:
  """What is trained on, and the split 'validation'; see `splits`."""
  if config.validation:
    return held_out(train, config.validation, by_class=by_class)
  return train, train.held


def splits(
  train: Source, test: Source, config: Any, *, by_class: str | None = None
) -> tuple[Dataset, dict[str, Dataset]]:
  """The training stream, and the passes of evaluation by their split.

  Args:
    train: what is trained on, but for the share `config.validation`: where that is not
      0, it is held out as the split 'validation', the same in every run. Otherwise that
      split is the one that comes with it, where one does.
    test: the split 'test'.
    config: of the run.
    by_class: see `held_out`.
  """
  one_pass = lambda x: in_order(x, config.eval_batch_size, config.stream_workers)
  passes: dict[str, Dataset] = {'test': one_pass(test)}
  train, held = parts(train, config, by_class=by_class)
  if held is not None:
    passes = {'validation': one_pass(held), **passes}
  return training(train, config), passes
