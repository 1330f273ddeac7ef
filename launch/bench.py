"""Measures training steps of dlx beside those of its peers, in one run.

  python -m launch.bench --suite=cpu --out=bench.json
  python -m launch.bench --suite=cpu --workloads=mlp,vae --rounds=15
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

Prints a table and writes JSON: {"rows": [...], "geometric_mean", "versions", "machine",
"date", "command"}; a row has `workload`, `ratio` (to the best peer), `best_peer`,
`dlx_ms`, `peers` (name: ms), `ratios`, `first_step_s` (from the start of the process,
nothing compiled before), `first_step_cached_s`, `peak_mb`, `gflops` (of dlx's step),
`limit_gflops` (matrix products of 1024 in the same run), `rounds_ms`.

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

import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.benchmarks import rounds
from launch.flags import command_line, paths
from launch.machine import devices

PEERS = {'torch': 'torch', 'torch_compile': 'torch', 'flax': 'flax', 'keras': 'keras'}
LIBRARIES = (
  'jax',
  'jaxlib',
  'flax',
  'grain',
  'optax',
  'torch',
  'keras',
  'datasets',
  'numpy',
)


def define(values: flags.FlagValues):
  """The launcher's flags."""

  def text(name, default, help_):
    flags.DEFINE_string(name, default, help_, values, module_name='launcher')

  flags.DEFINE_enum(
    'suite',
    'cpu',
    ['cpu', 'gpu', 'mnist', 'call', 'data', 'pictures', 'sweep'],
    'cpu: dlx beside its peers. gpu: dlx alone, with model FLOP utilisation. mnist: '
    'seconds to 99 %. call: answers of a trained model. data: pictures and batches. '
    'pictures: JPEGs decoded on demand. sweep: many runs in one program.',
    flag_values=values,
    module_name='launcher',
  )
  paths.define(values, 'data_dir', None, 'For --suite=mnist. Default: $DLX_DATA_DIR.')
  paths.define(values, 'out', None, 'JSON file that is written after every row.')
  text('workloads', None, 'Some of the workloads, e.g. mlp,vae. Default: all.')
  text('peers', None, f'Some of {", ".join(PEERS)}. Default: all that are installed.')
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


def environment(cpus: list[int], cache: str) -> dict[str, str]:
  """Variables of every side; `cache` is the folder of compiled JAX programs."""
  threads = str(len(cpus))
  return {
    'OMP_NUM_THREADS': threads,
    'MKL_NUM_THREADS': threads,
    'OMP_WAIT_POLICY': 'passive',
    'KERAS_BACKEND': 'jax',
    'TF_CPP_MIN_LOG_LEVEL': '3',
    'JAX_COMPILATION_CACHE_DIR': cache,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


class Bench:
  """What is the same for all rows: where sides run, for how long, what they say."""

  def __init__(self, values: flags.FlagValues, log):
    self.rounds, self.seconds = values.rounds, values.seconds
    self.limit_s, self.gpu = values.limit_s, values.suite == 'gpu'
    allowed = sorted(os.sched_getaffinity(0))
    self.cpus = allowed
    if values.cpus is not None:
      try:
        self.cpus = [int(word) for word in values.cpus.split(',')]
      except ValueError:
        self.cpus = []
      if not self.cpus or not set(self.cpus) <= set(allowed):
        raise ConfigError(
          f'--cpus={values.cpus} is not allowed: must be some of '
          f'{",".join(map(str, allowed))}.'
        )
    self._log = log

  def start(self, asked: dict[str, Any], cache: str) -> rounds.Process:
    return rounds.Process(
      {'allocator': not self.gpu, **asked},
      environ=environment(self.cpus, cache),
      cpus=self.cpus,
      limit_s=self.limit_s,
      log=self._log,
    )

  def limit_gflops(self, dtype: str) -> float:
    """GFLOP/s of square matrix products: what the machine gives at best."""
    with tempfile.TemporaryDirectory() as cache:
      with self.start({'side': 'gemm', 'workload': dtype}, cache) as process:
        timed = rounds.interleave({'gemm': process}, rounds=5, seconds=self.seconds)
        return process.ready['flops'] / min(timed['gemm'].seconds) / 1e9

  def row(self, workload: str, fields: dict[str, Any], peers: list[str]):
    """(a row of the table, notes on peers that are missing in it)."""
    notes = []
    running: dict[str, rounds.Process] = {}
    asked = {'workload': workload, 'fields': fields}
    with tempfile.TemporaryDirectory() as cache:
      with self.start({**asked, 'side': 'dlx'}, cache) as cold:
        first_step_s = cold.start_s
      try:
        for side in ('dlx', *peers):
          try:
            running[side] = self.start({**asked, 'side': side}, cache)
          except rounds.Broken as error:
            if side == 'dlx':
              raise
            notes.append(f'{workload}: {side} is left out: {error}')
        timed = rounds.interleave(running, rounds=self.rounds, seconds=self.seconds)
        ready = {name: process.ready for name, process in running.items()}
        start_s = {name: process.start_s for name, process in running.items()}
      finally:
        for process in running.values():
          process.close()
    ours = timed.pop('dlx')
    ms = lambda seconds: 1e3 * statistics.median(seconds)
    flops = ready['dlx']['flops']
    row = {
      'workload': workload,
      'dlx_ms': ms(ours.seconds),
      'first_step_s': first_step_s,
      'first_step_cached_s': start_s['dlx'],
      'peak_mb': ours.peak_mb,
      'cpu_share': ours.cpu_share,
      'steps_per_dispatch': ours.steps,
      'flops': flops,
      'gflops': None if flops is None else flops / ms(ours.seconds) / 1e6,
      'rounds_ms': {'dlx': [1e3 * s for s in ours.seconds]},
      'fields': fields,
    }
    if timed:
      best = min(timed, key=lambda name: statistics.median(timed[name].seconds))
      ratios = {n: rounds.ratio(ours.seconds, t.seconds) for n, t in timed.items()}
      row |= {
        'ratio': ratios[best],
        'best_peer': best,
        'ratios': ratios,
        'peers': {name: ms(t.seconds) for name, t in timed.items()},
        'peers_peak_mb': {name: t.peak_mb for name, t in timed.items()},
        'peers_first_step_s': {name: start_s[name] for name in timed},
      }
      row['rounds_ms'] |= {n: [1e3 * s for s in t.seconds] for n, t in timed.items()}
    return row, notes


def seconds_to_accuracy(values: flags.FlagValues) -> dict[str, Any]:
  """The row of --suite=mnist."""
  from launch.benchmarks import accuracy

  data_dir = values.data_dir or os.environ.get('DLX_DATA_DIR')
  if data_dir is None:
    raise ConfigError('--suite=mnist needs MNIST: give --data_dir or set DLX_DATA_DIR.')
  has_torch = importlib.util.find_spec('torch') is not None
  environ = environment(sorted(os.sched_getaffinity(0)), '')
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


def document(rows: list[dict[str, Any]], limit: float | None, argv: list[str]) -> dict:
  """All that is written to --out."""
  ratios = [row['ratio'] for row in rows if 'ratio' in row]
  if limit is not None:
    rows = [row | {'limit_gflops': limit} for row in rows]
  mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
  return {
    'rows': rows,
    'geometric_mean': mean,
    'versions': versions(),
    'machine': machine(),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': ' '.join(['python -m launch.bench', *argv[1:]]),
  }


def versions() -> dict[str, str]:
  """Of Python and of the libraries that are installed."""
  found = {'python': platform.python_version()}
  for name in LIBRARIES:
    if importlib.util.find_spec(name) is not None:
      found[name] = importlib.metadata.version(name)
  return found


def machine() -> dict[str, Any]:
  """Processor, cores, load at the end."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  names = [line.partition(':')[2].strip() for line in lines if 'model name' in line]
  return {
    'processor': names[0] if names else platform.processor(),
    'cpus': len(os.sched_getaffinity(0)),
    'load': os.getloadavg()[0],
  }


def table(rows: list[dict[str, Any]], peers: list[str], limit: float) -> str:
  """Markdown."""
  heads = ['workload', 'ratio', 'dlx ms', *(f'{name} ms' for name in peers)]
  heads += ['first step s', 'cached s', 'peak MB', 'GFLOP/s', 'of limit']
  lines = [
    '| ' + ' | '.join(heads) + ' |',
    '| ' + ' | '.join(['---'] * len(heads)) + ' |',
  ]
  for row in rows:
    times = [row.get('peers', {}).get(name) for name in peers]
    cells = [row['workload'], f'{row["ratio"]:.2f}' if 'ratio' in row else '-']
    cells += [f'{row["dlx_ms"]:.3g}']
    cells += ['-' if t is None else f'{t:.3g}' for t in times]
    cells += [f'{row["first_step_s"]:.1f}', f'{row["first_step_cached_s"]:.1f}']
    gflops = row['gflops']
    cells += [f'{row["peak_mb"]:.0f}', '-' if gflops is None else f'{gflops:.0f}']
    cells += ['-' if gflops is None else f'{100 * gflops / limit:.0f} %']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values = command_line.parse_alone(argv, define, __doc__ or '')
  from launch.benchmarks import workloads

  names = chosen(values.workloads, workloads.WORKLOADS, 'workloads')
  peers = []
  if values.suite == 'cpu':
    for name in chosen(values.peers, PEERS, 'peers'):
      if importlib.util.find_spec(PEERS[name]) is not None:
        peers.append(name)
      else:
        print(f'{name} is left out: it is not installed (pip install .[bench]).')
  out = None if values.out is None else pathlib.Path(values.out)
  if values.suite in ('mnist', 'call', 'data', 'pictures', 'sweep'):
    rows = [alone(values)]
    if out is not None:
      out.write_text(json.dumps(document(rows, None, argv), indent=1) + '\n')
    return 0
  with tempfile.NamedTemporaryFile('w+', suffix='.log', delete=False) as log:
    bench = Bench(values, log)
    limit = bench.limit_gflops('bfloat16' if bench.gpu else 'float32')
    rows: list[dict[str, Any]] = []
    for name in names:
      fields = workloads.ACCELERATOR[name] if bench.gpu else {}
      having = [p for p in peers if name in workloads.ONLY.get(p, names)]
      row, notes = bench.row(name, fields, having)
      rows.append(row)
      for note in notes:
        print(f'{note}; see {log.name}', flush=True)
      print(table([row], peers, limit).splitlines()[-1], flush=True)
      if out is not None:
        text = json.dumps(document(rows, limit, argv), indent=1)
        out.write_text(text + '\n', encoding='utf-8')
  found = document(rows, limit, argv)
  print(table(rows, peers, limit))
  if found['geometric_mean'] is not None:
    print(f'geometric mean of the ratios: {found["geometric_mean"]:.3f}')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
