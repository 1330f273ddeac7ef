"""Measures the kernels beside the libraries of a device, in one run.

  python -m kernels.bench --suite=attention --minutes=8 --out=bench_attention.json
  python -m kernels.bench --suite=conv --minutes=8 --out=bench_conv.json
  python -m kernels.bench --suite=attention --dry_run

Needs jax and numpy alone. Every case of kernels/cases.py is first computed by every
implementation that does not refuse it and compared with `xla` (a kernel that is wrong
is not timed), then warmed up, then timed in turns, A B A B: a turn is so many calls,
sent without waiting in between, that it takes about 20 ms. A time is the median of 20
turns, a ratio the median over turns of the time of the best library over the kernel's:
above 1 the kernel is faster. The file is written after every case, so that a run that
is cut short keeps what it has; cases that no longer fit into --minutes are named in it.

--dry_run runs nothing: it compiles every case by every kernel for v5e, v6e and H200 on
this machine, no accelerator needed (libtpu; the CUDA plugin and ptxas), and prints what
the compilers say: temp bytes, registers, spills, tensor instructions.
"""

import argparse
import datetime
import functools
import json
import pathlib
import platform
import statistics
import sys
import time
from typing import Any, Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from kernels import cases, dispatch

# Of the vendors' data sheets: FLOP/s of bf16 matrix products without sparsity, bytes/s
# of the memory.
PEAKS = {
  'NVIDIA H200': (989e12, 4.8e12),
  'NVIDIA H100 80GB HBM3': (989e12, 3.35e12),
  'TPU v4': (275e12, 1.23e12),
  'TPU v5 lite': (197e12, 0.82e12),
  'TPU v5': (459e12, 2.77e12),
  'TPU v6 lite': (918e12, 1.64e12),
}
TURNS, TURN_S = 20, 0.02
TOPOLOGIES = ('v5e:2x2', 'v6e:2x2')


def backends(suite: str) -> dict[str, dispatch.Backend]:
  """The implementations of a suite's operation."""
  if suite == 'attention':
    from kernels.attention import api
  else:
    from kernels.conv import api
  return dict(api.BACKENDS)


def supported(timed: cases.Timed, suite: str, device: str) -> dict[str, str]:
  """Why each implementation does not take the case on a device; '' where it does."""
  found = {}
  for name, backend in backends(suite).items():
    refusal = backend.refusal(timed.case)
    if device not in backend.platforms:
      found[name] = f'it is not for {device}'
    elif name == 'reference':
      found[name] = 'the yardstick, not timed'
    else:
      found[name] = '' if refusal is None else str(refusal)
  return found


def wrong(found: Any, wanted: Any, exact: Any) -> str:
  """What is wrong with results; '' where nothing is.

  Args:
    found: of the implementation.
    wanted: of XLA in the same dtype.
    exact: of XLA in float32 of the same inputs.
  """
  for i, (a, b, c) in enumerate(
    zip(*map(jax.tree.leaves, (found, wanted, exact)), strict=True)
  ):
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    scale = np.abs(c).max()
    error, allowed = np.abs(a - c).max(), 1.5 * np.abs(b - c).max() + 1e-2 * scale
    if not error <= allowed:
      return f'result {i} is off by {error:.3g}, allowed {allowed:.3g}'
  return ''


def _seconds(
  function: Callable[..., Any], arguments: Iterable[Any], calls: int
) -> float:
  begin = time.perf_counter()
  for _ in range(calls):
    out = function(*arguments)
  jax.block_until_ready(out)
  return (time.perf_counter() - begin) / calls


def measure(
  timed: cases.Timed, suite: str, device: str, auto: str | None = None
) -> dict[str, Any]:
  """A row: times of all implementations that take the case, in turns.

  Args:
    timed: what is measured.
    suite: of SUITES.
    device: of dispatch.PLATFORMS.
    auto: of the kernels only this one, as 'auto' takes it (kernels/tune.py).
  """
  arguments = timed.arguments()
  runs, notes = {}, {}
  to_f32 = lambda x: (
    x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
  )
  with jax.default_matmul_precision('highest'):
    plain = jax.jit(lambda *args: timed.call({'implementation': 'xla'}, *args))
    exact = plain(*map(to_f32, arguments))
    exact = jax.device_get(exact)
  wanted = jax.device_get(plain(*arguments))
  for name, reason in supported(timed, suite, device).items():
    if reason:
      notes[name] = reason
      continue
    if auto is not None and name.startswith('mosaic') and name != auto:
      continue
    how: dict[str, Any] = {'implementation': 'auto' if name == auto else name}
    if device != 'cpu':
      how['interpret'] = False
    run = jax.jit(functools.partial(timed.call, how))
    try:
      reason = wrong(jax.device_get(run(*arguments)), wanted, exact)
    except Exception as error:  # A kernel that does not compile must not end the run.
      reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    if reason:
      notes[name] = reason
    else:
      runs[name] = run
  calls = {}
  for name, run in runs.items():
    once = _seconds(run, arguments, 3)
    calls[name] = max(10, min(1000, int(TURN_S / max(once, 1e-7))))
  turns: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(TURNS):
    for name, run in runs.items():
      turns[name].append(_seconds(run, arguments, calls[name]))
  return _row(timed, turns, notes)


def _row(timed: cases.Timed, turns: dict[str, list[float]], notes) -> dict[str, Any]:
  libraries = [name for name in turns if not name.startswith('mosaic')]
  median = {name: statistics.median(seconds) for name, seconds in turns.items()}
  row: dict[str, Any] = {
    'case': timed.name,
    'match': {k: v for k, v in timed.case._asdict().items() if v is not None},
    'ms': {name: 1e3 * seconds for name, seconds in median.items()},
    'spread_ms': {
      name: [1e3 * min(seconds), 1e3 * max(seconds)] for name, seconds in turns.items()
    },
    'notes': notes,
    'tflops': {name: timed.flops / s / 1e12 for name, s in median.items()},
    'gb_s': {name: timed.bytes / s / 1e9 for name, s in median.items()},
  }
  peaks = PEAKS.get(jax.devices()[0].device_kind)
  if peaks is not None:
    least = max(timed.flops / peaks[0], timed.bytes / peaks[1])
    row['roofline'] = {name: least / s for name, s in median.items()}
  if libraries:
    best = min(libraries, key=lambda name: median[name])
    row['best_library'] = best
    row['ratio'] = {
      name: statistics.median(a / b for a, b in zip(turns[best], seconds, strict=True))
      for name, seconds in turns.items()
      if name not in libraries
    }
  return row


def document(rows: list[dict], missing: list[str], argv: list[str]) -> dict[str, Any]:
  """All that is written."""
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'rows': rows,
    'not_run': missing,
    'versions': {
      'python': platform.python_version(),
      'jax': jax.__version__,
      'platform': getattr(device.client, 'platform_version', ''),
    },
    'turns': TURNS,
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': ' '.join(['python -m kernels.bench', *argv]),
  }


def line(row: dict[str, Any]) -> str:
  """Of a table on the terminal."""
  cells = [f'{row["case"]:34}']
  for name, ms in row['ms'].items():
    share = row.get('roofline', {}).get(name)
    share = '' if share is None else f' {100 * share:.0f} %'
    ratio = row.get('ratio', {}).get(name)
    ratio = '' if ratio is None else f' x{ratio:.2f}'
    cells.append(f'{name} {ms:.3f} ms{share}{ratio}')
  cells += [f'{n}: {why}' for n, why in row['notes'].items() if n.startswith('mosaic')]
  return ' | '.join(cells)


def run(rows: list[cases.Timed], options: argparse.Namespace, argv: list[str]) -> int:
  """Measures; returns the exit status."""
  backend = jax.default_backend()
  device = 'cuda' if backend == 'gpu' else backend
  end = time.monotonic() + 60 * options.minutes
  done: list[dict[str, Any]] = []
  longest = 0.0
  for i, timed in enumerate(rows):
    begin = time.monotonic()
    if begin + longest > end:
      names = [row.name for row in rows[i:]]
      print(f'out of time; not run: {", ".join(names)}')
      break
    names = [row.name for row in rows[i + 1 :]]
    done.append(measure(timed, options.suite, device))
    longest = max(longest, time.monotonic() - begin)
    print(line(done[-1]), flush=True)
    if options.out is not None:
      text = json.dumps(document(done, names, argv), indent=1)
      options.out.write_text(text + '\n', encoding='utf-8')
  return 0


def tpu_text(made: Any) -> str:
  """Of kernels.static.tpu.Compiled."""
  moved = sum(move.size for move in made.moves)
  share = made.temp_bytes / max(made.output_bytes, 1)
  return (
    f'temp {made.temp_bytes} bytes ({share:.2f} of the results), {len(made.moves)} '
    f'pads, copies or transposes of {moved} bytes'
  )


def h200_text(made: Any) -> str:
  """Of kernels.static.h200.Report."""
  kernels = [
    f'{k.name}: {k.registers} registers, {k.spill_bytes} bytes spilled, HGMMA '
    f'{k.hgmma}, HMMA {k.hmma}, {k.shared_bytes} bytes shared'
    for k in made.kernels
  ]
  # Mosaic compiles equal kernels of a process once, and only then says what it made.
  kernels = kernels or ['a kernel that was compiled before']
  return '; '.join([f'temp {made.temp_bytes} bytes', *kernels])


def dry_run(rows: list[cases.Timed], suite: str) -> int:
  """Compiles everything for elsewhere; returns the exit status."""
  from kernels.static import h200, tpu

  failed = 0
  missing = (tpu.NoCompiler, h200.NoCompiler)
  targets = [(name, 'tpu') for name in TOPOLOGIES] + [('h200', 'cuda')]
  for target, device in targets:
    for timed in rows:
      for name, reason in supported(timed, suite, device).items():
        if not name.startswith('mosaic') or reason:
          if name.startswith('mosaic') and device in backends(suite)[name].platforms:
            print(f'{target:8} {timed.name:34} {name}: refused: {reason}')
          continue
        how = {'implementation': name, 'interpret': False}
        function = functools.partial(timed.call, how)
        try:
          if device == 'tpu':
            made = tpu.compile_for(target, function, *timed.shapes, free_layouts=True)
            text = tpu_text(made)
          else:
            text = h200_text(h200.compile_for_h200(function, *timed.shapes))
        except missing as error:
          print(f'{target}: {error}')
          return 1
        except Exception as error:
          failed += 1
          text = f'FAILED {type(error).__name__}: {" ".join(str(error).split())[:300]}'
        print(f'{target:8} {timed.name:34} {name}: {text}', flush=True)
  return 1 if failed else 0


def parse(
  parser: argparse.ArgumentParser, argv: list[str], compiles: str
) -> tuple[argparse.Namespace, list[cases.Timed]]:
  """(options, the rows asked for); also of kernels/tune.py.

  Args:
    parser: with the flags that one of the two has alone.
    argv: without the program.
    compiles: name of the flag that only compiles, which needs no device.
  """
  parser.add_argument('--suite', choices=sorted(cases.SUITES), required=True)
  parser.add_argument('--minutes', type=float, default=8)
  parser.add_argument('--cases', default='', help='only names that hold this text')
  options = parser.parse_args(argv)
  if getattr(options, compiles):
    jax.config.update('jax_platforms', 'cpu')  # The environment was read at import.
  rows = [row for row in cases.SUITES[options.suite]() if options.cases in row.name]
  if not rows:
    parser.error(f'--cases={options.cases} is not allowed: no case has it in its name.')
  return options, rows


def main(argv: list[str]) -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(
    'kernels.bench', description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--out', type=pathlib.Path, help='JSON, written after every case')
  parser.add_argument('--dry_run', action='store_true', help='compile, run nothing')
  options, rows = parse(parser, argv, 'dry_run')
  if options.dry_run:
    return dry_run(rows, options.suite)
  return run(rows, options, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
