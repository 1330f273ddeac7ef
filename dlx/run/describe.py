"""What a run holds and where it lies, before it starts: for `launch.train --describe`.

From shapes alone: nothing is compiled, no data is read.
"""

import math
from typing import Any, Mapping, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from dlx.data.dataset import Dataset, Resident
from dlx.errors import ConfigError
from dlx.experiment import Experiment
from dlx.run.dispatch import make_dispatch
from dlx.run.sharding import slices_of
from dlx.state import is_key, leaves_by_path

# Parts of the state, by the first word of a leaf's path.
PARTS = {
  'params': 'parameters',
  'opt_state': 'optimiser state',
  'model_state': 'model state',
  'ema': 'averaged parameters',
}


class Leaf(NamedTuple):
  """One array.

  Attributes:
    path: e.g. params/hidden_0/kernel.
    shape: of the whole array.
    dtype: its name.
    count: entries.
    placement: axes by dimension, e.g. ('fsdp', None), as in a PartitionSpec; () where
      the whole array lies on every device.
    bytes: of one whole array.
    bytes_per_device: of the part on one device; padding of the device is not counted.
  """

  path: str
  shape: tuple[int, ...]
  dtype: str
  count: int
  placement: tuple[Any, ...]
  bytes: int
  bytes_per_device: int


class Total(NamedTuple):
  """Sums over some leaves; `arrays` is their number, the others as in `Leaf`."""

  arrays: int
  count: int
  bytes: int
  bytes_per_device: int


class Description(NamedTuple):
  """What `describe` finds.

  Attributes:
    mesh: sizes by axis.
    devices: kind and number, e.g. ('TPU v5 lite', 256).
    slices: groups of devices between which the network is slow; 1: none.
    leaves: all of the state, in its order.
    totals: by part of the state; 'all' last.
    resident: of the data on every device, by 'train' and the names of evaluations; None
      where it is known only once the data was read. Streamed data has no entry, and
      data that several share counts for the first.
  """

  mesh: Mapping[str, int]
  devices: tuple[str, int]
  slices: int
  leaves: tuple[Leaf, ...]
  totals: Mapping[str, Total]
  resident: Mapping[str, Total | None]


def describe(experiment: Experiment, mesh: Mesh | AbstractMesh) -> Description:
  """The state of an experiment on a mesh, which may be without devices, and its data.

  Raises:
    ConfigError: a batch that the mesh does not divide.
  """
  dispatch = make_dispatch(experiment, mesh)
  leaves = tuple(_leaf(*named) for named in leaves_by_path(dispatch.state).items())
  parts: dict[str, list[Leaf]] = {}
  for leaf in leaves:
    part = PARTS.get(leaf.path.partition('/')[0], 'step, key and flags')
    parts.setdefault(part, []).append(leaf)
  devices = mesh.devices.ravel().tolist() if isinstance(mesh, Mesh) else []
  return Description(
    dict(mesh.shape),
    (devices[0].device_kind if devices else 'device', mesh.size),
    max(1, len(slices_of(devices))),
    leaves,
    {**{part: total(of) for part, of in parts.items()}, 'all': total(leaves)},
    _resident(experiment, dispatch.arrays),
  )


def total(leaves) -> Total:
  leaves = list(leaves)  # None where examples are made in the step.
  of_all = lambda name: sum(getattr(x, name) for x in leaves)
  return Total(len(leaves), *map(of_all, ('count', 'bytes', 'bytes_per_device')))


def _leaf(path: str, x: Any) -> Leaf:
  if is_key(x):  # Lies as its numbers, which are four or two of 32 bits.
    x = jax.eval_shape(jax.random.key_data, x).update(sharding=x.sharding)
  sharding, shape = x.sharding, x.shape
  spec = tuple(sharding.spec) if isinstance(sharding, NamedSharding) else ()
  count, part = math.prod(shape), math.prod(sharding.shard_shape(shape))
  size = x.dtype.itemsize
  placement = spec if any(spec) else ()
  return Leaf(path, shape, x.dtype.name, count, placement, count * size, part * size)


def _resident(experiment: Experiment, everywhere: Any) -> dict[str, Total | None]:
  out: dict[str, Total | None] = {}
  seen = set()
  data: dict[str, Dataset] = {'train': experiment.train_data}
  data |= {name: e.data for name, e in experiment.evals.items()}
  for name, dataset in data.items():
    if not isinstance(dataset, Resident) or id(dataset) in seen:
      continue
    seen.add(id(dataset))
    try:
      shapes = leaves_by_path(dataset.array_shapes())
    except ConfigError:  # The source does not declare its size.
      out[name] = None
      continue
    out[name] = total(
      _leaf(path, jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere))
      for path, x in shapes.items()
    )
  return out


def in_bytes(n: int) -> str:
  """1536 -> '1.5 KiB'."""
  if n < 1024:
    return f'{n} B'
  power = min((n.bit_length() - 1) // 10, 5)
  return f'{n / 1024**power:.{1 if n < 100 * 1024**power else 0}f} {" KMGTP"[power]}iB'


def placement_text(placement: tuple[Any, ...]) -> str:
  """(None, ('data', 'fsdp')) -> '-, data+fsdp'; () -> 'everywhere'."""
  words = ['+'.join(e) if isinstance(e, tuple) else e or '-' for e in placement]
  return ', '.join(words) or 'everywhere'


def as_text(found: Description) -> str:
  """Tables: every parameter; totals of all parts; data; the mesh. Plain text."""
  kind, number = found.devices
  axes = ', '.join(f'{name}={size}' for name, size in found.mesh.items())
  slices = f' in {found.slices} slices' if found.slices > 1 else ''
  each = lambda x: (in_bytes(x.bytes), in_bytes(x.bytes_per_device))
  head = ('parameter', 'shape', 'dtype', 'count', 'placement', 'bytes', 'a device')
  rows = [
    (
      x.path.removeprefix('params/'),
      ' x '.join(map(str, x.shape)) or 'scalar',
      x.dtype,
      f'{x.count:,}',
      placement_text(x.placement),
      *each(x),
    )
    for x in found.leaves
    if x.path.partition('/')[0] == 'params'
  ]
  parts = [
    (name, str(x.arrays), f'{x.count:,}', *each(x)) for name, x in found.totals.items()
  ]
  data = [
    (f'data: {name}', '?', '?', '?', '?')
    if x is None
    else (f'data: {name}', str(x.arrays), f'{x.count:,}', *each(x))
    for name, x in found.resident.items()
  ]
  note = '?: known once the data was read\n' if None in found.resident.values() else ''
  totals = _table(
    ('total', 'arrays', 'count', 'bytes', 'a device'), [*parts, *data], left=1
  )
  return (
    f'mesh: {axes} ({number} x {kind}{slices})\n\n'
    + (_table(head, rows, left=3) + '\n' if rows else 'no parameters\n\n')
    + totals
    + note
  )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], left: int) -> str:
  """Columns of text; the first `left` of them and 'placement' start at the left."""
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  line = lambda row: '  '.join(
    cell.ljust(width) if i < left or head[i] == 'placement' else cell.rjust(width)
    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
  )
  rule = '  '.join('-' * width for width in widths)
  return '\n'.join(x.rstrip() for x in (line(head), rule, *map(line, rows))) + '\n'
