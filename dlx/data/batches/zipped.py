"""Several resident data sets as one: a batch holds a batch of each."""

from typing import Mapping

import jax

from dlx.data.dataset import Loaded, Resident


class Zipped(Resident):
  """Fields are `NAME/FIELD`; each part keeps its own order, epochs and batch size.

  For labelled and unlabelled images, two domains, a teacher's data and a student's.

  Attributes:
    parts: by name; the size, and the examples that are counted, are of the first.
  """

  def __init__(self, parts: Mapping[str, Resident]):
    self.parts = dict(parts)
    first = next(iter(self.parts.values()))
    self.size = first.size
    self.shapes = (self._flat(lambda part: part.shapes[0]),)
    self.placement = self._flat(lambda part: part.placement)

  def load(self, data_dir=None) -> Loaded:
    found = {name: part.load(data_dir) for name, part in self.parts.items()}
    first, *rest = found.values()
    origin = {**first.origin, 'with': [x.origin for x in rest]}
    return Loaded({name: x.data for name, x in found.items()}, origin)

  def array_shapes(self):
    return {name: part.array_shapes() for name, part in self.parts.items()}

  def get(self, arrays, step: jax.Array) -> dict[str, jax.Array]:
    return self._flat(lambda part, own: part.get(own, step), arrays)

  def _flat(self, function, *trees):
    return {
      f'{name}/{field}': value
      for name, part in self.parts.items()
      for field, value in function(part, *(tree[name] for tree in trees)).items()
    }


def part(batch: Mapping[str, jax.Array], name: str) -> dict[str, jax.Array]:
  """The fields of one part of a zipped batch, under their own names."""
  own = f'{name}/'
  return {k.removeprefix(own): v for k, v in batch.items() if k.startswith(own)}
