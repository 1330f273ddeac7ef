"""Static figures of the TPU convolutions, XLA's beside them, with no TPU.

    python -m kernels.conv.static_tpu --topology v5e:2x2

For each case and function a line of ours and one of XLA's: instruction bundles that are
issued if every branch is taken (a loop's bundles times its trips, over the whole
program, padding and copies included), registers that did not fit, bytes that copies and
pads in the program write, memory beside arguments and results, and the cycles that XLA
estimates for what it wrote itself. A bundle is a cycle if nothing stalls, and waits for
memory are not counted: the sum ranks two programs, it is no time. XLA's estimate for a
depthwise convolution is about three times the bundles that it issues (the table shows
both): compare bundles with bundles.

XLA may choose the order of axes in memory of arguments and results, as inside of a
larger program. libtpu writes its listings where LIBTPU_INIT_ARGS says so when the
process starts: hence a process for each line. Flags and form of the listings are
undocumented: found with libtpu 0.0.42.1.
"""

import argparse
import functools
import re
from typing import Any, NamedTuple, Sequence

import jax
from jax import lax

from kernels.conv import mosaic_tpu
from kernels.conv.case import FILTER, FORWARD, INPUT, Case, Operands
from kernels.static import llo, tpu

WHO = ('dlx', 'xla')
FUNCTIONS = (FORWARD, INPUT, FILTER)
_BUNDLE = re.compile(r'^\s*(?:0x[0-9a-f]+|0)\s+((?:[A-Z]{2} ?)*)\s*:\s*>*\s*\{')
# A counter's next value; the predicate where it is compared with the loop's end; the
# branch back on it, and how many bundles after it are issued before it is taken; of
# copies of blocks, by how many trips the counter of the loop is ahead.
_COUNTER = re.compile(r'sphi [^,;]*, %(\w+)')
_END = re.compile(
  r'%(\w+) = scmp\.ge\.s32\.totalorder [^;]*?%(\w+), (\d+) /\* loop exit test'
)
_BACK = re.compile(r'sbr\.rel \(!%(\w+)\)')
_DELAY = 4
_STAGE = re.compile(r'iteration index, stage = (\d+)')
Loops = tuple[int, ...]  # Lines where loops begin, the outer one first.
# Around the kernels: what starts the program.
_AROUND = ('TLP', '<')


def depthwise(size: int, channels: int, kernel: int = 7, **more: Any) -> Case:
  shape = (32, size, size, channels, channels, (kernel, kernel), 'bfloat16')
  pads = (kernel // 2, kernel // 2)
  return Case(*shape, padding=(pads, pads), groups=channels, **more)


# ConvNeXt's stages (arXiv:2201.03545) and a product of its third.
CASES = {
  '7x7 14x14x384': depthwise(14, 384),
  '7x7 7x7x768': depthwise(7, 768),
  '7x7 28x28x192': depthwise(28, 192),
  '7x7 56x56x96': depthwise(56, 96),
  '3x3 14x14x512': depthwise(14, 512, 3),
  '1x1 14x14 384-1536 gelu': Case(
    32, 14, 14, 384, 1536, (1, 1), 'bfloat16', shift=True, activation='gelu'
  ),
}


class Report(NamedTuple):
  """Of one function of one case; the columns are those of the module's docstring."""

  bundles: int
  fills: int
  spills: int
  moved_bytes: int
  temp_bytes: int
  xla_cycles: int


def issued(text: str) -> int:
  """Bundles of a listing, each times the trips of the loops that it is in.

  The grid is a loop as others are. It has two trips more than steps, in which blocks
  are only copied: those are left out.

  Raises:
    ValueError: a loop whose end is not a comparison with a number.
  """
  own: dict[Loops, int] = {}
  ahead: dict[Loops, int] = {}
  counters: dict[str, Loops] = {}
  ends: dict[str, tuple[str, int]] = {}
  nest: Loops = ()
  left: int | None = None  # Of the bundles after a branch back.
  for n, line in enumerate(text.splitlines()):
    if found := _BUNDLE.match(line):
      if left == 0:
        nest, left = nest[:-1], None
      elif left:
        left -= 1
      if 'LB' in found.group(1):
        nest = (*nest, n)
      own[nest] = own.get(nest, 0) + 1
    ahead[nest] = max([ahead.get(nest, 0), *map(int, _STAGE.findall(line))])
    counters |= dict.fromkeys(_COUNTER.findall(line), nest)
    ends |= {name: (counter, int(end)) for name, counter, end in _END.findall(line)}
    if any(name in ends for name in _BACK.findall(line)):
      left = _DELAY
  trips = {
    counters[counter]: end - ahead[counters[counter]]
    for counter, end in ends.values()
    if counter in counters
  }
  total = 0
  for loop, count in own.items():
    for depth in range(1, len(loop) + 1):
      if loop[:depth] not in trips:
        raise ValueError(f'the loop of line {loop[depth - 1]} has no known trips.')
      count *= trips[loop[:depth]]
    total += count
  if nest and left is None:
    raise ValueError(f'the loop of line {nest[-1]} has no end.')
  return total


def measure(topology: str, case: str, function: str, who: str) -> Report:
  """Compiles in a process of its own and reads what libtpu wrote.

  Args:
    topology: see kernels/static/tpu.py.
    case: one of CASES.
    function: one of FUNCTIONS.
    who: one of WHO.

  Raises:
    tpu.NoCompiler: libtpu is missing.
    RuntimeError: the compilation failed, with its last lines.
  """
  words = (topology, case, function, who)
  with llo.listings('kernels.conv.static_tpu', topology, words) as (folder, printed):
    slots = [x for x in llo.read(folder, '') if not x.name.startswith(_AROUND)]
    bundles = sum(
      issued(file.read_text())
      for file in folder.glob('*-final_bundles.txt')
      if 'schedule-' not in file.name
      and not file.name.split('-', 1)[1].startswith(_AROUND)
    )
    moved, temp, cycles = map(int, printed.split()[-3:])
    fills, spills = sum(x.fills for x in slots), sum(x.spills for x in slots)
    return Report(bundles, fills, spills, moved, temp, cycles)


def _compile(topology: str, name: str, function: str, who: str):
  """In the process of its own: compiles, and prints what the program says."""
  case = CASES[name]._replace(function=function)
  wide: Any = jax.ShapeDtypeStruct((case.features,), 'float32')
  array: Any = lambda *shape: jax.ShapeDtypeStruct(shape, case.dtype)
  operands = Operands(
    array(case.batch, case.height, case.width, case.channels),
    array(*case.kernel, case.channels // case.groups, case.features),
    wide if case.scale else None,
    wide if case.shift else None,
  )
  dy = array(*case.out_shape)
  x, w, *_ = operands
  args = {FORWARD: (operands,), INPUT: (dy, w), FILTER: (x, dy)}[function]
  body = functools.partial(_xla, case, function)
  if who == 'dlx':
    body = functools.partial(
      getattr(mosaic_tpu, function), case, interpret=False, config={}
    )
  found = tpu.compile_for(topology, body, *args, free_layouts=True)
  print(
    sum(move.size for move in found.moves), found.temp_bytes, sum(found.cycles.values())
  )


def _xla(case: Case, function: str, *args: Any) -> Any:
  """What XLA is given without our kernels: its convolution, and its derivatives."""
  from kernels.conv import epilogue

  def convolve(x, w):
    return lax.conv_general_dilated(
      x,
      w,
      case.stride,
      case.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=case.groups,
    )

  if function == FORWARD:
    x, w, scale, shift, residual = args[0]
    total = epilogue.wide(convolve(x, w))
    return epilogue.apply(case, total, scale, shift, residual).astype(case.dtype)
  shape = jax.ShapeDtypeStruct
  x = shape((case.batch, case.height, case.width, case.channels), case.dtype)
  w = shape((*case.kernel, case.channels // case.groups, case.features), case.dtype)
  if function == INPUT:
    dy, w = args
    return jax.linear_transpose(lambda x: convolve(x, w), x)(dy)[0]
  x, dy = args
  return jax.linear_transpose(lambda w: convolve(x, w), w)(dy)[0]


def main(args: Sequence[str] | None = None):
  """Prints a line a case, function and implementation."""
  parser = argparse.ArgumentParser(
    prog='python -m kernels.conv.static_tpu',
    description='Static figures of the TPU convolutions.',
  )
  parser.add_argument('--topology', default='v5e:2x2', help=', '.join(tpu.TOPOLOGIES))
  parser.add_argument('--case', default='', help='those whose name contains this')
  parser.add_argument('--function', choices=FUNCTIONS, help='that one only')
  parser.add_argument('--compile', nargs=4, help=argparse.SUPPRESS)
  options = parser.parse_args(args)
  if options.compile:
    return _compile(*options.compile)
  print(f'{"case":25s}{"function":17s}{"":4s}', end='')
  print(''.join(f'{name:>12s}' for name in Report._fields))
  for name in CASES:
    if options.case not in name:
      continue
    for function in FUNCTIONS:
      if options.function not in (None, function):
        continue
      for who in WHO:
        try:
          numbers = measure(options.topology, name, function, who)
          line = ''.join(f'{n:12d}' for n in numbers)
        except (RuntimeError, ValueError) as error:
          line = f'  {str(error).splitlines()[-1][:200]}'
        print(f'{name:25s}{function:17s}{who:4s}{line}', flush=True)


if __name__ == '__main__':
  main()
