"""Measures training steps of dlx beside those of its peers, in one run.

  python -m launch.bench --suite=cpu --out=bench.json
  python -m launch.bench --suite=cpu --workloads=mlp,mlp:bfloat16 --rounds=15
  python -m launch.bench --profile=vit
  python -m launch.bench --suite=gpu --out=bench_gpu.json
  python -m launch.bench --suite=mnist --data_dir=DIR --out=mnist.json
  python -m launch.bench --suite=call --out=call.json
  python -m launch.bench --suite=data --out=data.json
  python -m launch.bench --suite=pictures --out=pictures.json
  python -m launch.bench --suite=sweep --out=sweep.json

Every side is a process of its own with the same cores, the same thread count, the same
allocator settings and OMP_WAIT_POLICY=passive (threads of torch that spin would take
the cores of the others). Sides take turns, A B C A B C; a ratio is the median over
rounds of dlx's time over a peer's in the same round, below 1 where dlx is faster. What
is measured is launch/benchmarks/workloads.py; tests show that peers compute the same
losses from the same weights. `pip install -e '.[bench]'` brings the peers; one that is
not installed is left out with a note.

A row of --suite=cpu is a workload in float32, or in bfloat16 with parameters in
float32 (`mlp:bfloat16`), there beside PyTorch's autocast, Flax in bfloat16 and dlx's
own float32. On an AMD processor PyTorch runs twice, the second time with the fast path
of its BLAS, MKL (launch/benchmarks/blas.py): `torch_mkl`, `torch_compile_mkl`.

Prints a table and writes JSON: {"rows": [...], "geometric_means" by dtype,
"limits_gflops", "versions", "machine", "torch", "date", "command"}. A row has
`workload`, `dtype`, `ratio` (to the best peer of all), `best_peer`, `dlx_ms`, `peers`
(name: ms), `ratios`, `over_float32`, `first_step_s` (from the start of the process,
nothing compiled before), `first_step_cached_s`, `peak_mb`, `gflops` (of dlx's step),
`limit_gflops`, `rounds_ms`. The limit is the best square product of any library here
(XLA, NumPy, oneDNN, PyTorch) in the same run, all of which stand in `limits_gflops`.
`machine` has vendor, model, instruction sets and threads, `torch` what PyTorch's BLAS
reports. An --out that is a folder gets a file for each kind of processor.

`--profile=ROW` prints a step of dlx by operation in place of all that, calls of C++
included: time, FLOP/s and bytes/s beside the limits of the machine.

The suite `mnist` is one row: seconds from `python -m launch.train --exp=cnn` to 99 % on
MNIST's test images, beside the same training written in PyTorch; start-up, reading and
evaluations included, three seeds in turns. `call`: seconds until a trained `cnn` that
is opened in a new process has answered, and milliseconds of a warm answer. `data`:
10,000 JPEGs prepared beside Pillow alone, and batches of them beside a plain loop over
the same arrays in memory, PyTorch's DataLoader and Hugging Face's datasets, where they
are installed. `pictures`: JPEGs of 500 x 375 decoded as random parts of 224, images a
second and core, beside Pillow alone, the decoders simplejpeg, imagecodecs and OpenCV,
and PyTorch's DataLoader with torchvision, where they are installed. `sweep`: the 128
runs of `learning_rate_sweep` in one program beside the same runs one after the other in
one process, and how far their figures are apart.
"""

import importlib.util
import os
import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from absl import flags

from dlx.errors import ConfigError
from kernels.processor import processor
from launch.benchmarks import blas, document, sides
from launch.benchmarks.peers import PEERS
from launch.flags import command_line, paths
from launch.machine import devices

if TYPE_CHECKING:
  from launch.benchmarks.rows import Row  # Imports JAX.

ALONE = ('mnist', 'call', 'data', 'pictures', 'sweep')  # Suites of one row.


def define(values: flags.FlagValues):
  """The launcher's flags."""

  def text(name, default, help_):
    flags.DEFINE_string(name, default, help_, values, module_name='launcher')

  flags.DEFINE_enum(
    'suite',
    'cpu',
    ['cpu', 'gpu', *ALONE],
    'cpu: dlx beside its peers. gpu: dlx alone, with model FLOP utilisation. mnist: '
    'seconds to 99 %. call: answers of a trained model. data: pictures and batches. '
    'pictures: JPEGs decoded on demand. sweep: many runs in one program.',
    flag_values=values,
    module_name='launcher',
  )
  paths.define(values, 'data_dir', None, 'For --suite=mnist. Default: $DLX_DATA_DIR.')
  paths.define(
    values,
    'out',
    None,
    'JSON file that is written after every row; in a folder that exists, one of the '
    'suite and the kind of processor, e.g. cpu_amd_avx512_bf16.json.',
  )
  text('workloads', None, 'Some of the rows, e.g. mlp,mlp:bfloat16. Default: all.')
  text('profile', None, 'A row that is profiled by operation instead, e.g. vit.')
  text('peers', None, f'Some of {", ".join(PEERS)}. Default: all that can be had.')
  text('cpus', None, 'Cores that are used, e.g. 0 or 0,1. Default: all allowed.')
  for name, default, help_ in (
    ('rounds', 7, 'Turns of each side.'),
    ('limit_s', 120, 'Seconds after which a side that does not answer is given up.'),
  ):
    flags.DEFINE_integer(
      name, default, help_, lower_bound=1, flag_values=values, module_name='launcher'
    )
  flags.DEFINE_float(
    'seconds',
    0.4,
    'Length of a turn.',
    lower_bound=0.01,
    flag_values=values,
    module_name='launcher',
  )


def chosen(text: str | None, known: Any, flag: str) -> list[str]:
  """Names from a flag; all that are known without one.

  Raises:
    ConfigError: a name that is not known.
  """
  if text is None:
    return list(known)
  names = [name.strip() for name in text.split(',')]
  for name in names:
    if name not in known:
      raise ConfigError(
        f'--{flag}={text}: {name!r} is not allowed: must be some of {", ".join(known)}.'
      )
  return names


def seconds_to_accuracy(values: flags.FlagValues) -> dict[str, Any]:
  """The row of --suite=mnist."""
  from launch.benchmarks import accuracy

  data_dir = values.data_dir or os.environ.get('DLX_DATA_DIR')
  if data_dir is None:
    raise ConfigError('--suite=mnist needs MNIST: give --data_dir or set DLX_DATA_DIR.')
  has_torch = importlib.util.find_spec('torch') is not None
  environ = sides.environment(sorted(os.sched_getaffinity(0)), '')
  row = accuracy.compare(data_dir, environ, seeds=3, torch=has_torch)
  if 'ratio' in row:
    print(f'dlx / torch, median of three: {row["ratio"]:.2f}')
  return row


def alone(values: flags.FlagValues) -> dict[str, Any]:
  """The row of a suite that is one row."""
  if values.suite == 'mnist':
    return seconds_to_accuracy(values)
  if values.suite == 'call':
    from launch.benchmarks import answering

    return answering.measure({})
  if values.suite == 'sweep':
    from launch.benchmarks import sweeping

    return sweeping.measure({})
  if values.suite == 'pictures':
    from launch.benchmarks import decoding

    return decoding.measure(256, 8, values.rounds)
  from launch.benchmarks import reading

  return reading.measure(10_000, 400, values.rounds)


def cores(text: str | None) -> list[int]:
  """Those that --cpus names; without it all that this process may use.

  Raises:
    ConfigError: a core that it may not use, or no number.
  """
  allowed = sorted(os.sched_getaffinity(0))
  if text is None:
    return allowed
  try:
    found = [int(word) for word in text.split(',')]
  except ValueError:
    found = []
  if not found or not set(found) <= set(allowed):
    raise ConfigError(
      f'--cpus={text} is not allowed: must be some of {",".join(map(str, allowed))}.'
    )
  return found


def having(text: str | None, mkl: str | None) -> list[str]:
  """Peers that are asked for and can be had; says which cannot.

  Args:
    text: of --peers.
    mkl: why MKL's fast path cannot be had; None: it can.

  Raises:
    ConfigError: a name that is not known.
  """
  found = []
  for name in chosen(text, PEERS, 'peers'):
    if importlib.util.find_spec(PEERS[name].package) is None:
      print(f'{name} is left out: it is not installed (pip install .[bench]).')
    elif PEERS[name].mkl and mkl is not None:
      print(f'{name} is left out: {mkl}.')
    else:
      found.append(name)
  return found


def torch_reports(preload: Mapping[str, str], cpus: Sequence[int]) -> dict[str, Any]:
  """What PyTorch's BLAS says of itself, and with MKL's fast path; {}: no PyTorch."""
  if importlib.util.find_spec('torch') is None:
    return {}
  environ = sides.environment(cpus, '')
  found = {'plain': blas.report(environ)}
  return found | ({'mkl': blas.report({**environ, **preload})} if preload else {})


def preloaded(folder: str) -> tuple[dict[str, str], str | None]:
  """(variables of MKL's fast path, None), or ({}, why it cannot be had)."""
  try:
    return blas.preload(folder, processor().vendor), None
  except blas.NotPossible as error:
    return {}, str(error)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values = command_line.parse_alone(argv, define, __doc__ or '')
  what = values.suite
  if values.profile is not None:
    if values.suite != 'cpu':
      raise ConfigError(
        f'--suite={values.suite} is not allowed with --profile={values.profile}: must '
        'be cpu, the default.'
      )
    what = f'profile_{values.profile.replace(":", "_")}'
  out = None if values.out is None else document.place(values.out, what)
  cpus = cores(values.cpus)
  with tempfile.TemporaryDirectory() as folder:
    preload, why = preloaded(folder)
    if values.suite in ALONE:
      reports = torch_reports(preload, cpus)
      rows = [alone(values)]
      if out is not None:
        document.write(out, document.document(rows, argv, torch=reports, cpus=cpus))
      return 0
    return suite(values, argv, out, cpus, preload, why)


def suite(
  values: flags.FlagValues,
  argv: list[str],
  out: pathlib.Path | None,
  cpus: list[int],
  preload: dict[str, str],
  why: str | None,
) -> int:
  """The suites of many rows; see `main`."""
  from launch.benchmarks import product_side, workloads
  from launch.benchmarks.rows import Row, dtypes, every

  gpu = values.suite == 'gpu'
  known = {n: Row(n, 'bfloat16') for n in workloads.WORKLOADS} if gpu else every()
  flag = 'workloads' if values.profile is None else 'profile'
  wanted = [known[name] for name in chosen(getattr(values, flag), known, flag)]
  peers = [] if gpu or values.profile is not None else having(values.peers, why)
  reports = {} if values.profile is not None else torch_reports(preload, cpus)
  with tempfile.NamedTemporaryFile('w+', suffix='.log', delete=False) as log:
    bench = sides.Bench(
      cpus=cpus,
      num_rounds=values.rounds,
      seconds=values.seconds,
      limit_s=values.limit_s,
      allocator=not gpu,
      preload=preload,
      log=log,
    )
    limits: dict[str, dict[str, float]] = {}

    def tell(notes):
      for note in notes:
        print(f'{note}; see {log.name}', flush=True)

    for dtype in dtypes(wanted):
      libraries = ['xla'] if gpu else product_side.here(dtype)
      limits[dtype], notes = bench.limits(dtype, libraries)
      tell(notes)
      of = ', '.join(f'{name} {x:.0f}' for name, x in limits[dtype].items())
      print(f'products of {dtype}, GFLOP/s: {of}', flush=True)
    if values.profile is not None:
      made = profile(bench, wanted[0], document.limit(limits[wanted[0].dtype]))
      if out is not None:
        found = document.document([], argv, limits, cpus=cpus)
        document.write(out, {**found, 'profile': made})
      return 0
    rows: list[dict[str, Any]] = []
    found = document.document(rows, argv, limits, reports, cpus)
    for row in wanted:
      fields = workloads.ACCELERATOR[row.workload] if gpu else row.fields
      narrow = not gpu and row.dtype == 'bfloat16'
      beside = [peer for peer in peers if row.has(peer)]
      made, notes = bench.row(row.workload, row.dtype, fields, beside, narrow)
      made['name'] = row.workload if gpu else row.name
      tell(notes)
      rows.append(made)
      found = document.document(rows, argv, limits, reports, cpus)
      last = document.table(found['rows'][-1:], peers).splitlines()[-1]
      print(last, flush=True)
      if out is not None:
        document.write(out, found)
  print(document.summary(found))
  return 0


def profile(bench: sides.Bench, row: 'Row', limit: float) -> dict[str, Any]:
  """--profile: prints a step of a row by operation, beside the machine's limits."""
  from launch.benchmarks import operations

  bandwidth = bench.bandwidth()
  found = bench.profile(row.workload, row.fields)
  print(operations.table(found['operations'], found['step_ms'], limit, bandwidth))
  return {'row': row.name, 'memory_gb_s': bandwidth, **found}


if __name__ == '__main__':
  sys.exit(main(sys.argv))
