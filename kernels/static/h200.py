"""Kernels compiled for an H200 where there is none: what ptxas makes of them.

The wheels jax-cuda13-plugin and jax-cuda13-pjrt (of jaxlib's version, without their
dependencies) hold XLA's and Mosaic GPU's compilers and need no driver; ptxas is of a
CUDA toolkit. `compile_for_h200` compiles in this process, whose own devices stay as
they are: the topology of kernels/static/h200.txtpb is no backend. `python -m
kernels.static.h200` prints the table for the attention kernels.
"""

import collections
import contextlib
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
from typing import Any, Callable, Iterator, NamedTuple

import jax
from jax.experimental import topologies

from kernels.attention import mosaic_gpu, mosaic_gpu_backward
from kernels.attention.case import Case, Operands

TARGET = pathlib.Path(__file__).with_name('h200.txtpb')
SHARED_MEMORY_LIMIT = 227 * 1024  # Bytes of a block's shared memory.
# The low 12 bits of an instruction of sm_90 (of 16 bytes). Found by compiling PTX of
# known instructions and compared with nvdisasm 13.2; tests do the former again.
HGMMA, HMMA = (0x9F0, 0xDF0), (0x23C,)


class NoCompiler(RuntimeError):
  """The wheels, or ptxas, are missing; the message says how to get them."""


class Kernel(NamedTuple):
  """What ptxas says of a kernel.

  Attributes:
    name: of its entry.
    registers: a thread, at launch: setmaxnreg moves them between warpgroups later.
    spill_bytes: of stores and loads to the stack.
    hgmma: instructions of the warpgroup's matrix unit (wgmma) in the program.
    hmma: those of the matrix instructions before Hopper.
    instructions: in all.
    shared_bytes: of shared memory a block.
  """

  name: str
  registers: int
  spill_bytes: int
  hgmma: int
  hmma: int
  instructions: int
  shared_bytes: int


class Report(NamedTuple):
  """Attributes:
  kernels: in the order of compilation.
  temp_bytes: of device memory beside arguments and results.
  """

  kernels: tuple[Kernel, ...]
  temp_bytes: int


def toolkit() -> pathlib.Path:
  """The CUDA toolkit: the folder that holds bin/ptxas.

  Raises:
    NoCompiler: there is none, or the wheels are missing.
  """
  for name in ('jax_cuda13_plugin', 'jax_plugins.xla_cuda13'):
    try:
      found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
      found = None
    if found is None:
      raise NoCompiler(
        'The CUDA plugin of JAX is missing: pip install --no-deps '
        f'jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt=={jax.__version__}'
      )
  places = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
  if on_path := shutil.which('ptxas'):
    places.append(str(pathlib.Path(on_path).resolve().parent.parent))
  for place in places:
    if place and (pathlib.Path(place) / 'bin' / 'ptxas').exists():
      return pathlib.Path(place)
  raise NoCompiler(
    'ptxas is missing: install a CUDA 13 toolkit in /usr/local/cuda, or put its bin on '
    'PATH, or set CUDA_HOME.'
  )


def compile_for_h200(function: Callable[..., Any], *shapes: Any) -> Report:
  """Compiles a function for one H200.

  Args:
    function: of arrays; jitted here.
    *shapes: its arguments as trees of jax.ShapeDtypeStruct (None where it takes None).

  Raises:
    NoCompiler: the wheels or ptxas are missing.
    ValueError: of Mosaic GPU, of a kernel that asks for too much shared memory.
  """
  cuda = toolkit()
  topology = topologies.get_topology_desc(
    platform='cuda', target_config=TARGET.read_text(), topology='1x1x1'
  )
  mesh = topologies.make_mesh(topology, (1,), ('x',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  there = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  args = jax.tree.map(there, shapes)
  with tempfile.TemporaryDirectory() as folder, _dumps(folder):
    options: dict[str, Any] = {'xla_gpu_cuda_data_dir': str(cuda)}
    compiled = jax.jit(function).lower(*args).compile(compiler_options=options)
    memory: Any = compiled.memory_analysis()
    kernels = [
      _kernel(cuda, path)
      for path in sorted(pathlib.Path(folder).glob('*.ptx'), key=_number)
    ]
  return Report(tuple(kernels), memory.temp_size_in_bytes)


@contextlib.contextmanager
def _dumps(folder: str) -> Iterator[None]:
  """Mosaic GPU writes its PTX there; it reads these variables at every compilation."""
  wanted = {'MOSAIC_GPU_DUMP_TO': folder, 'MOSAIC_GPU_DUMP_PTX': '1'}
  before = {name: os.environ.get(name) for name in wanted}
  os.environ.update(wanted)
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name)
      if value is not None:
        os.environ[name] = value


def _number(path: pathlib.Path) -> int:
  return int(path.stem.rsplit('_', 1)[-1])


def _kernel(cuda: pathlib.Path, ptx: pathlib.Path) -> Kernel:
  log = ptx.with_name(ptx.stem + '.mlir-passes.log').read_text()
  found = re.search(r'dynamic_shared_memory_size %c(\d+)', log)
  return assemble(cuda, ptx, int(found.group(1)) if found else 0)


def assemble(cuda: pathlib.Path, ptx: pathlib.Path, shared_bytes: int = 0) -> Kernel:
  """What ptxas says of a file of PTX with one entry."""
  cubin = ptx.with_suffix('.cubin')
  ran = subprocess.run(
    [cuda / 'bin' / 'ptxas', '-v', '-arch=sm_90a', ptx, '-o', cubin],
    capture_output=True,
    text=True,
    check=True,
  )
  numbers = lambda pattern: [int(n) for n in re.findall(pattern, ran.stderr)]
  (name,) = re.findall(r'\.entry (\w+)', ptx.read_text())
  counts = opcodes(cubin.read_bytes())
  return Kernel(
    name=name.removesuffix('_mosaic_gpu_kernel'),
    registers=max(numbers(r'Used (\d+) registers')),
    spill_bytes=sum(numbers(r'(\d+) bytes spill (?:stores|loads)')),
    hgmma=sum(counts[code] for code in HGMMA),
    hmma=sum(counts[code] for code in HMMA),
    instructions=counts.total(),
    shared_bytes=shared_bytes,
  )


def opcodes(cubin: bytes) -> collections.Counter[int]:
  """How often each instruction stands in the .text sections of a cubin (ELF 64)."""
  (start,) = struct.unpack_from('<Q', cubin, 0x28)
  size, n, names = struct.unpack_from('<HHH', cubin, 0x3A)
  sections = [struct.unpack_from('<IIQQQQ', cubin, start + i * size) for i in range(n)]
  counts: collections.Counter[int] = collections.Counter()
  for name, _, _, _, offset, length in sections:
    if cubin[sections[names][4] + name :].startswith(b'.text'):
      for place in range(offset, offset + length, 16):
        counts[struct.unpack_from('<H', cubin, place)[0] & 0xFFF] += 1
  return counts


def table(reports: dict[str, Report]) -> str:
  """A line of each kernel."""
  lines = ['| kernel | registers | spill | HGMMA | HMMA | instructions | smem | temp |']
  lines.append('|' + ' --- |' * 8)
  for name, report in reports.items():
    for k in report.kernels:
      numbers = (k.registers, k.spill_bytes, k.hgmma, k.hmma, k.instructions)
      columns = (f'{name} {k.name}', *numbers, k.shared_bytes, report.temp_bytes)
      lines.append('| ' + ' | '.join(map(str, columns)) + ' |')
  return '\n'.join(lines)


def both_ways(case: Case, operands: Operands, lse: Any, do: Any) -> Any:
  """Attention and its slopes, of the Mosaic GPU kernels."""
  forward = mosaic_gpu.forward(case, operands)
  slopes = mosaic_gpu_backward.backward(case, operands, do, lse, do, None)
  return forward, slopes


def attention_cases() -> dict[str, tuple[Any, ...]]:
  """Cases of attention by name, each with the shapes that `both_ways` takes."""
  cases = {
    f'd{head_dim}{" causal" if causal else ""}': Case(
      2, 1024, 1024, 8, 8, head_dim, 'bfloat16', scale=head_dim**-0.5, causal=causal
    )
    for head_dim in mosaic_gpu.HEAD_DIMS
    for causal in (False, True)
  }
  plain = cases['d128']
  cases['d128 ragged'] = plain._replace(q_len=1001, kv_len=1003)
  cases['d128 window'] = plain._replace(window=(100, 50))
  cases['d128 segments, gqa'] = plain._replace(kv_heads=2, segments=True)
  cases['d128 dropout'] = plain._replace(dropout_rate=0.1)
  cases['d128 cap'] = plain._replace(soft_cap=30.0)
  cases['d128 bias'] = plain._replace(bias=(1, 8, 1024, 1024))
  cases['d128 all'] = plain._replace(
    window=(100, 50),
    segments=True,
    bias=(1, 8, 1024, 1024),
    soft_cap=30.0,
    dropout_rate=0.1,
  )
  cases['d32 bias'] = cases['d32']._replace(bias=(1, 8, 1024, 1024))
  return {name: (case, *_shapes(case)) for name, case in cases.items()}


def _shapes(case: Case) -> tuple[Any, ...]:
  array: Any = lambda *shape, dtype='bfloat16': jax.ShapeDtypeStruct(shape, dtype)
  q = array(case.batch, case.q_len, case.q_heads, case.head_dim)
  k = array(case.batch, case.kv_len, case.kv_heads, case.head_dim)
  operands = Operands(q, k, k)
  if case.bias is not None:
    operands = operands._replace(bias=array(*case.bias))
  if case.segments:
    segments = (case.batch, case.q_len), (case.batch, case.kv_len)
    q_segment, kv_segment = (array(*shape, dtype='int32') for shape in segments)
    operands = operands._replace(q_segment_BL=q_segment, kv_segment_BM=kv_segment)
  if case.dropout_rate:
    operands = operands._replace(seed=array(2, dtype='uint32'))
  return operands, array(case.batch, case.q_heads, case.q_len, dtype='float32'), q


if __name__ == '__main__':
  reports = {}
  for label, (wanted, *arguments) in attention_cases().items():
    function = functools.partial(both_ways, wanted)
    reports[label] = compile_for_h200(function, *arguments)
  print(table(reports))
