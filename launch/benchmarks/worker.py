"""One side of one workload in a process of its own, driven over stdin and stdout.

  python -m launch.benchmarks.worker '{"side": "dlx", "workload": "mlp"}'

Answers are lines of JSON: one when the first dispatch is done, then one for each
command: `go N` (N steps), `memory`, `profile N` (N steps of dlx, by operation).
Anything else, or the end of stdin, ends it. What libraries print goes to stderr.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

MODULES = {
  'dlx': 'dlx_side',
  'torch': 'torch_peer.side',
  'torch_compile': 'torch_peer.side',
  'flax': 'flax_peer.side',
  'keras': 'keras_peer.side',
  'product': 'product_side',
  'memory': 'memory_side',
}


def make(side: str, workload: str, fields: dict[str, Any]):
  """The side: it has `step(n)`, which gives a loss."""
  module = importlib.import_module(f'launch.benchmarks.{MODULES[side]}')
  if side == 'dlx':
    return module.Side(workload, **fields)
  mode = {'torch': 'eager', 'torch_compile': 'compile'}.get(side)
  return module.build(workload, *([mode] if mode else []), **fields)


def main(argv: list[str]):
  """See the docstring of the module."""
  asked = json.loads(argv[1])
  out = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  say = lambda **fields: (out.write(json.dumps(fields) + '\n'), out.flush())
  if asked.get('cpus'):  # Before any library counts them.
    os.sched_setaffinity(0, asked['cpus'])
  if asked.get('allocator'):
    from launch.machine import allocator

    allocator.tune()
  start = time.perf_counter()
  fields = asked.get('fields', {})  # JSON has lists where a Config has tuples.
  fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
  side = make(asked['side'], asked['workload'], fields)
  built = time.perf_counter()
  loss = side.step(1)
  say(
    loss=loss,
    build_s=built - start,
    first_s=time.perf_counter() - built,
    flops=getattr(side, 'flops', None),
    bytes=getattr(side, 'bytes', None),
  )
  for line in sys.stdin:
    command, *words = line.split()
    if command == 'go':
      cpu, wall = time.process_time(), time.perf_counter()
      loss = side.step(int(words[0]))
      seconds = time.perf_counter() - wall
      say(seconds=seconds, cpu=time.process_time() - cpu, loss=loss)
    elif command == 'memory':
      import resource

      peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
      say(peak_mb=peak_kb / 1024, steps=getattr(side, 'steps', 1))
    elif command == 'profile':
      say(**side.profile(int(words[0])))
    else:
      break


if __name__ == '__main__':
  main(sys.argv)
