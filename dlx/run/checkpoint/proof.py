"""Reads checkpoints on the host and proves every leaf by its checksum.

For a look at them from outside a run, on one CPU device. The caller turns on JAX's
64-bit mode: leaves of 8 bytes an element need it.
"""

import math
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

import jax.numpy as jnp

from dlx.errors import DataError, StorageError
from dlx.run.checkpoint import files

_GROUP_BYTES = 2**28
_LINES = 2  # Damaged parts that an error names.


class Opened(NamedTuple):
  """One checkpoint whose metadata is sound."""

  path: Any
  meta: Mapping[str, Any]

  @property
  def bytes(self) -> dict[str, int]:
    """Of every leaf in memory."""
    return {name: _bytes(*kind) for name, kind in self.meta['leaves'].items()}


def open_sound(path) -> Opened:
  """Reads the metadata; raises DataError where it is damaged."""
  try:
    return Opened(path, files.read_meta(path))
  except (files.Damaged, OSError) as error:
    raise DataError(f'{path} is damaged: {files.one_line(error)}.') from None


def groups(sizes: Mapping[str, int], names: Iterable[str]) -> Iterator[list[str]]:
  """Names in groups of at most 256 MiB, or of one: what is held in memory at a time."""
  part, total = [], 0
  for name in names:
    if part and total + sizes[name] > _GROUP_BYTES:
      yield part
      part, total = [], 0
    part.append(name)
    total += sizes[name]
  if part:
    yield part


def sound_leaves(opened: Opened, names: Iterable[str]) -> Iterator[dict[str, Any]]:
  """Leaves on the host, group by group; a typed key as its key data.

  Raises:
    DataError: damage; names the leaves.
  """
  for part in groups(opened.bytes, names):
    leaves, damage = _read(opened, part)
    if damage:
      raise DataError(f'{opened.path} is damaged: {"; ".join(damage[:_LINES])}.')
    yield leaves


def damaged_parts(path) -> list[str]:
  """What is wrong in one checkpoint: a line for the metadata, or for every leaf."""
  try:
    opened = Opened(path, files.read_meta(path))
  except (files.Damaged, OSError) as error:
    return [files.one_line(error)]
  found = []
  for part in groups(opened.bytes, opened.meta['leaves']):
    found += _read(opened, part)[1]
  return found


def _read(opened: Opened, names: list[str]) -> tuple[dict[str, Any], list[str]]:
  """Leaves, and what is wrong with them."""
  try:
    leaves = files.read_leaves(opened.path, opened.meta, names)
    return leaves, list(files.wrong_leaves(opened.meta, leaves).values())
  except Exception as error:  # Orbax and TensorStore raise many kinds.
    if not files.is_damage(error):
      raise StorageError(
        f'{opened.path} cannot be read ({files.one_line(error)}).'
      ) from None
    if len(names) == 1:
      return {}, [f'{names[0]} cannot be read: {files.one_line(error)}']
  # One of them cannot be read: which?
  each = [_read(opened, [name]) for name in names]
  return {}, [line for _, damage in each for line in damage]


def _bytes(dtype: str, shape) -> int:
  # A random key: its words depend on the implementation, and are few.
  size = 8 if dtype.startswith('key<') else jnp.dtype(dtype).itemsize
  return math.prod(shape) * size
