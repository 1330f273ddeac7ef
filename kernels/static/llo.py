"""Static figures of TPU attention kernels: ours, and JAX's splash attention beside it.

    python -m kernels.static.llo
    python -m kernels.static.llo --topology v5e:2x2 --direction backward

libtpu writes the instruction bundles of a kernel when it compiles it, also without a
TPU; each compilation runs in a process of its own, since the flags that ask for the
listing are read once. Both kernels have tiles of --block queries by --block keys.

One bundle is one cycle if nothing stalls. A listing has the work before, in and after a
tile once, and no waits for memory: its length is no time, and ranks kernels of the same
tile, no more. `tile` is the longest run of it without a branch target. Fills and spills
are loads and stores of registers that did not fit.

The flags and the form of the listing are undocumented: found with libtpu 0.0.42.1.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Iterator, NamedTuple, Sequence

from kernels.static import tpu

KERNELS = ('dlx', 'splash')
DIRECTIONS = ('forward', 'backward')
_BUNDLE = re.compile(r'^\s*(0x[0-9a-f]+|0)\s+((?:[A-Z]{2} ?)*)\s*:\s*>*\s*\{')
_LISTING = re.compile(r'^\d+-(.+?)\.?\d*-\d+-final_bundles\.txt$')
_SLOTS = '*-{name}-*-final_hlo-static-per-bundle-utilization.txt'


class Listing(NamedTuple):
  """Of one kernel.

  Attributes:
    name: of the kernel.
    bundles: of the whole program.
    tile: the longest run of them without a branch target.
    slots: how many instructions, by unit; 'VLOAD:FILL' and 'VSTORE:SPILL' are those of
      registers that did not fit, counted among VLOAD and VSTORE too.
  """

  name: str
  bundles: int
  tile: int
  slots: dict[str, int]

  @property
  def fills(self) -> int:
    return self.slots.get('VLOAD:FILL', 0)

  @property
  def spills(self) -> int:
    return self.slots.get('VSTORE:SPILL', 0)


def parse_bundles(text: str) -> tuple[int, int]:
  """(bundles, those of the longest run without a branch target) of a listing."""
  runs = [0]
  for line in text.splitlines():
    if found := _BUNDLE.match(line):
      if found.group(2).strip():  # LB: a loop's start; PF: where a predicate jumps to.
        runs.append(0)
      runs[-1] += 1
  return sum(runs), max(runs)


def parse_slots(text: str) -> dict[str, int]:
  """Sums of the columns of a table of slots used by each bundle; zeros left out."""
  lines = text.splitlines()
  units = next(line.split(',') for line in lines if line.startswith('MXU'))
  start = next(n for n, line in enumerate(lines) if line.startswith('== UTIL'))
  rows = [list(map(int, line.split())) for line in lines[start + 1 :] if line.strip()]
  sums = [sum(column) for column in zip(*rows)]
  return {unit.strip(): n for unit, n in zip(units, sums) if n}


def read(folder: pathlib.Path, part: str) -> list[Listing]:
  """Of the kernels in a dump whose name contains `part`, by name."""
  found = []
  for file in sorted(folder.iterdir(), key=lambda file: file.name.split('-', 1)[-1]):
    match = _LISTING.match(file.name)
    if not match or part not in match.group(1) or 'schedule-' in file.name:
      continue
    full = file.name.split('-', 1)[1].rsplit('-', 2)[0]
    slots = next(folder.glob(_SLOTS.format(name=full)))
    bundles, tile = parse_bundles(file.read_text())
    found.append(Listing(match.group(1), bundles, tile, parse_slots(slots.read_text())))
  return found


def measure(
  kernel: str,
  direction: str,
  topology: str,
  block: int = 512,
  heads: int = 8,
  length: int = 4096,
  head_dim: int = 128,
) -> list[Listing]:
  """Compiles causal attention of bfloat16 [1, length, heads, head_dim] in a process.

  Args:
    kernel: 'dlx' or 'splash'.
    direction: 'forward' (with log sums) or 'backward' (the two kernels of it).
    topology: see kernels/static/tpu.py.
    block: queries and keys of a tile.

  Raises:
    tpu.NoCompiler: libtpu is missing.
    RuntimeError: the compilation failed, with its last lines.
  """
  words = [kernel, direction, topology, *map(str, (block, heads, length, head_dim))]
  with listings('kernels.static.llo', topology, words) as (folder, _):
    return read(folder, f'{kernel}_')


@contextlib.contextmanager
def listings(
  module: str, topology: str, words: Sequence[str]
) -> Iterator[tuple[pathlib.Path, str]]:
  """(folder with libtpu's listings, what was printed) of `module --compile words`.

  A process of its own, since libtpu reads its flags once.

  Raises:
    tpu.NoCompiler: libtpu is missing.
    RuntimeError: the compilation failed, with its last lines.
  """
  tpu.topology(topology)
  with tempfile.TemporaryDirectory() as folder:
    flags = (
      f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true '
      '--xla_jf_emit_annotations=true --xla_jf_debug_level=2'
    )
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'LIBTPU_INIT_ARGS': flags}
    done = subprocess.run(
      [sys.executable, '-m', module, '--compile', *words],
      env=environment,
      cwd=pathlib.Path(__file__).parents[2],
      capture_output=True,
      text=True,
    )
    if done.returncode:
      raise RuntimeError(f'compiling {words} failed: {done.stderr[-2000:]}')
    yield pathlib.Path(folder), done.stdout


def _compile(words: Sequence[str]) -> None:
  """In the process of its own: compiles, so that libtpu writes its listings."""
  import jax
  import jax.numpy as jnp

  kernel, direction, topology, *numbers = words
  block, heads, length, head_dim = map(int, numbers)
  attend = {'dlx': _ours, 'splash': _splash}[kernel](block, heads, length, head_dim)
  pull = lambda q, k, v, slope: jax.vjp(attend, q, k, v)[1](slope)
  x = jax.ShapeDtypeStruct((heads, length, head_dim), jnp.bfloat16)
  if direction == 'forward':
    tpu.compile_for(topology, attend, x, x, x)
  else:
    tpu.compile_for(topology, pull, x, x, x, x)


def _ours(block: int, heads: int, length: int, head_dim: int):
  import jax

  from kernels.attention import mosaic_tpu, mosaic_tpu_backward
  from kernels.attention.case import Case, Operands

  case = Case(1, length, length, heads, heads, head_dim, 'bfloat16', causal=True)
  case = case._replace(scale=head_dim**-0.5)
  config = dict(block_q=block, block_kv=block)
  there = lambda x: x.transpose(1, 0, 2)[None]  # [H, L, K] to [1, L, H, K]
  back = lambda x: x[0].transpose(1, 0, 2)

  @jax.custom_vjp
  def attend(q, k, v):
    return keep(q, k, v)[0]

  def keep(*heads_first):
    operands = Operands(*map(there, heads_first))
    o, lse = mosaic_tpu.forward(case, operands, config=config)
    return back(o), (operands, o, lse)

  def pull(kept, slope):
    operands, o, lse = kept
    slopes = mosaic_tpu_backward.backward(
      case, operands, o, lse, there(slope), None, config=config
    )
    return tuple(map(back, slopes))

  attend.defvjp(keep, pull)
  return attend


def _splash(block: int, heads: int, length: int, head_dim: int):
  import importlib
  import warnings

  del head_dim
  warnings.simplefilter('ignore')
  package = 'jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_'
  splash = importlib.import_module(package + 'kernel')
  mask = importlib.import_module(package + 'mask')
  names = ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq')
  sizes = {f'block_{name}': block for name in (*names, 'kv_dq')}
  masks = mask.MultiHeadMask([mask.CausalMask((length, length))] * heads)
  return splash.make_splash_mha(
    masks, head_shards=1, q_seq_shards=1, block_sizes=splash.BlockSizes(**sizes)
  )


def main(args: Sequence[str] | None = None):
  """Prints a line a kernel; with no topology named, of every generation."""
  parser = argparse.ArgumentParser(
    prog='python -m kernels.static.llo', description='Static figures of TPU attention.'
  )
  parser.add_argument(
    '--topology', nargs='+', default=tpu.TOPOLOGIES, help='default: %(default)s'
  )
  parser.add_argument('--direction', choices=DIRECTIONS, default='forward')
  parser.add_argument('--block', type=int, default=512)
  parser.add_argument('--heads', type=int, default=8)
  parser.add_argument('--length', type=int, default=4096)
  parser.add_argument('--head_dim', type=int, default=128)
  parser.add_argument('--compile', nargs='+', help=argparse.SUPPRESS)
  options = parser.parse_args(args)
  if options.compile:
    _compile(options.compile)
    return
  units = ('MXU', 'XLU', 'VALU', 'EUP')
  heading = ('bundles', 'tile', 'fills', 'spills', *units)
  show = lambda topology, name, numbers: print(
    f'{topology:12s}{name:34s}' + ''.join(f'{n:>9}' for n in numbers), flush=True
  )
  show('topology', 'kernel', heading)
  for topology, kernel in itertools.product(options.topology, KERNELS):
    for listing in measure(
      kernel, options.direction, topology, options.block, options.heads,
      options.length, options.head_dim,
    ):  # fmt: skip
      numbers = (listing.bundles, listing.tile, listing.fills, listing.spills)
      numbers += tuple(listing.slots.get(unit, 0) for unit in units)
      # Without what a derivative's name begins and ends with.
      name = listing.name[listing.name.index(f'{kernel}_') :].rstrip('_')
      show(topology, name, numbers)


if __name__ == '__main__':
  main()
