"""A profile of a train step on a CPU, by operation: time, FLOP/s, bytes/s.

The profiler of JAX names every instruction of the compiled program that ran, calls of
C++ among them, and how long it took; its text says what it computed and read. Counted
are matrix products, convolutions, and attention, LSTMs and sparse products of
kernels/onednn: two operations for a multiply-add, taps on padding and all pairs of
attention included. Bytes are those of launch/planning/traffic.py, operands and results
once: what a cache still holds costs less, so that a rate may exceed the memory's.
"""

import math
import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from launch.planning import hlo, traffic

_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_LABELS = re.compile(r'dim_labels=\w+_(\w+)->\w+')
_CONTRACTED = re.compile(r'lhs_contracting_dims=\{([\d,]*)\}')
_GEOMETRY = re.compile(r'geometry = dense<\[([\d, -]+)\]>')
_LOOPS = ('while', 'conditional', 'call')  # Their time is that of what they run.
# Of a scope, what JAX adds to the names of modules.
_WRAPPER = re.compile(r'^(jit|jvp|transpose|vmap|checkpoint|remat)\((.*)\)$')
_CONTROL = {
  'while',
  'body',
  'cond',
  'closed_call',
  'checkpoint',
  'rematted_computation',
}

Shapes = Sequence[tuple[int, ...]]


class Operation(NamedTuple):
  """Equal operations of a step: of one kind, shape and place.

  Attributes:
    kind: the target of a call of C++, or the instruction without its number.
    shape: of result and operands, in text form.
    where: modules that it stands in, the outermost first; with `backward`.
    ms: of a step, all calls together.
    calls: of a step.
    flops, bytes: of a step; flops is 0 where no product is computed.
  """

  kind: str
  shape: str
  where: str
  ms: float
  calls: float
  flops: float
  bytes: float


def of_step(
  text: str, times: Mapping[str, Sequence[float]], steps: int
) -> list[Operation]:
  """The operations of a step, the dearest first.

  Args:
    text: of the compiled program.
    times: by name of an instruction, (seconds, calls), of all steps together.
    steps: that were traced.
  """
  program = hlo.parse(text)
  found: dict[tuple[str, str, str], Operation] = {}
  for instruction, computation, _ in hlo.running(program):
    if instruction.name not in times or instruction.opcode in _LOOPS:
      continue
    seconds, calls = times[instruction.name]
    operands = [computation[name].shape for name in instruction.operands]
    key = (
      kind(instruction),
      ' <- '.join(map(_short, (instruction.shape, ', '.join(operands)))),
      scope(instruction.rest),
    )
    before = found.get(key, Operation(*key, 0.0, 0.0, 0.0, 0.0))
    of_call = traffic.of_instruction(program, instruction, computation, False)
    found[key] = before._replace(
      ms=before.ms + 1e3 * seconds / steps,
      calls=before.calls + calls / steps,
      flops=before.flops + flops(program, instruction, computation) * calls / steps,
      bytes=before.bytes + of_call * calls / steps,
    )
  return sorted(found.values(), key=lambda operation: -operation.ms)


def kind(instruction: hlo.Instruction) -> str:
  """The target of a call of C++, else the name without its number."""
  if target := _TARGET.search(instruction.rest):
    return target.group(1)
  return re.sub(r'(\.\d+|\.clone)+$', '', instruction.name)


def scope(rest: str) -> str:
  """The modules in its metadata, e.g. 'CNN/CNN.forward/conv_0 backward'."""
  name = _OP_NAME.search(rest)
  if name is None:
    return ''
  parts = []
  for part in name.group(1).split('/')[:-1]:  # The last is the operation itself.
    while (wrapped := _WRAPPER.match(part)) and wrapped.group(1) != 'jit':
      part = wrapped.group(2)
    inside = _WRAPPER.match(part) or part in _CONTROL or part.startswith('branch_')
    if not inside and part not in parts:
      parts.append(part)
  return '/'.join(parts) + (' backward' if 'transpose(' in name.group(1) else '')


def flops(
  program: hlo.Program, instruction: hlo.Instruction, computation: hlo.Computation
) -> float:
  """Operations of the products of one instruction; 0: it has none."""
  opcode = instruction.opcode
  result = hlo.sizes(instruction.shape)
  operands = [
    size for name in instruction.operands for size in hlo.sizes(computation[name].shape)
  ]
  if opcode == 'dot':
    contracted = _CONTRACTED.search(instruction.rest)
    axes = [int(n) for n in contracted.group(1).split(',') if n] if contracted else []
    depth = math.prod(operands[0][axis] for axis in axes)
    return 2.0 * math.prod(result[0]) * depth
  if opcode == 'convolution':
    labels = _LABELS.search(instruction.rest)
    assert labels is not None
    features = operands[1][labels.group(1).index('o')]
    return 2.0 * math.prod(result[0]) * math.prod(operands[1]) / features
  if opcode == 'fusion':
    inner = program.computations[instruction.called()['calls']]
    return sum(flops(program, each, inner) for each in inner.values())
  target = _TARGET.search(instruction.rest) if opcode == 'custom-call' else None
  count = CALLS.get(target.group(1)) if target else None
  return 0.0 if count is None else count(result, operands, instruction.rest)


def _conv(result: Shapes, operands: Shapes, rest: str) -> float:
  found = _GEOMETRY.search(rest)
  assert found is not None
  rows, _, _, inputs, *window, outputs, high, wide = map(
    int, found.group(1).split(',')[:9]
  )
  groups = int(found.group(1).split(',')[-1])
  taps = math.prod(window) * inputs // groups
  return 2.0 * rows * high * wide * outputs * taps


def _attention(products: int) -> Callable[[Shapes, Shapes, str], float]:
  """So many products of queries [B, L, H, K], or packed [B, L, 3, H, K], with keys."""

  def count(result: Shapes, operands: Shapes, rest: str) -> float:
    query = operands[0]
    keys = query[1] if len(query) == 5 else operands[1][1]
    return 2.0 * products * query[0] * query[1] * keys * query[-2] * query[-1]

  return count


def _lstm(kernel: int) -> Callable[[Shapes, Shapes, str], float]:
  """A product of every step with the kernel, which is this operand; G = 4 H."""

  def count(result: Shapes, operands: Shapes, rest: str) -> float:
    steps, rows = operands[0][:2]
    return 2.0 * steps * rows * math.prod(operands[kernel])

  return count


def _sparse(result: Shapes, operands: Shapes, rest: str) -> float:
  return 2.0 * math.prod(operands[2]) * result[0][-1]


def _product(result: Shapes, operands: Shapes, rest: str) -> float:
  """Of matrices, [*batch, M, K], or [*batch, K, M] where it is given transposed."""
  axis = -2 if re.search(r'transpose_a = true', rest) else -1
  return 2.0 * math.prod(result[0]) * operands[0][axis]


# Operations of a call of C++: (sizes of its results, of its operands, its text).
CALLS: dict[str, Callable[[Shapes, Shapes, str], float]] = {
  'dlx_onednn_conv': _conv,
  'dlx_onednn_attention_forward': _attention(2),
  'dlx_onednn_attention_packed_forward': _attention(2),
  'dlx_onednn_attention_backward': _attention(5),
  'dlx_onednn_attention_packed_backward': _attention(5),
  'dlx_onednn_lstm_forward': _lstm(1),
  'dlx_onednn_lstm_backward': _lstm(5),
  'dlx_onednn_product': _product,
  'dlx_sparse_product': _sparse,
}


def _short(shape: str) -> str:
  """A shape without its layout."""
  return re.sub(r'\{[^{}]*\}|/\*[^*]*\*/', '', shape)


def table(
  operations: Sequence[Mapping[str, Any]],
  step_ms: float,
  gflops: float,
  gigabytes: float,
  most: int = 25,
) -> str:
  """Markdown; shares of the time of all operations, rates beside the limits.

  Args:
    operations: fields of each Operation, the dearest first.
    step_ms: of a step, not traced.
    gflops, gigabytes: limits, a second.
    most: rows; the others are one row.
  """
  total = sum(o['ms'] for o in operations)
  share = lambda ms: f'{100 * ms / max(total, 1e-12):.1f} %'
  lines = [
    '| share | ms | calls | operation | where | GFLOP/s (of limit) | GB/s (of limit) |',
    '| --- | --- | --- | --- | --- | --- | --- |',
  ]
  for o in operations[:most]:
    rate = lambda amount, limit, ms=o['ms']: (
      f'{amount / ms / 1e6:.3g} ({100 * amount / ms / 1e6 / limit:.0f} %)'
      if amount and ms
      else '-'
    )
    cells = [share(o['ms']), f'{o["ms"]:.3f}', f'{o["calls"]:.3g}']
    cells += [f'`{o["kind"]}` {o["shape"]}', o['where']]
    cells += [rate(o['flops'], gflops), rate(o['bytes'], gigabytes)]
    lines.append('| ' + ' | '.join(cells) + ' |')
  rest = operations[most:]
  if rest:
    ms, calls = (sum(o[name] for o in rest) for name in ('ms', 'calls'))
    lines.append(f'| {share(ms)} | {ms:.3f} | {calls:.3g} | {len(rest)} more | | | |')
  lines.append(
    f'All operations {total:.3g} ms, a step {step_ms:.3g} ms when not traced; what '
    'runs at the same time counts twice. '
    f'Limits: {gflops:.0f} GFLOP/s, {gigabytes:.1f} GB/s.'
  )
  return '\n'.join(lines)
