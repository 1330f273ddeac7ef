"""Tries block sizes of the kernels on a device and writes what won, with the evidence.

  python -m kernels.tune --suite=conv --minutes=8
  python -m kernels.tune --suite=conv --prune --out=candidates.json   (no device needed)
  python -m kernels.tune --suite=conv --minutes=8 --candidates=candidates.json

Each kernel's module lists the block sizes worth trying for a case (`configs`). --prune
compiles them for an H200 on any machine (kernels/static/h200.py) and drops what does
not compile or spills registers, so that minutes on a device are spent on what may win.
On the device every one left is checked and timed in turns with the best library, as
kernels/bench.py does. Where a kernel wins by more than the spread of the turns, the row
goes to kernels/<suite>/tuned/<device>.json, which 'auto' reads; all times are kept
beside it, also of cases where nothing won.
"""

import argparse
import importlib
import json
import pathlib
import sys
import time
from typing import Any

import jax

from kernels import bench, cases, dispatch

LEAST_RATIO = 1.03  # A win within the noise is none.
# Fields of a case that say what is computed, not how much of it: a row holds for these.
IGNORED = ('batch',)


def configs(suite: str, name: str, case: Any) -> list[dict[str, Any]]:
  """Block sizes worth trying; one empty dict where a kernel chooses alone."""
  module = importlib.import_module(f'kernels.{suite}.{name}')
  listed = getattr(module, 'configs', None)
  return [{}] if listed is None else [dict(config) for config in listed(case)]


def row_of(timed: cases.Timed, name: str, config: dict[str, Any]) -> dispatch.Row:
  """The row by which 'auto' takes `name` with `config` for this case."""
  match = {k: v for k, v in timed.case._asdict().items() if k not in IGNORED}
  return dispatch.Row(match, name, config, {})


def candidates(
  timed: cases.Timed, suite: str, device: str
) -> list[tuple[str, dict[str, Any]]]:
  """(kernel, block sizes) of all kernels that take the case on a device."""
  found = []
  for name, reason in bench.supported(timed, suite, device).items():
    if name.startswith('mosaic') and not reason:
      found += [(name, config) for config in configs(suite, name, timed.case)]
  return found


def prune(rows: list[cases.Timed], suite: str) -> dict[str, list]:
  """By case, the candidates that compile for an H200 without spilling."""
  from kernels.static import h200

  kept: dict[str, list] = {}
  for timed in rows:
    kept[timed.name] = []
    for name, config in candidates(timed, suite, 'cuda'):
      with dispatch.trial(row_of(timed, name, config)):
        function = lambda *args, timed=timed: timed.call({'interpret': False}, *args)
        try:
          made = h200.compile_for_h200(function, *timed.shapes)
          spilled = sum(k.spill_bytes for k in made.kernels)
          text = f'{spilled} bytes spilled' if spilled else ''
        except h200.NoCompiler:
          raise
        except Exception as error:
          text = f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'
      print(f'{timed.name} {name} {config}: {text or "kept"}', flush=True)
      if not text:
        kept[timed.name].append([name, config])
  return kept


def tune(timed: cases.Timed, suite: str, device: str, tried: list) -> dict[str, Any]:
  """The bench's row of one case, with `configs` (kernel, block sizes, ms) and `won`."""
  measured, best = [], None
  for name, config in tried:
    with dispatch.trial(row_of(timed, name, config)):
      row = bench.measure(timed, suite, device, auto=name)
    measured.append([name, config, row['ms'].get(name), row['notes'].get(name)])
    ratio = row.get('ratio', {}).get(name, 0.0)
    if best is None or ratio > best[0]:
      best = (ratio, name, config, row)
  if best is None:
    return {'case': timed.name, 'configs': measured, 'won': None}
  ratio, name, config, row = best
  won = None
  if ratio >= LEAST_RATIO:
    library = row['best_library']
    won = row_of(timed, name, config)._asdict() | {
      'evidence': {
        'ms': row['ms'][name],
        'best_other': library,
        'ms_other': row['ms'][library],
        'ratio': ratio,
        'n': bench.TURNS,
      }
    }
  return row | {'configs': measured, 'won': won}


def main(argv: list[str]) -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(
    'kernels.tune', description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--out', type=pathlib.Path, help='default: the table of auto')
  parser.add_argument('--prune', action='store_true', help='compile only, for an H200')
  parser.add_argument('--candidates', type=pathlib.Path, help='what --prune wrote')
  options, rows = bench.parse(parser, argv, 'prune')
  if options.prune:
    if options.out is None:
      parser.error('--prune needs --out=FILE.')
    options.out.write_text(json.dumps(prune(rows, options.suite), indent=1) + '\n')
    return 0
  kept = None
  if options.candidates is not None:
    kept = json.loads(options.candidates.read_text(encoding='utf-8'))
  backend = jax.default_backend()
  device = 'cuda' if backend == 'gpu' else backend
  kind = jax.devices()[0].device_kind
  folder = pathlib.Path(__file__).parent / options.suite / 'tuned'
  out = options.out or folder / dispatch.file_name(kind)
  end, done = time.monotonic() + 60 * options.minutes, []
  for i, timed in enumerate(rows):
    if time.monotonic() > end:
      print(f'out of time; not run: {", ".join(row.name for row in rows[i:])}')
      break
    tried = candidates(timed, options.suite, device)
    if kept is not None:
      tried = [pair for pair in tried if list(pair) in kept.get(timed.name, [])]
    done.append(tune(timed, options.suite, device, tried))
    print(done[-1]['case'], 'won' if done[-1]['won'] else 'not won', flush=True)
    found = bench.document(done, [row.name for row in rows[i + 1 :]], argv)
    found['command'] = ' '.join(['python -m kernels.tune', *argv])
    found['measured'] = found.pop('rows')
    found['rows'] = [row['won'] for row in done if row['won']]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
