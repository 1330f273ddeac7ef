"""Where a run runs: commit, versions, devices, processor, threads."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

PACKAGES = (
  'dlx',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'numpy',
)

# Settings of jax that decide bits.
SETTINGS = (
  *('enable_x64', 'threefry_partitionable', 'default_prng_impl'),
  *('default_matmul_precision', 'disable_most_optimizations'),
)


ROOT = pathlib.Path(__file__).resolve().parents[3]


def run_git(*args: str, root: pathlib.Path = ROOT) -> str:
  """What git prints.

  Args:
    args: of git.
    root: the folder it runs in.

  Raises:
    OSError: git is missing.
    subprocess.SubprocessError: git says no, or takes longer than 10 s.
  """
  # No locks: a status must not disturb somebody's commit.
  done = subprocess.run(
    ('git', *args),
    cwd=root,
    capture_output=True,
    timeout=10,
    check=True,
    env=os.environ | {'GIT_OPTIONAL_LOCKS': '0'},
  )
  return done.stdout.decode(errors='replace')


def git() -> dict[str, Any] | None:
  """Commit of the checkout that this package lies in, and whether it was changed.

  None where it lies in no checkout, where git is missing, or before the first commit.
  """
  try:
    # An installed copy may lie inside the checkout of something else.
    run_git('ls-files', '--error-unmatch', 'dlx/run/records/environment.py')
    return {
      'commit': run_git('rev-parse', 'HEAD').strip(),
      'dirty': bool(run_git('status', '--porcelain', '--untracked-files=no')),
    }
  except (OSError, subprocess.SubprocessError):
    return None


def versions() -> dict[str, str | None]:
  """Versions of Python and of packages, without an import; None: not installed."""
  found: dict[str, str | None] = {'python': platform.python_version()}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return found


def num_threads() -> int:
  """CPU threads that this process may run on."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _setting(name: str) -> Any:
  import jax

  value = getattr(jax.config, f'jax_{name}', None)
  return value if value is None or isinstance(value, (bool, str)) else str(value)


def environment() -> dict[str, Any]:
  """Where a run runs: all that may decide its bits or its speed. Starts the devices."""
  import jax  # Not needed by those who only read a workdir.

  from kernels.onednn import library
  from kernels.processor import processor

  device, cpu = jax.devices()[0], processor()
  return {
    'versions': {**versions(), 'onednn': library.version()},
    'device': {
      'kind': device.device_kind,
      'count': jax.device_count(),
      'platform': device.platform,
    },
    'processor': {
      'vendor': cpu.vendor,
      'model': cpu.model,
      'instruction_sets': ' '.join(cpu.instruction_sets),
    },
    'processes': jax.process_count(),
    'threads': num_threads(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'jax': {name: _setting(name) for name in SETTINGS},
    'git': git(),
  }
