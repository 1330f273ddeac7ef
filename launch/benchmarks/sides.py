"""Sides of the bench as processes: their environment, their limits, a row of them."""

import contextlib
import statistics
import tempfile
from typing import Any, Mapping, Sequence

from launch.benchmarks import rounds
from launch.benchmarks.peers import PEERS


def environment(cpus: Sequence[int], cache: str) -> dict[str, str]:
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
  """What is the same for all rows: where sides run, for how long, what they say.

  Attributes:
    cpus: cores that every side runs on.
  """

  def __init__(
    self,
    *,
    cpus: Sequence[int],
    num_rounds: int,
    seconds: float,
    limit_s: float,
    allocator: bool,
    preload: Mapping[str, str],
    log,
  ):
    """Starts nothing.

    Args:
      cpus: cores of every side.
      num_rounds: turns of each side.
      seconds: of a turn.
      limit_s: after which a side that does not answer is given up.
      allocator: whether glibc's is set as dlx sets it, for all sides.
      preload: variables under which MKL takes its fast path; {}: it cannot be had.
      log: a file for what sides print.
    """
    self.cpus = list(cpus)
    self._rounds, self._seconds, self._limit_s = num_rounds, seconds, limit_s
    self._allocator, self._preload, self._log = allocator, dict(preload), log

  def start(
    self, asked: Mapping[str, Any], cache: str, mkl: bool = False
  ) -> rounds.Process:
    """A side; `mkl`: with MKL's fast path.

    Raises:
      Broken: it cannot be built.
    """
    environ = environment(self.cpus, cache) | (self._preload if mkl else {})
    return rounds.Process(
      {'allocator': self._allocator, **asked},
      environ=environ,
      cpus=self.cpus,
      limit_s=self._limit_s,
      log=self._log,
    )

  def limits(
    self, dtype: str, libraries: Sequence[str]
  ) -> tuple[dict[str, float], list[str]]:
    """GFLOP/s of square matrix products by library, in turns; notes on missing ones.

    Of torch's library a second time with MKL's fast path, where that can be had.
    """
    asked = {name: (name, False) for name in libraries}
    if self._preload and 'torch' in asked and dtype == 'float32':
      asked['torch_mkl'] = ('torch', True)
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as cache, contextlib.ExitStack() as held:
      running = {}
      for name, (library, mkl) in asked.items():
        fields = {'library': library}
        side = {'side': 'product', 'workload': dtype, 'fields': fields}
        try:
          running[name] = held.enter_context(self.start(side, cache, mkl))
        except rounds.Broken as error:
          notes.append(f'products of {dtype}: {name} is left out: {error}')
      timed = rounds.interleave(running, rounds=5, seconds=min(0.2, self._seconds))
      found = {
        name: process.ready['flops'] / min(timed[name].seconds) / 1e9
        for name, process in running.items()
      }
    return found, notes

  def bandwidth(self) -> float:
    """GB/s of memory: sums of arrays that no cache holds."""
    with tempfile.TemporaryDirectory() as cache:
      with self.start({'side': 'memory', 'workload': ''}, cache) as process:
        timed = rounds.interleave({'': process}, rounds=5, seconds=self._seconds)
        return process.ready['bytes'] / min(timed[''].seconds) / 1e9

  def profile(self, workload: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`step_ms` and `operations` of a row, see dlx_side.py; some seconds of steps."""
    asked = {'workload': workload, 'fields': dict(fields), 'side': 'dlx'}
    with tempfile.TemporaryDirectory() as cache, self.start(asked, cache) as process:
      step_s = process.ask('go 2')['seconds'] / 2
      return process.ask(f'profile {min(200, max(3, round(2 / step_s)))}')

  def row(
    self,
    workload: str,
    dtype: str,
    fields: Mapping[str, Any],
    peers: Sequence[str],
    beside_float32: bool = False,
  ) -> tuple[dict[str, Any], list[str]]:
    """(a row of the table, notes on peers that are missing in it).

    Args:
      workload: its name.
      dtype: of the arithmetic, for the row.
      fields: of the Config, that of this dtype among them.
      peers: names of PEERS.
      beside_float32: dlx in float32 takes turns, too, and gives `over_float32`.
    """
    notes = []
    running: dict[str, rounds.Process] = {}
    asked = {'workload': workload, 'fields': dict(fields)}
    plain = {k: v for k, v in fields.items() if k != 'compute_dtype'}
    sides = {'dlx': ({**asked, 'side': 'dlx'}, False)}
    if beside_float32:
      sides['dlx_float32'] = ({**asked, 'side': 'dlx', 'fields': plain}, False)
    sides |= {p: ({**asked, 'side': PEERS[p].side}, PEERS[p].mkl) for p in peers}
    with tempfile.TemporaryDirectory() as cache:
      with self.start({**asked, 'side': 'dlx'}, cache) as cold:
        first_step_s = cold.start_s
      try:
        for name, (side, mkl) in sides.items():
          try:
            running[name] = self.start(side, cache, mkl)
          except rounds.Broken as error:
            if name == 'dlx':
              raise
            notes.append(f'{workload}: {name} is left out: {error}')
        timed = rounds.interleave(running, rounds=self._rounds, seconds=self._seconds)
        ready = {name: process.ready for name, process in running.items()}
        start_s = {name: process.start_s for name, process in running.items()}
      finally:
        for process in running.values():
          process.close()
    row = _row(timed, ready['dlx']['flops'])
    row |= {
      'workload': workload,
      'dtype': dtype,
      'first_step_s': first_step_s,
      'first_step_cached_s': start_s['dlx'],
      'fields': dict(fields),
    }
    if 'peers' in row:
      row['peers_first_step_s'] = {name: start_s[name] for name in row['peers']}
    return row, notes


def _row(timed: Mapping[str, rounds.Timed], flops: float | None) -> dict[str, Any]:
  """What the turns of all sides say of dlx; flops: of its step."""
  ours = timed['dlx']
  theirs = {n: t for n, t in timed.items() if n not in ('dlx', 'dlx_float32')}
  ms = lambda seconds: 1e3 * statistics.median(seconds)
  row: dict[str, Any] = {
    'dlx_ms': ms(ours.seconds),
    'peak_mb': ours.peak_mb,
    'cpu_share': ours.cpu_share,
    'steps_per_dispatch': ours.steps,
    'flops': flops,
    'gflops': None if flops is None else flops / ms(ours.seconds) / 1e6,
    'rounds_ms': {n: [1e3 * s for s in t.seconds] for n, t in timed.items()},
  }
  if 'dlx_float32' in timed:
    row['over_float32'] = rounds.ratio(ours.seconds, timed['dlx_float32'].seconds)
  if theirs:
    best = min(theirs, key=lambda name: statistics.median(theirs[name].seconds))
    ratios = {n: rounds.ratio(ours.seconds, t.seconds) for n, t in theirs.items()}
    row |= {
      'ratio': ratios[best],
      'best_peer': best,
      'ratios': ratios,
      'peers': {name: ms(t.seconds) for name, t in theirs.items()},
      'peers_peak_mb': {name: t.peak_mb for name, t in theirs.items()},
    }
  return row
