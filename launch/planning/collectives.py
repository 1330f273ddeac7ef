"""Collectives of a compiled program: by kind, with the bytes that they move in a step.

Bytes on the wire are those that a device sends under the best algorithms for a ring
(Patarasuk and Yuan 2009): of n devices, (n - 1) / n of what is gathered, scattered or
exchanged, twice that of what is reduced. Over slices they travel in two stages: inside
a slice, then between slices, of which each device carries its share.
"""

import math
import re
from typing import Iterator, NamedTuple, Sequence

from launch.planning import hlo

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_LISTED = re.compile(r'replica_groups=\{(\{[\d,{} ]*\})?\}')
_IOTA = re.compile(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(r'replica_groups=@?mesh\w*\[([^\]]*)\]\s*\{([^}]*)\}')
_PAIRS = re.compile(r'source_target_pairs=\{([\d,{} ]*)\}')
_REPEATED = re.compile(r'"async_collective_fusion_config":\{"flag_start":"(-?\d+)"')
_ACROSS = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TARGET = re.compile(r'_xla_megascale_target="\{([\d,]+)\}')


class Collective(NamedTuple):
  """Attributes:
  kind: of KINDS.
  times: runs in a step.
  size: bytes of one run on a device, of what is gathered, or given to it.
  inside: bytes that a device sends within its slice, all runs of a step together.
  across: the same between slices.
  """

  kind: str
  times: int
  size: int
  inside: float
  across: float


def find(program: hlo.Program, slice_of: Sequence[int]) -> list[Collective]:
  """All collectives that run in a step.

  Args:
    program: of one device.
    slice_of: of every device of the mesh, in its order, the number of its slice.
  """
  found = []
  for instruction, computation, times in hlo.running(program):
    if kind := _across_kind(instruction):
      found.append(_across(kind, instruction, computation, times))
      continue
    for one, where in _collectives(program, instruction, computation):
      kind = one.opcode.removesuffix('-start')
      if kind == 'all-reduce' and _is_scattered(one, where):
        kind = 'reduce-scatter'
      found.append(_measured(kind, one, where, times, slice_of))
  return [one for one in found if one.inside or one.across]


def by_kind(found: Sequence[Collective]) -> dict[str, dict[str, float]]:
  """Sums by kind: runs, bytes of all runs, and bytes sent within and between slices."""
  out: dict[str, dict[str, float]] = {}
  for one in found:
    sums = out.setdefault(
      one.kind, {'count': 0, 'bytes': 0, 'sent_within_slice': 0, 'sent_across': 0}
    )
    sums['count'] += one.times
    sums['bytes'] += one.times * one.size
    sums['sent_within_slice'] += round(one.inside)
    sums['sent_across'] += round(one.across)
  return dict(sorted(out.items()))


def _collectives(
  program: hlo.Program, instruction: hlo.Instruction, computation: hlo.Computation
) -> Iterator[tuple[hlo.Instruction, hlo.Computation]]:
  """The collectives of an instruction: itself, or those in what it calls, once each."""
  if instruction.opcode.removesuffix('-start') in KINDS:
    # A TPU spreads one collective over several fusions, so that others run meanwhile;
    # the first has flag -1.
    again = _REPEATED.search(instruction.rest)
    if not again or again.group(1) == '-1':
      yield instruction, computation
  elif instruction.opcode.removesuffix('-start') in ('fusion', 'async'):
    inner = program.computations[instruction.called()['calls']]
    for one in inner.values():
      yield from _collectives(program, one, inner)


def _is_scattered(one: hlo.Instruction, where: hlo.Computation) -> bool:
  """Whether it is reduced to be cut at once: how a TPU writes a reduce-scatter."""
  root = next(i for i in where.values() if i.root)
  return root.opcode == 'dynamic-slice' and one.name in root.operands


def _measured(
  kind: str,
  one: hlo.Instruction,
  where: hlo.Computation,
  times: int,
  slice_of: Sequence[int],
) -> Collective:
  given = sum(a.size for name in one.operands for a in where[name].arrays)
  if kind == 'collective-permute':
    pairs = _pairs(one.rest)
    moves = [(s, t) for s, t in pairs if s != t]
    across = any(slice_of[s] != slice_of[t] for s, t in moves)
    inside = any(slice_of[s] == slice_of[t] for s, t in moves)
    sent = times * given
    return Collective(kind, times, given, sent * inside, sent * across)
  n, slices = _largest(groups(one.rest, len(slice_of)), slice_of)
  size = given * n if kind == 'all-gather' else given
  within = n // slices
  rounds = 2 if kind == 'all-reduce' else 1
  inside = rounds * size * (within - 1) / within
  across = rounds * size / within * (slices - 1) / slices
  if kind in ('all-to-all', 'ragged-all-to-all'):  # Nothing shrinks on the way.
    inside, across = size * (within - 1) / n, size * (n - within) / n
  return Collective(kind, times, size, times * inside, times * across)


def _largest(found: list[list[int]], slice_of: Sequence[int]) -> tuple[int, int]:
  """(devices, slices) of the group that spreads farthest."""
  known = lambda i: slice_of[i] if i < len(slice_of) else 0
  sizes = [(len({known(i) for i in group}), len(group)) for group in found]
  slices, n = max(sizes)
  return n, slices


def groups(attributes: str, num_devices: int) -> list[list[int]]:
  """Groups of devices, by their numbers in the mesh, of an instruction's attributes.

  Three forms are in use: {{0,1},{2,3}}, [2,2]<=[4] and mesh['a'=2,'b'=2] {'b'}.
  """
  if listed := _LISTED.search(attributes):
    inner = re.findall(r'\{([\d, ]*)\}', listed.group(1) or '')
    found = [[int(i) for i in part.split(',') if i.strip()] for part in inner]
    return found or [list(range(num_devices))]
  if iota := _IOTA.search(attributes):
    shape, sizes, order = (_numbers(part) for part in iota.groups())
    ids = _transposed(sizes, order or list(range(len(sizes))))
    return [ids[i : i + shape[-1]] for i in range(0, len(ids), shape[-1])]
  if mesh := _MESH.search(attributes):
    return _mesh_groups(mesh.group(1), mesh.group(2))
  return [list(range(num_devices))]


def _mesh_groups(axes: str, used: str) -> list[list[int]]:
  """Groups along some axes of a mesh whose devices are numbered in its order.

  An axis may be used in part: 'a':(2)4 are the 4 behind the first 2 of its parts.
  """
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  parts: list[tuple[int, bool]] = []
  wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", used)
  for name, size in sizes.items():
    cuts = {}  # Size before a used part of this axis -> its size.
    for other, before, count in wanted:
      if other == name:
        cuts[int(before or 1)] = int(count or size)
    done = 1
    for before, count in sorted(cuts.items()):
      parts += [(before // done, False), (count, True)]
      done = before * count
    parts.append((size // done, False))
  dims = [size for size, _ in parts]
  order = [d for d, (_, used) in enumerate(parts) if not used]
  order += [d for d, (_, used) in enumerate(parts) if used]
  ids = _transposed(dims, order)
  n = math.prod(size for size, used in parts if used)
  return [ids[i : i + n] for i in range(0, len(ids), n)]


def _transposed(sizes: list[int], order: list[int]) -> list[int]:
  """0, 1, ... in an array of these sizes, read with its axes in another order."""
  strides = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
  ids = [0]
  for d in order:
    ids = [i + j * strides[d] for i in ids for j in range(sizes[d])]
  return ids


def _numbers(text: str | None) -> list[int]:
  return [int(n) for n in (text or '').split(',') if n]


def _pairs(attributes: str) -> list[tuple[int, int]]:
  found = _PAIRS.search(attributes)
  numbers = re.findall(r'\{(\d+),(\d+)\}', found.group(1)) if found else []
  return [(int(s), int(t)) for s, t in numbers]


def _across_kind(instruction: hlo.Instruction) -> str | None:
  """What a TPU sends to other slices: the kind, in the words of this module."""
  if instruction.opcode != 'send':
    return None
  found = _ACROSS.search(instruction.rest)
  if not found:
    return None
  kind = found.group(1).lower().replace('_', '-')
  return kind if kind in KINDS else 'collective-permute'


def _across(
  kind: str, send: hlo.Instruction, where: hlo.Computation, times: int
) -> Collective:
  """One exchange between slices; the program is that of a single slice."""
  given = sum(a.size for a in where[send.operands[0]].arrays)
  target = _TARGET.search(send.rest)
  slices = len(target.group(1).split(',')) if target else 2
  share = {
    'all-reduce': 2 * (slices - 1) / slices,
    'reduce-scatter': (slices - 1) / slices,
    'all-to-all': (slices - 1) / slices,
    'all-gather': slices - 1,
  }.get(kind, 1)
  return Collective(kind, times, given, 0.0, times * given * share)
