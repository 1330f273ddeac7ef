"""Times products by XLA and by oneDNN in turns, as they stand in a program.

  python -m kernels.matmul.bench                       the shapes of the README's table
  python -m kernels.matmul.bench --shapes=classes      shapes of all sizes and forms

Each line is a case, the GFLOP/s of both (medians) and the medians of the ratios of the
rounds, oneDNN over XLA, of time by the clock and of time that the cores spent on it.
Other programs beside change the speeds, and the ratio of time by how the threads are
woken; hardly that of the cores' time. A product is timed in a loop of one program,
without the cost of a call from Python. Rows of kernels/matmul/tuned/cpu.json are
written by hand from such lines.
"""

import argparse
import itertools
import sys
import time
from typing import Any, Iterator, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from kernels.matmul.api import product
from kernels.matmul.case import Case, describe
from kernels.onednn import library
from kernels.processor import processor

Array = jax.Array
TABLE = (
  (1, 2048, 2048, 2048), (1, 768, 128, 512), (1, 4096, 384, 1536),
  (1, 4096, 1536, 384), (1, 4096, 384, 384), (1, 1536, 384, 4096), (1, 128, 784, 256),
)  # fmt: skip
# Layers from the smallest to the usual, single rows and columns, batches of products.
CLASSES = (
  (1, 8, 16, 16), (1, 32, 32, 32), (1, 64, 64, 10), (1, 64, 64, 64), (1, 128, 128, 10),
  (1, 128, 128, 128), (1, 512, 128, 128), (1, 4096, 64, 64), (1, 4096, 3, 128),
  (1, 4096, 128, 1), (1, 1, 512, 512), (1, 1, 2048, 2048), (1, 8, 512, 512),
  (1, 1024, 1024, 16), (1, 16384, 16, 96), (1, 1024, 512, 512), (1, 512, 512, 50257),
  (32, 64, 32, 64), (64, 128, 64, 128), (16, 8, 64, 512), (256, 4, 16, 4),
)  # fmt: skip
IMPLEMENTATIONS = ('xla', 'onednn')
FLOPS = 2e8  # Of a timing: a loop of as many products, 1 to 1000.


class Timed(NamedTuple):
  """A case and what was measured.

  Attributes:
    case: of the product.
    seconds: of one product, the median of the rounds, by implementation.
    ratio: median over the rounds of oneDNN's time over XLA's.
    cores: the same of the time that all cores spent.
  """

  case: Case
  seconds: dict[str, float]
  ratio: float
  cores: float

  @property
  def line(self) -> str:
    """For people."""
    c = self.case
    speeds = (f'{n} {2e-9 * c.work / s:.0f}' for n, s in self.seconds.items())
    shape = f'{c.batch} x {c.rows},{c.inner},{c.columns}'
    ratios = f'time {self.ratio:.2f}, cores {self.cores:.2f}'
    return f'{c.dtype} {c.form} {shape}: {", ".join(speeds)} GF/s, {ratios}'


def operands(shape: tuple[int, int, int, int], form: str, dtype: str) -> list[Array]:
  """Two arrays of [batch, M, K] and [batch, K, N] as the form has them."""
  batch, rows, inner, columns = shape
  rng, lead = np.random.default_rng(0), () if batch == 1 else (batch,)
  sizes = ((rows, inner), (inner, columns))
  sizes = (s[::-1] if f == 'T' else s for s, f in zip(sizes, form, strict=True))
  return [jnp.asarray(rng.normal(size=lead + size), dtype) for size in sizes]


def repeated(implementation: str, form: str, turns: int) -> Any:
  """A program of so many equal products, none of which XLA may leave out."""

  def program(a: Array, b: Array) -> Array:
    flags = {'transpose_a': form[0] == 'T', 'transpose_b': form[1] == 'T'}
    once = lambda a, b: product(a, b, implementation=implementation, **flags)

    def body(_, carry):
      a, b, _ = lax.optimization_barrier(carry)
      return a, b, once(a, b)

    return lax.fori_loop(0, turns, body, (a, b, once(a, b)))[2]

  return jax.jit(program)


def measure(
  shape: tuple[int, int, int, int], form: str, dtype: str, rounds: int
) -> Timed:
  """Both implementations in turns."""
  a, b = operands(shape, form, dtype)
  case = describe(a, b, form[0] == 'T', form[1] == 'T', a.dtype)
  turns = int(min(max(FLOPS / (2 * case.work), 1), 1000))
  programs = {name: repeated(name, form, turns) for name in IMPLEMENTATIONS}
  seconds: dict[str, list[float]] = {name: [] for name in programs}
  spent: dict[str, list[float]] = {name: [] for name in programs}
  for program in programs.values():
    jax.block_until_ready(program(a, b))
  for _ in range(rounds):
    for name, program in programs.items():
      start, cores = time.perf_counter(), time.process_time()
      jax.block_until_ready(program(a, b))
      seconds[name].append((time.perf_counter() - start) / (turns + 1))
      spent[name].append(time.process_time() - cores)
  medians = {name: float(np.median(of)) for name, of in seconds.items()}
  return Timed(case, medians, _ratio(seconds), _ratio(spent))


def _ratio(found: dict[str, list[float]]) -> float:
  xla, onednn = (np.array(found[name]) for name in IMPLEMENTATIONS)
  return float(np.median(onednn / xla))


def lines(shapes: str, dtypes: str, rounds: int) -> Iterator[str]:
  """What is measured, line by line."""
  chosen = TABLE if shapes == 'table' else CLASSES
  for dtype, form, shape in itertools.product(
    dtypes.split(','), ('NN', 'NT', 'TN'), chosen
  ):
    yield measure(shape, form, dtype, rounds).line


def main() -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
  parser.add_argument('--shapes', choices=('table', 'classes'), default='table')
  parser.add_argument('--dtypes', default='float32,bfloat16')
  parser.add_argument('--rounds', type=int, default=9)
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')  # No other device is looked for.
  if library.reason():
    print(f'error: oneDNN is not used: {library.reason()}', file=sys.stderr)
    return 1
  print(f'{processor().vendor}, {library.isa()}, jax {jax.__version__}')
  for line in lines(args.shapes, args.dtypes, args.rounds):
    print(line, flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main())
