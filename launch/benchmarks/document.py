"""What a run of the bench writes down and prints: the JSON file, the table.

python -m launch.benchmarks.document FILE         prints the table of a results file
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
from typing import Any, Mapping, Sequence

from kernels.processor import processor

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
ONEDNN = 'onednn-cpu-gomp'  # Its distribution; it is no module.
TITLES = {
  'torch': 'PyTorch',
  'torch_compile': 'torch.compile',
  'torch_mkl': "PyTorch, MKL's fast path",
  'torch_compile_mkl': "torch.compile, MKL's fast path",
  'flax': 'Flax',
  'keras': 'Keras 3',
}

Limits = Mapping[str, Mapping[str, float]]


def document(
  rows: Sequence[Mapping[str, Any]],
  argv: Sequence[str],
  limits: Limits | None = None,
  torch: Mapping[str, Any] | None = None,
  cpus: Sequence[int] | None = None,
) -> dict[str, Any]:
  """All that is written to --out.

  Args:
    rows: of the table.
    argv: of the command.
    limits: GFLOP/s of products by dtype and library, measured in this run.
    torch: what PyTorch's BLAS reports, plain and with MKL's fast path.
    cpus: cores of the sides; None: all that this process may use.
  """
  limits = limits or {}
  found = [
    {**row, 'limit_gflops': limit(limits[row['dtype']])}
    if row.get('dtype') in limits
    else dict(row)
    for row in rows
  ]
  return {
    'rows': found,
    'geometric_means': geometric_means(rows),
    'limits_gflops': {dtype: dict(of) for dtype, of in limits.items()},
    'versions': versions(),
    'machine': machine(cpus),
    'torch': torch,
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': ' '.join(['python -m launch.bench', *argv[1:]]),
  }


def limit(of_libraries: Mapping[str, float]) -> float:
  """GFLOP/s of the best library."""
  return max(of_libraries.values())


def geometric_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Of the ratios, by dtype; dtypes without a ratio are left out."""
  ratios: dict[str, list[float]] = {}
  for row in rows:
    if 'ratio' in row:
      ratios.setdefault(row.get('dtype', 'float32'), []).append(row['ratio'])
  return {
    dtype: math.exp(statistics.fmean(map(math.log, of))) for dtype, of in ratios.items()
  }


def versions() -> dict[str, str]:
  """Of Python and of the libraries that are installed."""
  found = {'python': platform.python_version()}
  for name in LIBRARIES:
    if importlib.util.find_spec(name) is not None:
      found[name] = importlib.metadata.version(name)
  try:
    found[ONEDNN] = importlib.metadata.version(ONEDNN)
  except importlib.metadata.PackageNotFoundError:
    pass
  return found


def machine(cpus: Sequence[int] | None = None) -> dict[str, Any]:
  """Vendor, model, instruction sets, kind, threads, load of this moment.

  Args:
    cpus: cores of the sides; None: all that this process may use.
  """
  found = processor()
  return {
    'vendor': found.vendor,
    'processor': found.model,
    'instruction_sets': list(found.instruction_sets),
    'kind': found.kind,
    'threads': len(os.sched_getaffinity(0) if cpus is None else cpus),
    'load': os.getloadavg()[0],
  }


def place(out: str | os.PathLike[str], what: str) -> pathlib.Path:
  """The file of --out: in a folder, one of each kind of processor.

  So results of another kind of processor keep their file, with its date.

  Args:
    out: a file, or a folder that exists.
    what: was measured, e.g. the name of the suite.
  """
  path = pathlib.Path(out)
  return path / f'{what}_{processor().kind}.json' if path.is_dir() else path


def write(path: pathlib.Path, found: Mapping[str, Any]):
  path.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')


def table(rows: Sequence[Mapping[str, Any]], peers: Sequence[str]) -> str:
  """Markdown, times in milliseconds; a row without a peer has a dash there.

  Args:
    rows: of a document, with `limit_gflops`.
    peers: columns, in this order.
  """
  heads = ['Workload', 'ratio', 'dlx', *(TITLES.get(name, name) for name in peers)]
  heads += ['over float32', 'first step, s: cold / cached', 'peak MB']
  heads += ['GFLOP/s (of limit)']
  lines = [
    '| ' + ' | '.join(heads) + ' |',
    '| ' + ' | '.join(['---'] * len(heads)) + ' |',
  ]
  two = lambda x: '-' if x is None else f'{x:.2f}'
  for row in rows:
    times = [row.get('peers', {}).get(name) for name in peers]
    name = row.get('name', row['workload'])  # 'mlp:bfloat16' of a workload 'mlp'.
    cells = [f'`{name}`', two(row.get('ratio')), f'{row["dlx_ms"]:.3g}']
    cells += ['-' if t is None else f'{t:.3g}' for t in times]
    cells += [two(row.get('over_float32'))]
    cells += [f'{row["first_step_s"]:.1f} / {row["first_step_cached_s"]:.1f}']
    cells += [f'{row["peak_mb"]:.0f}']
    gflops, most = row['gflops'], row.get('limit_gflops')
    share = '' if gflops is None or most is None else f' ({100 * gflops / most:.0f} %)'
    cells += ['-' if gflops is None else f'{gflops:.0f}{share}']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def summary(found: Mapping[str, Any]) -> str:
  """The table of a document, its means, and what it was measured on."""
  rows = found['rows']
  having = [name for name in TITLES if any(name in r.get('peers', {}) for r in rows)]
  lines = [table(rows, having)]
  for dtype, mean in found['geometric_means'].items():
    lines.append(f'Geometric mean of the ratios, {dtype}: {mean:.3f}.')
  for dtype, of in found['limits_gflops'].items():
    best = ', '.join(f'{name} {x:.0f}' for name, x in of.items())
    lines.append(f'Products of {dtype}, GFLOP/s: {best}.')
  on = found['machine']
  sets = ', '.join(on['instruction_sets'])
  lines.append(f'{on["processor"]} ({on["vendor"]}; {sets}), {on["threads"]} threads.')
  for name, said in (found['torch'] or {}).items():
    if said is not None:
      lines.append(f"PyTorch's BLAS, {name}: {said['mkl'] or said['capability']}.")
  lines.append(', '.join(f'{name} {v}' for name, v in found['versions'].items()) + '.')
  return '\n'.join([*lines, f'{found["date"]}: {found["command"]}'])


if __name__ == '__main__':
  print(summary(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding='utf-8'))))
