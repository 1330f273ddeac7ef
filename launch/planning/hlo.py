"""A compiled program in HLO text: its instructions, and how often each runs.

A step is one turn of the dispatch's outermost loop, whose length is known only on the
run: loops of unknown length count once, all others as often as they turn.
"""

import functools
import re
from typing import Iterator, Mapping, NamedTuple

# Bits of an element; a type that is not here (token, opaque) takes no memory.
_BITS = {'pred': 8, 's4': 4, 'u4': 4, 's2': 2, 'u2': 2, 'c64': 64, 'c128': 128}
_ARRAY = re.compile(r'([a-z]+[0-9]*[a-z0-9]*)\[([\d,<=]*)\](?:\{([^{}]*)\})?')
_NAME = re.compile(r'%([\w.-]+)')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.-]+) .*\{$')
_CALLED = re.compile(r'\b(calls|to_apply|body|condition)=%?([\w.-]+)')
_BRANCHES = re.compile(r'\bbranch_computations=\{([^}]*)\}')
_EITHER = re.compile(r'\b(?:true|false)_computation=%?([\w.-]+)')
_TRIPS = re.compile(r'known_trip_count\\?":\s*\{\\?"n\\?":\\?"(\d+)')


class Array(NamedTuple):
  """Attributes:
  size: in bytes, without the padding of tiles.
  space: of memory; 0 is that of the device, on a TPU 1 and more are on the chip.
  """

  size: int
  space: int


class Instruction(NamedTuple):
  """Attributes:
  name: in its computation.
  opcode: e.g. fusion.
  arrays: of the result, one for each leaf of a tuple.
  operands: names.
  rest: all that is behind the operands.
  argument: what stands in the brackets of a constant or parameter.
  root: whether it is the result of its computation.
  shape: of the result, in text form.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  rest: str
  argument: str
  root: bool
  shape: str

  def called(self) -> dict[str, str]:
    """Computations by role: calls, to_apply, body, condition."""
    return dict(_CALLED.findall(self.rest))

  def branches(self) -> list[str]:
    """Computations of a conditional."""
    if listed := _BRANCHES.search(self.rest):
      return [name.strip().lstrip('%') for name in listed.group(1).split(',')]
    return _EITHER.findall(self.rest)


Computation = Mapping[str, Instruction]


class Program(NamedTuple):
  """Attributes:
  entry: name of the computation that is the program.
  computations: by name; instructions by name, in their order.
  """

  entry: str
  computations: Mapping[str, Computation]


class Running(NamedTuple):
  """An instruction, where it stands, and how often it runs in a step."""

  instruction: Instruction
  computation: Computation
  times: int


def parse(text: str) -> Program:
  """Reads a module in text form, as `Compiled.as_text` gives it."""
  entry, computations = '', {}
  current: dict[str, Instruction] | None = None
  for line in text.splitlines():
    if current is None:
      if head := _HEAD.match(line):
        current = computations[head.group(2)] = {}
        entry = head.group(2) if head.group(1) else entry
    elif line.startswith('}'):
      current = None
    elif instruction := _parse_instruction(line):
      current[instruction.name] = instruction
  return Program(entry, computations)


def _parse_instruction(line: str) -> Instruction | None:
  left, equals, right = line.strip().partition(' = ')
  if not equals:
    return None
  root = left.startswith('ROOT ')
  name = left.removeprefix('ROOT ').lstrip('%')
  if right.startswith('('):
    end = _closing(right, 0) + 1
  else:
    end = right.find(' ')
  shape, call = right[:end], right[end:].lstrip()
  opening = call.find('(')
  if opening < 0:
    return None
  closing = _closing(call, opening)
  inside = call[opening + 1 : closing]
  return Instruction(
    name=name,
    opcode=call[:opening],
    arrays=arrays(shape),
    operands=tuple(_NAME.findall(inside)),
    rest=call[closing + 1 :],
    argument=inside,
    root=root,
    shape=shape,
  )


def _closing(text: str, start: int) -> int:
  """Place of the bracket that closes the one at `start`."""
  depth = 0
  for match in re.compile(r'[()]').finditer(text, start):
    depth += 1 if match.group() == '(' else -1
    if not depth:
      return match.start()
  return len(text)


@functools.lru_cache(maxsize=4096)
def arrays(shape: str) -> tuple[Array, ...]:
  """The arrays of a shape in text form, e.g. (f32[2,3]{1,0:T(8,128)S(1)}, token[])."""
  found = []
  for dtype, sizes, layout in _ARRAY.findall(shape):
    bits = _BITS.get(dtype)
    if bits is None:
      number = re.match(r'[a-z]+(\d+)', dtype)
      bits = int(number.group(1)) if number else 0
    for size in filter(None, sizes.split(',')):
      bits *= int(size.lstrip('<='))
    space = re.search(r'S\((\d+)\)', layout)
    found.append(Array((bits + 7) // 8, int(space.group(1)) if space else 0))
  return tuple(found)


def sizes(shape: str) -> list[tuple[int, ...]]:
  """Sizes of the axes of each array of a shape in text form."""
  return [
    tuple(int(n.lstrip('<=')) for n in axes.split(',') if n)
    for _, axes, _ in _ARRAY.findall(shape)
  ]


def running(program: Program) -> Iterator[Running]:
  """All instructions that run as such, not those inside of fusions.

  Of the branches of a conditional all are given: which one is taken is not known.
  """

  def visit(name: str, times: int) -> Iterator[Running]:
    computation = program.computations[name]
    for instruction in computation.values():
      yield Running(instruction, computation, times)
      called = instruction.called()
      if instruction.opcode == 'while':
        trips = trip_count(program, computation, instruction) or 1
        yield from visit(called['body'], times * trips)
        yield from visit(called['condition'], times * trips)
      elif instruction.opcode == 'conditional':
        for branch in instruction.branches():
          yield from visit(branch, times)
      elif instruction.opcode in ('call', 'call-start'):  # The latter: a SparseCore.
        yield from visit(called['to_apply'], times)

  yield from visit(program.entry, 1)


def trip_count(
  program: Program, computation: Computation, loop: Instruction
) -> int | None:
  """Turns of a `while`; None where no number says it.

  XLA's own note where there is one. A TPU's program has none: there the condition is
  read, `i < n` with a constant n, from the first value of i by steps of 1.
  """
  if noted := _TRIPS.search(loop.rest):
    return int(noted.group(1))
  condition = program.computations[loop.called()['condition']]
  root = next(i for i in condition.values() if i.root)
  while root.opcode in ('bitcast', 'copy'):
    root = condition[root.operands[0]]
  if root.opcode == 'fusion':  # On a CPU the comparison is one.
    condition, root = _inlined(program, condition, root)
  if root is None or root.opcode != 'compare' or 'direction=LT' not in root.rest:
    return None
  counter, limit = (_source(condition, name) for name in root.operands)
  if counter.opcode != 'get-tuple-element':
    return None
  place = _index(counter)
  before = _element(computation, loop, place)
  if limit.opcode == 'get-tuple-element':  # A constant that the loop carries.
    limit = _element(computation, loop, _index(limit))
  if limit is None or limit.opcode != 'constant':
    return None
  start = before.argument if before is not None and before.opcode == 'constant' else '0'
  return max(0, int(limit.argument) - int(start))


def _inlined(program, outer: Computation, fusion: Instruction):
  """(instructions, root) of a fused comparison, its parameters put in from outside."""
  inner = program.computations[fusion.called()['calls']]
  mixed = dict(outer)
  for name, instruction in inner.items():
    if instruction.opcode == 'parameter':
      given = outer[fusion.operands[int(instruction.argument)]]
      mixed[name] = given
    else:
      mixed[name] = instruction
  root = next(i for i in inner.values() if i.root)
  return mixed, root if root.opcode == 'compare' else None


def _source(computation: Computation, name: str) -> Instruction:
  """The instruction behind copies of its result."""
  found = computation[name]
  while found.opcode in ('copy', 'bitcast'):
    found = computation[found.operands[0]]
  return found


def _element(
  computation: Computation, loop: Instruction, place: int
) -> Instruction | None:
  """What a loop is given at a place of its tuple."""
  given = computation[loop.operands[0]]
  if given.opcode != 'tuple' or place >= len(given.operands):
    return None
  return _source(computation, given.operands[place])


def _index(instruction: Instruction) -> int:
  found = re.search(r'index=(\d+)', instruction.rest)
  assert found is not None
  return int(found.group(1))
