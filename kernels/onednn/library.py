"""The compiled half: where it lies, how it is built, whether it can be used.

It needs a C++ compiler once and oneDNN always, `pip install -e '.[onednn]'`. Building
is asked for, never a surprise: `python -m kernels.onednn`. Without it everything runs
on XLA alone.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Iterator

import jax

PACKAGES = ('onednn-cpu-gomp', 'onednn-devel-cpu-gomp')  # Library; headers.
FOLDER = pathlib.Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob('*.cc')))
HEADERS = tuple(sorted(FOLDER.glob('*.h')))
# Loops of element-wise arithmetic are compiled for several instruction sets and chosen
# at run time; nothing reads errno or floating-point traps.
FLAGS = ('-O3', '-fno-math-errno', '-fno-trapping-math', '-fopenmp', '-std=c++17')
FLAGS += ('-shared', '-fPIC')
TARGETS = {
  'dlx_onednn_attention_backward': 'DlxOneDnnAttentionBackward',
  'dlx_onednn_attention_forward': 'DlxOneDnnAttentionForward',
  'dlx_onednn_attention_packed_backward': 'DlxOneDnnAttentionPackedBackward',
  'dlx_onednn_attention_packed_forward': 'DlxOneDnnAttentionPackedForward',
  'dlx_onednn_conv': 'DlxOneDnnConv',
  'dlx_onednn_product': 'DlxOneDnnProduct',
  'dlx_onednn_lstm_forward': 'DlxOneDnnLstmForward',
  'dlx_onednn_lstm_backward': 'DlxOneDnnLstmBackward',
  'dlx_batch_norm_backward': 'DlxBatchNormBackward',
  'dlx_batch_norm_forward': 'DlxBatchNormForward',
  'dlx_norm_backward': 'DlxNormBackward',
  'dlx_norm_forward': 'DlxNormForward',
  'dlx_sparse_product': 'DlxSparseProduct',
}
SWITCH = 'DLX_ONEDNN'  # Set to off: as if it were not built.
# Instruction sets by oneDNN's bits (dnnl_cpu_isa_t), the widest first; one has what its
# bits have, so that a later one counts as the widest of these that it contains.
ISAS = {
  'avx512_core_amx': 0xFEF,
  'avx512_core_bf16': 0xE7,
  'avx512_core': 0x27,
  'avx2': 0x7,
}


class NotUsable(Exception):
  """Says in one line why it cannot be built or used, and what would help."""


def _installed(package: str, ending: str) -> pathlib.Path:
  """The file of a package whose path ends so.

  Raises:
    NotUsable: not installed, or another build of it.
  """
  try:
    files = importlib.metadata.files(package) or []
  except importlib.metadata.PackageNotFoundError:
    raise NotUsable(f"{package} is not installed: pip install -e '.[onednn]'") from None
  for file in files:
    if str(file).endswith(ending):
      return pathlib.Path(str(file.locate())).resolve()
  raise NotUsable(f'{package} has no {ending}: install the version of setup.py')


def installed() -> pathlib.Path:
  """oneDNN itself, the shared library of its package.

  Raises:
    NotUsable: oneDNN is not installed.
  """
  return _installed(PACKAGES[0], 'libdnnl.so.3')


def path() -> pathlib.Path:
  """Where the compiled library lies: a folder of the user, by what it was built from.

  Raises:
    NotUsable: oneDNN is not installed.
  """
  installed()
  parts = [source.read_text(encoding='utf-8') for source in SOURCES + HEADERS]
  parts += [' '.join(FLAGS), sys.platform]
  parts += [importlib.metadata.version(name) for name in ('jaxlib', PACKAGES[0])]
  digest = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]
  root = os.environ.get('DLX_CACHE_DIR') or '~/.cache/dlx'
  return pathlib.Path(root).expanduser() / 'onednn' / f'dlx-{digest}.so'


def build() -> pathlib.Path:
  """Compiles the library and returns its path; what is there already is kept.

  Raises:
    NotUsable: no oneDNN, no compiler, or the compiler's first error.
  """
  out = path()
  if out.exists():
    return out
  library = installed()
  headers = _installed(PACKAGES[1], 'oneapi/dnnl/dnnl.hpp').parents[2]
  compiler = os.environ.get('CXX') or shutil.which('g++') or shutil.which('clang++')
  if compiler is None:
    raise NotUsable('there is no C++ compiler: install g++, or set CXX')
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    made = pathlib.Path(folder) / out.name
    command = [compiler, *FLAGS, f'-I{jax.ffi.include_dir()}', f'-I{headers}']
    command += [*map(str, SOURCES), '-o', str(made)]
    command += [f'-L{library.parent}', f'-l:{library.name}']
    command += [f'-Wl,-rpath,{library.parent}']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
      lines = [line for line in done.stderr.splitlines() if 'error' in line]
      raise NotUsable(f'{compiler} failed: {(lines or ["no message"])[0]}')
    os.replace(made, out)  # Whole or not at all, whoever else builds it.
  return out


@functools.cache
def load() -> ctypes.CDLL:
  """Loads the library and registers its calls with XLA, once.

  Raises:
    NotUsable: switched off, not installed, or not built.
  """
  if os.environ.get(SWITCH) == 'off':
    raise NotUsable(f'{SWITCH}=off')
  built = path()
  if not built.exists():
    raise NotUsable('not built: python -m kernels.onednn')
  # Its threads shall sleep between calls: XLA's own need the cores.
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  library = ctypes.CDLL(str(built))
  for name, symbol in TARGETS.items():
    call = jax.ffi.pycapsule(getattr(library, symbol))
    jax.ffi.register_ffi_target(name, call, platform='cpu')
  return library


@functools.cache
def isa() -> str:
  """The instruction set that oneDNN takes on this CPU, of ISAS; 'other': none of them.

  bfloat16 is computed by instructions of its own from 'avx512_core_bf16' on
  (`has_bfloat16`).

  Raises:
    NotUsable: as `load`.
  """
  bits = load().dnnl_get_effective_cpu_isa()
  return next((name for name, has in ISAS.items() if bits & has == has), 'other')


def has_bfloat16() -> bool:
  """Whether products of bfloat16 are computed by instructions of their own.

  Raises:
    NotUsable: as `load`.
  """
  return isa() in ('avx512_core_amx', 'avx512_core_bf16')


def usable() -> bool:
  """Whether a program for the CPU calls it: of one device, for XLA shards no call."""
  return _wanted.get() and jax.local_device_count() == 1 and reason() is None


_wanted = contextvars.ContextVar('wanted', default=True)


@contextlib.contextmanager
def unused() -> Iterator[None]:
  """What is traced inside is XLA's alone, as for counting its operations."""
  token = _wanted.set(False)
  try:
    yield
  finally:
    _wanted.reset(token)


@functools.cache
def reason() -> str | None:
  """Why the library is not used, in one line; None where it is."""
  try:
    load()
  except NotUsable as error:
    return str(error)
  except OSError as error:  # The dynamic loader.
    return ' '.join(str(error).split())
  return None


def version() -> str | None:
  """Of the library, where it is used; None where it is not."""
  return None if reason() else importlib.metadata.version(PACKAGES[0])
