"""What the TPU compiler makes of a function, with no TPU: memory, copies, cycles.

libtpu compiles for a named topology on any machine. What it says of memory is what a
device would use; its cycles are an estimate, and of its own fusions only: of a Pallas
kernel it knows nothing (kernels/static/llo.py reads those from its listings).
"""

import functools
import importlib.util
import math
import os
import re
from typing import Any, Callable, NamedTuple

import jax
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

# Of each generation the smallest that libtpu 0.0.42.1 accepts.
TOPOLOGIES = ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1')
# Operations that only move data. XLA writes a reshape that moves none as a bitcast.
MOVES = ('pad', 'copy', 'transpose', 'reshape')
# What a fusion of nothing but them has besides.
_STILL = ('parameter', 'bitcast', 'constant', 'tuple', 'get-tuple-element')
_OPERATION = re.compile(
  r'^ *(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|([a-z]+)(\d*)\w*\[([\d,]*)\]\S*) ([\w-]+)\(',
  re.M,
)


class Move(NamedTuple):
  """An operation that only moves data, and how many bytes of result."""

  operation: str
  size: int


class NoCompiler(RuntimeError):
  """libtpu is not installed, or does not know the topology."""


class Compiled(NamedTuple):
  """What the compiler says of a function.

  Attributes:
    temp_bytes: of memory besides arguments and results.
    output_bytes: of the results.
    hlo: the optimised program.
    moves: those of MOVES that the program has. Left out: those in a fusion that
      computes, which cost no pass over memory; prefetches into VMEM, in the same order.
    cycles: by name of the fusion, as XLA estimates them; Mosaic kernels have none.
  """

  temp_bytes: int
  output_bytes: int
  hlo: str
  moves: list[Move]
  cycles: dict[str, int]


@functools.cache
def topology(name: str) -> Any:
  """A topology description of one of TOPOLOGIES, or others that libtpu knows.

  Raises:
    NoCompiler: with the remedy.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise NoCompiler('libtpu is not installed: pip install libtpu (of the age of jax).')
  # Without a TPU: do not ask the cloud's metadata server which one there is (it waits
  # for an answer), and do not hold a lock as if there were one.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')
  os.environ.setdefault('TPU_STDERR_LOG_LEVEL', '3')
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=name)
  except Exception as error:  # jaxlib's XlaRuntimeError, NotImplementedError, ...
    raise NoCompiler(
      f'topology={name!r} is not known to this libtpu, as {TOPOLOGIES} should be: '
      f'{error}'
    ) from error


def compile_for(
  name: str, function: Callable[..., Any], *shapes: Any, free_layouts: bool = False
) -> Compiled:
  """Compiles for one device of a topology.

  Args:
    name: one of TOPOLOGIES.
    function: of arrays; jitted here.
    shapes: trees of jax.ShapeDtypeStruct.
    free_layouts: whether XLA may choose the order of axes in memory of arguments and
      results, as it does for what is inside a larger program. Otherwise it is the
      default order, last axis fastest.

  Raises:
    NoCompiler: as `topology`.
  """
  mesh = Mesh(np.array(topology(name).devices[:1]), ('device',))
  sharding = NamedSharding(mesh, PartitionSpec())
  placed: Any = Format(Layout.AUTO, sharding) if free_layouts else sharding
  jitted = jax.jit(function, in_shardings=placed, out_shardings=placed)
  # What is traced may ask which device it is for: see mosaic_tpu_chips.py.
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    compiled = jitted.lower(*shapes).compile()
  memory = compiled.memory_analysis()
  assert memory is not None
  hlo = compiled.as_text()
  assert hlo is not None
  return Compiled(
    memory.temp_size_in_bytes, memory.output_size_in_bytes, hlo, moves(hlo), cycles(hlo)
  )


def moves(hlo: str) -> list[Move]:
  """Those of MOVES in a program in HLO text; see `Compiled`."""
  fused = set(re.findall(r' fusion\(.*?calls=%?([\w.-]+)', hlo))
  found = []
  for computation in re.split(r'^\}', hlo, flags=re.M):
    operations = _OPERATION.findall(computation)
    name = re.search(r'^(?:ENTRY )?%?([\w.-]+) .*\{$', computation, re.M)
    computes = any(word not in MOVES + _STILL for *_, word in operations)
    if computes and name and name.group(1) in fused:
      continue
    for _, bits, shape, word in operations:
      if word in MOVES:
        size = math.prod(map(int, filter(None, shape.split(','))))
        found.append(Move(word, size * max(int(bits or 8), 8) // 8))
  return found


def cycles(hlo: str) -> dict[str, int]:
  """XLA's estimate for each operation that has one."""
  found = re.findall(
    r'^ *(?:ROOT )?%?([\w.-]+) = .*"estimated_cycles":"(\d+)"', hlo, re.M
  )
  return {name: int(count) for name, count in found}
