"""Meshes and placement: the one place where axes are named.

A mesh has the axes data, fsdp, expert, sequence, tensor, those that are used. The batch
lies along data and fsdp. A leaf of the state lies as the first matching pattern of
`Experiment.placement` says, else by size: its largest dimension that fsdp divides lies
along fsdp, and small leaves are on every device. What the optimiser keeps of a
parameter, and its average, have the parameter's path at the end of theirs, and its
shape, so that they lie as it does.
"""

import collections
import functools
import math
import re
from typing import Any, Callable, Mapping, Sequence, TypeVar

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.dataset import ROWS, Dataset
from dlx.errors import ConfigError
from dlx.layers.mesh import fitting, under
from dlx.state import is_key, leaves_by_path

# From the one whose devices exchange least to the one whose exchange most: the last
# lie inside a slice and a host.
AXES = ('data', 'fsdp', 'expert', 'sequence', 'tensor')
SMALL = 2**14  # Elements; smaller leaves are replicated: sharding them costs more.
_F = TypeVar('_F', bound=Callable[..., Any])


def parse_mesh(text: str | None, num_devices: int) -> dict[str, int]:
  """'data=-1,tensor=2' -> {'data': 4, 'tensor': 2}; None: all devices along data.

  -1, which one axis may have, is what the others leave of the devices.

  Raises:
    ConfigError: unknown or repeated axis, or sizes that do not tile the devices.
  """
  if not text:
    return {'data': num_devices}
  axes: dict[str, int] = {}
  for part in text.split(','):
    name, _, size = part.strip().partition('=')
    known = name in AXES and name not in axes
    if not known or not re.fullmatch('-1|0*[1-9][0-9]*', size):
      raise ConfigError(
        f'--mesh={text}: {part!r} is not allowed: write AXIS=SIZE with each axis of '
        f'{", ".join(AXES)} at most once and SIZE at least 1, or -1 for what is left, '
        'e.g. data=4,tensor=2.'
      )
    axes[name] = int(size)
  open_axes = [name for name, size in axes.items() if size == -1]
  if len(open_axes) > 1:
    raise ConfigError(
      f'--mesh={text} is not allowed: -1, what is left of the devices, is for one axis.'
    )
  total = math.prod(size for size in axes.values() if size != -1)
  for name in open_axes:
    if num_devices % total:
      raise ConfigError(
        f'--mesh={text} leaves {name} no size: {num_devices} devices are no multiple '
        f'of {total}.'
      )
    axes[name] = num_devices // total
  if not open_axes and total != num_devices:
    raise ConfigError(
      f'--mesh={text} has {total} devices, but this run has {num_devices}: the sizes '
      f'must multiply to {num_devices}, e.g. data={num_devices}.'
    )
  return axes


def make_mesh(axes: Mapping[str, int] | str | None = None, devices=None) -> Mesh:
  """A mesh over all devices; see `parse_mesh` for the text form.

  Devices that are neighbours in their network are neighbours along an axis. Slices,
  between which the network is slow, are divided among the first axes, data as far as it
  goes: data=4,tensor=8 over two slices keeps every group of tensor inside one.

  Args:
    axes: sizes by axis, in any order, or text.
    devices: also those of a topology that is not here; None: those of this run.
  """
  devices = jax.devices() if devices is None else list(devices)
  if axes is None or isinstance(axes, str):
    axes = parse_mesh(axes, len(devices))
  ordered = {name: axes[name] for name in AXES if name in axes}
  # Linen's layers are not written for explicit axes, the default of jax.make_mesh.
  return Mesh(
    _arranged(tuple(ordered.values()), devices),
    tuple(ordered),
    axis_types=(AxisType.Auto,) * len(ordered),
  )


def slices_of(devices: Sequence[Any]) -> dict[int, list[Any]]:
  """Devices by slice; a device that knows of none is of slice 0."""
  out = collections.defaultdict(list)
  for device in devices:
    out[getattr(device, 'slice_index', None) or 0].append(device)
  return dict(sorted(out.items()))


def _arranged(sizes: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
  slices = slices_of(devices)
  outer, left = [], len(slices)
  for size in sizes:
    outer.append(math.gcd(size, left))
    left //= outer[-1]
  inner = tuple(size // n for size, n in zip(sizes, outer, strict=True))
  if left > 1 or any(len(part) != math.prod(inner) for part in slices.values()):
    counts = ', '.join(str(len(part)) for part in slices.values())
    raise ConfigError(
      f'Slices of {counts} devices are not allowed: all must have equally many.'
    )
  try:
    if len(slices) > 1:
      return mesh_utils.create_hybrid_device_mesh(
        inner, outer, devices, allow_split_physical_axes=True
      )
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  except (AssertionError, NotImplementedError):
    # No way to lay such axes over such a torus is known, or (v4 with one device a core)
    # nothing is known of the torus: in the order of the devices.
    parts = [np.array(part, dtype=object).reshape(inner) for part in slices.values()]
    grid = np.empty((*outer, *inner), dtype=object)
    for index, part in zip(np.ndindex(*outer), parts, strict=True):
      grid[index] = part
    n = len(sizes)
    return grid.transpose([d for i in range(n) for d in (i, n + i)]).reshape(sizes)


def traced_under(mesh: Mesh | AbstractMesh, function: _F) -> _F:
  """`function`, with the mesh ambient while it is traced; see dlx/layers/mesh.py."""

  @functools.wraps(function)
  def traced(*args, **kwargs):
    with under(mesh):
      return function(*args, **kwargs)

  return traced  # type: ignore[return-value]


def on_mesh(
  mesh: Mesh | AbstractMesh, spec: P, shape: tuple[int, ...] | None = None
) -> NamedSharding:
  """A spec on a mesh without the axes that the mesh lacks.

  With a shape also without those that do not divide their dimension.
  """
  if shape is None:
    shape = (0,) * len(spec)  # Which everything divides.
  return NamedSharding(mesh, fitting(spec, shape, mesh.shape))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def batch_shardings(mesh: Mesh | AbstractMesh, data: Dataset, shape_id: int = 0):
  """Sharding of every field of a global batch.

  Rows have to divide over their axes, since a batch on every device would be work done
  many times. Along other dimensions an axis that does not divide is left out.

  Raises:
    ConfigError: a batch that the devices along data and fsdp do not divide.
  """
  out = {}
  for name, x in data.shapes[shape_id].items():
    spec = data.placement.get(name, ROWS)
    out[name] = on_mesh(mesh, spec, x.shape)
    wanted = on_mesh(mesh, P(*spec[:1]))
    try:
      wanted.shard_shape(x.shape[:1])
    except ValueError:
      parts = math.prod(mesh.shape.get(axis, 1) for axis in ('data', 'fsdp'))
      raise ConfigError(
        f'A batch of {x.shape[0]} rows does not divide over the {parts} devices '
        f'along data and fsdp: choose a batch_size (and eval_batch_size) that is a '
        f'multiple of {parts}, or another --mesh.'
      ) from None
  return out


def of_batches(mesh: Mesh | AbstractMesh, data: Dataset) -> tuple[dict[str, Any], ...]:
  """`batch_shardings` by shape id."""
  return tuple(batch_shardings(mesh, data, i) for i in range(len(data.shapes)))


def spec_of(
  path: str,
  shape: tuple[int, ...],
  mesh: Mesh | AbstractMesh,
  rules: tuple[tuple[str, P], ...] = (),
) -> NamedSharding:
  """The placement rule for one leaf of the state; `path` as in `leaves_by_path`.

  A rule is for leaves with as many dimensions as its spec has entries, or more: what
  Adafactor keeps of a matrix, for instance, are vectors under the matrix's path.
  """
  for pattern, spec in rules:
    if len(spec) <= len(shape) and re.search(pattern, path):
      return on_mesh(mesh, spec, shape)
  n = mesh.shape.get('fsdp', 1)
  if n > 1 and np.prod(shape) >= SMALL:
    fits = [d for d, size in enumerate(shape) if size % n == 0]
    if fits:
      largest = max(fits, key=lambda d: shape[d])
      return NamedSharding(
        mesh, P(*('fsdp' if d == largest else None for d in range(largest + 1)))
      )
  return replicated(mesh)


def state_shardings(mesh: Mesh | AbstractMesh, abstract: Any, rules=()) -> Any:
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
