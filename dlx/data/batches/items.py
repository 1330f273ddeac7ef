"""Map-style data sets: whatever has __len__ and __getitem__, as batches.

items  of a torch or Hugging Face data set, a list, a class of your own

The order is that of `ShuffledStream` and `InOrderStream`: a batch is a function of
(seed, step), whoever makes it, so that a killed run goes on bit for bit.
"""

import dataclasses
import threading
from typing import Any, Callable, Mapping, Sequence

import jax
import numpy as np

from dlx.data.batches.streamed import InOrderStream, ShuffledStream
from dlx.data.dataset import MAX, Loaded, Shapes, Source
from dlx.data.room import empty
from dlx.data.sources import as_numbers, own_origin
from dlx.errors import ConfigError, DataError

LOOKED_AT = 8  # Examples that are read twice on load.
# One example at a time in a process: open files and lazy readers are not for threads.
_reading = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Reader:
  """How an example becomes arrays. Picklable where `transform` is.

  Attributes:
    name: of the set, in messages.
    fields: names of the parts of a tuple; None: examples are mappings.
    transform: example -> mapping, tuple or array; None: as it is.
    shapes: of one example, by field; {}: not known yet.
  """

  name: str
  fields: tuple[str, ...] | None
  transform: Callable[[Any], Any] | None
  shapes: Shapes

  def __call__(self, data: Any, i: int) -> dict[str, np.ndarray]:
    """Example i, checked against `shapes`.

    Raises:
      DataError: other fields, shapes or dtypes than those declared.
    """
    with _reading:
      found = data[i]
      found = found if self.transform is None else self.transform(found)
    where = f'{self.name}: example {i}'
    parts = self._by_name(where, found)
    if self.shapes and set(parts) != set(self.shapes):
      raise DataError(
        f'{where}: fields {", ".join(parts)}: must be {", ".join(self.shapes)}.'
      )
    out = {}
    for name in self.shapes or parts:
      declared = self.shapes.get(name)
      dtype = None if declared is None else declared.dtype
      out[name] = as_numbers(f'{where}: field {name!r}', parts[name], dtype)
      if declared is not None and out[name].shape != tuple(declared.shape):
        raise DataError(
          f'{where}: field {name!r}: expected shape {tuple(declared.shape)}, found '
          f'{out[name].shape}: give all one shape in `transform`.'
        )
    return out

  def _by_name(self, where: str, found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
      found = {name: found[name] for name in self.fields or found}
    elif self.fields is None:
      raise DataError(
        f'{where} is a {type(found).__name__}: name its parts, e.g. '
        "fields=('image', 'label')."
      )
    else:
      parts = found if isinstance(found, (tuple, list)) else (found,)
      if len(parts) != len(self.fields):
        raise DataError(
          f'{where} has {len(parts)} parts: must be {len(self.fields)}, '
          f'{", ".join(self.fields)}.'
        )
      found = dict(zip(self.fields, parts, strict=True))
    if not found:
      raise DataError(f'{where} has no fields: must have one at least.')
    return found


def _checked(name: str, data: Any) -> Any:
  """Data that has examples by number."""
  numbered = hasattr(data, '__len__') and hasattr(data, '__getitem__')
  if not numbered or isinstance(data, (Mapping, str, bytes)):
    raise ConfigError(
      f'{name}: a {type(data).__name__} is no map-style data set: must have __len__ '
      'and __getitem__ by number; of several splits give one, of a mapping of arrays '
      'dlx.data.sources.of_arrays.'
    )
  if not 1 <= len(data) <= MAX:
    raise DataError(f'{name}: {len(data)} examples: must be 1 to 2**31 - 1.')
  return data


class _OfItems:
  """What a streamed form does otherwise where `data` is a map-style set."""

  source: Source

  def __init__(self, reader: Reader, *args, **options):
    super().__init__(*args, **options)
    self.reader = reader

  def load(self, data_dir=None) -> Loaded:
    data = self.source.read(data_dir).data
    index = np.arange(min(len(data), LOOKED_AT))
    origins = [
      own_origin(
        self.examples(data, index), self.source.name, self.source.split, len(data)
      )
      for _ in range(2)
    ]
    if origins[0] != origins[1]:
      raise DataError(
        f'{self.source.name}: an example is another when it is read again, so that no '
        'run could go on exactly: take random transforms out of it, and augment in the '
        'train step (dlx/data/images).'
      )
    origin = origins[0]
    origin[f'sha256_of_first_{len(index)}'] = origin.pop('sha256')
    return Loaded(data, origin)

  def count(self, data: Any) -> int:
    return len(data)

  def examples(self, data: Any, index: Any) -> dict[str, np.ndarray]:
    out = {
      name: empty((len(index), *x.shape), x.dtype)
      for name, x in self.reader.shapes.items()
    }
    # Each once: the last batch of a pass repeats its last example.
    for i in np.unique(index):
      for name, value in self.reader(data, int(i)).items():
        out[name][index == i] = value
    return out


class ShuffledItems(_OfItems, ShuffledStream):
  """The training stream of a map-style set."""


class ItemsInOrder(_OfItems, InOrderStream):
  """One pass over a map-style set."""


def items(
  data: Any,
  batch_size: int,
  seed: int | None = None,
  *,
  fields: Sequence[str] | None = None,
  transform: Callable[[Any], Any] | None = None,
  shapes: Shapes | None = None,
  workers: int = 2,
  name: str = 'items',
) -> ShuffledItems | ItemsInOrder:
  """Batches of anything with __len__ and __getitem__, read on the host.

  Examples are mappings, tuples or single values, of numbers, lists, NumPy arrays, torch
  tensors of the CPU or PIL pictures; each has the shapes of the first. Example i must
  be the same whenever it is read: some are read twice on load, and what changes is
  refused. A process reads one example at a time; for more give more `workers`.

  Args:
    data: the set, whose example 0 is read here where no shapes are given; or a function
      data_dir -> set, called on load: then a plan can be made where there is no data.
    batch_size: rows of one global batch.
    seed: of the order of training, without an end; None: one pass in order, for an
      evaluation: batches have `weight` f32[B], 0 for what fills up the last.
    fields: names of the parts of a tuple, or the fields that are taken of a mapping.
    transform: pure; example -> mapping, tuple or value, e.g. to resize or tokenise.
    shapes: of one example by field; needed where `data` is a function.
    workers: processes that read; they get `data` pickled. 0: threads of this one.
    name: for messages and records.

  Raises:
    ConfigError: no map-style set, a function without shapes, no batch or workers.
    DataError: an example that is no arrays of numbers.
  """
  fields = None if fields is None else tuple(fields)
  opened = hasattr(data, '__getitem__') or not callable(data)
  size = len(_checked(name, data)) if opened else None
  if not opened and shapes is None:
    raise ConfigError(
      f'{name}: shapes=None is not allowed where a function gives the set.'
    )
  reader = Reader(name, fields, transform, {} if shapes is None else dict(shapes))
  if shapes is None:
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    found = {k: like(x) for k, x in reader(data, 0).items()}
    reader = dataclasses.replace(reader, shapes=found)

  def read(data_dir):
    return Loaded(data if opened else _checked(name, data(data_dir)), {})

  split = 'test' if seed is None else 'train'
  source = Source(name, split, reader.shapes, size, read)
  if seed is None:
    return ItemsInOrder(reader, source, batch_size, num_workers=workers)
  return ShuffledItems(reader, source, batch_size, seed, num_workers=workers)
