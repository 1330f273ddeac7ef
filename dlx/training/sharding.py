"""Meshes and placement: the one place where axes are named.

A mesh has the axes data, fsdp, tensor, sequence, those that are used. The batch lies
along data and fsdp. A leaf of the state lies as the first matching pattern of
`Experiment.placement` says, else by size: its largest dimension that fsdp divides lies
along fsdp, and small leaves are on every device.
"""

import re
from typing import Any, Mapping

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.dataset import ROWS, Dataset
from dlx.errors import ConfigError
from dlx.training.state import is_key, leaves_by_path

AXES = ('data', 'fsdp', 'tensor', 'sequence')
SMALL = 2**14  # Elements; smaller leaves are replicated: sharding them costs more.


def parse_mesh(text: str | None, num_devices: int) -> dict[str, int]:
  """'data=4,tensor=2' -> {'data': 4, 'tensor': 2}; None: all devices along data.

  Raises:
    ConfigError: unknown or repeated axis, or sizes that do not tile the devices.
  """
  if not text:
    return {'data': num_devices}
  axes: dict[str, int] = {}
  for part in text.split(','):
    name, _, size = part.strip().partition('=')
    if name not in AXES or name in axes or not size.isdecimal() or int(size) < 1:
      raise ConfigError(
        f'--mesh={text}: {part!r} is not allowed: write AXIS=SIZE with each axis of '
        f'{", ".join(AXES)} at most once and SIZE at least 1, e.g. data=4,tensor=2.'
      )
    axes[name] = int(size)
  total = int(np.prod(list(axes.values())))
  if total != num_devices:
    raise ConfigError(
      f'--mesh={text} has {total} devices, but this run has {num_devices}: the sizes '
      f'must multiply to {num_devices}, e.g. data={num_devices}.'
    )
  return axes


def make_mesh(axes: Mapping[str, int] | str | None = None, devices=None) -> Mesh:
  """A mesh over all devices; see `parse_mesh` for the text form."""
  devices = jax.devices() if devices is None else devices
  if axes is None or isinstance(axes, str):
    axes = parse_mesh(axes, len(devices))
  ordered = {name: axes[name] for name in AXES if name in axes}
  # Linen's layers are not written for explicit axes, the default of make_mesh.
  return jax.make_mesh(
    tuple(ordered.values()),
    tuple(ordered),
    devices=devices,
    axis_types=(AxisType.Auto,) * len(ordered),
  )


def on_mesh(mesh: Mesh, spec: P) -> NamedSharding:
  """A spec on a mesh that may lack some of its axes: those are left out."""

  def keep(entry):
    if isinstance(entry, tuple):
      return tuple(a for a in entry if a in mesh.axis_names) or None
    return entry if entry is None or entry in mesh.axis_names else None

  return NamedSharding(mesh, P(*(keep(entry) for entry in spec)))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def batch_shardings(mesh: Mesh, data: Dataset, shape_id: int = 0):
  """Sharding of every field of a global batch.

  Raises:
    ConfigError: a batch that the devices along data and fsdp do not divide.
  """
  out = {}
  for name, x in data.shapes[shape_id].items():
    sharding = on_mesh(mesh, data.placement.get(name, ROWS))
    try:
      sharding.shard_shape(x.shape)
    except ValueError:
      parts = int(
        np.prod([mesh.shape[a] for a in ('data', 'fsdp') if a in mesh.axis_names])
      )
      raise ConfigError(
        f'A batch of {x.shape[0]} rows does not divide over the {parts} devices '
        f'along data and fsdp: choose a batch_size (and eval_batch_size) that is a '
        f'multiple of {parts}, or another --mesh.'
      ) from None
    out[name] = sharding
  return out


def spec_of(
  path: str, shape: tuple[int, ...], mesh: Mesh, rules: tuple[tuple[str, P], ...] = ()
) -> NamedSharding:
  """The placement rule for one leaf of the state; `path` as in `leaves_by_path`."""
  for pattern, spec in rules:
    if re.search(pattern, path):
      return on_mesh(mesh, spec)
  n = mesh.shape.get('fsdp', 1)
  if n > 1 and np.prod(shape) >= SMALL:
    fits = [d for d, size in enumerate(shape) if size % n == 0]
    if fits:
      largest = max(fits, key=lambda d: shape[d])
      return NamedSharding(
        mesh, P(*('fsdp' if d == largest else None for d in range(largest + 1)))
      )
  return replicated(mesh)


def state_shardings(mesh: Mesh, abstract: Any, rules=()) -> Any:
  """Shardings of a whole state, from its shapes alone."""
  paths = list(leaves_by_path(abstract))
  leaves, treedef = jax.tree.flatten(abstract)
  one = lambda path, x: (
    replicated(mesh) if is_key(x) else spec_of(path, x.shape, mesh, rules)
  )
  return jax.tree.unflatten(
    treedef, [one(p, x) for p, x in zip(paths, leaves, strict=True)]
  )


def rows_of_process(sharding: NamedSharding, shape: tuple[int, ...]) -> slice:
  """The rows of a global batch that this process's devices hold.

  Follows from the sharding, not from the process number: with tensor parallelism over
  two hosts, both hosts need all rows.
  """
  parts = sharding.addressable_devices_indices_map(shape).values()
  first = [part[0] if part else slice(None) for part in parts]
  bounds = [s.indices(shape[0]) for s in first]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def put_batch(batch: Mapping[str, np.ndarray], shardings, shapes, rows: slice):
  """A global batch on the devices, from the rows that this process has read."""

  def one(name, x):
    def part(index):
      if not index or shardings[name].is_fully_replicated:
        return x[index]
      start, stop, _ = index[0].indices(shapes[name].shape[0])
      return x[(slice(start - rows.start, stop - rows.start),) + tuple(index[1:])]

    return jax.make_array_from_callback(shapes[name].shape, shardings[name], part)

  return {name: one(name, x) for name, x in batch.items()}
