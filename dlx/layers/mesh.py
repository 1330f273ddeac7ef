"""The mesh of devices that a layer is traced for, where there is one.

A run makes its mesh ambient while it traces a step (`under`). A layer that has to know
it, because a kernel or a collective is written by hand or because XLA should be told
how an activation lies, asks `ambient`; all others need not care. A program of one
device has no ambient mesh.
"""

import contextlib
import math
from typing import Any, ContextManager, Mapping

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P


def under(mesh: Mesh | AbstractMesh) -> ContextManager[Any]:
  """Makes `mesh` ambient for what is traced inside; one of one device changes nothing.

  The mesh is abstract there: what is traced knows axes and sizes, and takes its devices
  from its arguments. So a step can be traced for devices that this machine lacks; what
  they are kernels ask (kernels.dispatch.target), also where there is one alone.
  """
  abstract = mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
  if mesh.size > 1:
    return jax.sharding.use_abstract_mesh(abstract)
  device = abstract.abstract_device
  if device is None or device.device_kind == jax.devices()[0].device_kind:
    return contextlib.nullcontext()
  return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def ambient() -> AbstractMesh | None:
  """The ambient mesh; None where there is none.

  `ambient().shape` gives sizes by axis name; `jax.shard_map` and `NamedSharding` take
  it as they take any mesh. Inside jax.shard_map, where a device sees its own part
  alone, there is none either.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
    return None
  return mesh


def size(*axes: str) -> int:
  """Devices of the ambient mesh along these axes together; 1 for absent ones."""
  mesh = ambient()
  return 1 if mesh is None else math.prod(mesh.shape.get(a, 1) for a in axes)


def fitting(spec: P, shape: tuple[int, ...], axes: Mapping[str, int]) -> P:
  """`spec` without the axes that cannot be: absent, or not dividing their dimension.

  Of several axes along one dimension those are kept, from the first, whose product
  divides it. Every dimension keeps its place.

  Args:
    axes: sizes by name, as `mesh.shape`.

  Raises:
    ValueError: more entries than dimensions.
  """
  if len(spec) > len(shape):
    raise ValueError(f'{spec} is for more than the {len(shape)} dimensions of {shape}.')

  def keep(entry, length):
    names = entry if isinstance(entry, tuple) else (entry,)
    kept, parts = [], 1
    for name in names:
      if name in axes and length % (parts * axes[name]) == 0:
        kept.append(name)
        parts *= axes[name]
    if isinstance(entry, tuple):
      return tuple(kept) or None
    return kept[0] if kept else None

  return P(*(keep(entry, shape[d]) for d, entry in enumerate(spec)))


def constrain(x: jax.Array, *spec: Any) -> jax.Array:
  """`x`, lying along the ambient mesh as the spec says, as far as it fits.

  Args:
    spec: entries of a PartitionSpec, e.g. ('data', 'fsdp'), 'sequence', None. Along
      dimensions past the last entry nothing is divided.
  """
  mesh = ambient()
  if mesh is None:
    return x
  return jax.lax.with_sharding_constraint(x, fitting(P(*spec), x.shape, mesh.shape))
