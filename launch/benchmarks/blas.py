"""What PyTorch's BLAS says of itself, and MKL's fast path on an AMD processor.

MKL, the BLAS inside of PyTorch, takes its AVX-512 loops where the processor calls
itself Intel's, and slower ones elsewhere. What people write of to change that:
MKL_DEBUG_CPU_TYPE is not read since MKL 2020.1; MKL_ENABLE_INSTRUCTIONS and MKL_CBWR
change nothing on an AMD processor. What works is a library that is loaded before it
(LD_PRELOAD) and answers in place of MKL's own `mkl_serv_intel_cpu` and
`mkl_serv_intel_cpu_true`, two lines of C. On an AMD EPYC with AVX-512, two busy cores,
torch 2.13.0 with MKL 2024.2, products of 1024 then took 207 in place of 97 GFLOP/s
(medians of 7 rounds in turns, 2026-12-01), and MKL names AVX-512 in place of 'Intel(R)
Architecture processors' (`report`). Intel does not support it.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, Mapping

# Both: with one of them MKL stays as it is.
SOURCE = """int mkl_serv_intel_cpu_true(void) { return 1; }
int mkl_serv_intel_cpu(void) { return 1; }
"""
# One product of matrices: with MKL_VERBOSE=1 MKL prints what it is and runs on.
_REPORT = """
import json, torch
a = torch.ones(64, 64)
torch.mm(a, a)
print(json.dumps({
  'config': torch.__config__.show(),
  'parallel': torch.__config__.parallel_info(),
  'capability': torch.backends.cpu.get_cpu_capability(),
}))
"""
_MKL = 'MKL_VERBOSE oneMKL'


class NotPossible(Exception):
  """Says in one line why the fast path cannot be had."""


def preload(folder: str, vendor: str) -> dict[str, str]:
  """Variables of the environment under which MKL takes its fast path.

  Args:
    folder: where the library is written; it must stay as long as they are used.
    vendor: of the processor, as kernels.processor says it.

  Raises:
    NotPossible: an Intel processor, which needs none; another one than AMD's, another
      system than Linux, or no C compiler.
  """
  if vendor != 'amd' or not sys.platform.startswith('linux'):
    raise NotPossible(f'it is for AMD processors under Linux, not {vendor}')
  compiler = shutil.which(os.environ.get('CC') or 'cc') or shutil.which('gcc')
  if compiler is None:
    raise NotPossible('there is no C compiler: install gcc, or set CC')
  source = pathlib.Path(folder, 'mkl.c')
  source.write_text(SOURCE, encoding='utf-8')
  made = source.with_suffix('.so')
  command = [compiler, '-shared', '-fPIC', str(source), '-o', str(made)]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    lines = done.stderr.splitlines() or ['no message']
    raise NotPossible(f'{compiler} failed: {lines[0]}')
  former = os.environ.get('LD_PRELOAD')
  return {'LD_PRELOAD': f'{made}:{former}' if former else str(made)}


def report(environ: Mapping[str, str]) -> dict[str, Any] | None:
  """What PyTorch and MKL say of themselves under these variables; None: not installed.

  `config` and `parallel` are torch.__config__.show() and parallel_info(), `capability`
  is the instruction set of torch's own loops, `mkl` the line in which MKL names its
  version and instruction set (None where torch was built with another BLAS).
  """
  done = subprocess.run(
    [sys.executable, '-c', _REPORT],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, **environ, 'MKL_VERBOSE': '1'},
  )
  lines = done.stdout.splitlines()
  if done.returncode or not lines:
    return None
  said = [x for x in lines if x.startswith(_MKL)]
  mkl = said[0].removeprefix('MKL_VERBOSE ') if said else None
  return {**json.loads(lines[-1]), 'mkl': mkl}
