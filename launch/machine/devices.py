"""What JAX may look for and use: devices, 64-bit numbers, a cache of programs."""

import os
import pathlib
import sys
from typing import Any, MutableMapping

from absl import flags

from dlx.errors import ConfigError
from launch.flags import paths
from launch.machine import allocator, compile_cache

# Device files of NVIDIA (also under WSL), TPU (old and new drivers) and AMD.
_DEVICE_FILES = (
  'dev/nvidia[0-9]*',
  'dev/nvidiactl',
  'dev/dxg',
  'dev/accel*',
  'dev/vfio/[0-9]*',
  'dev/kfd',
)
_DEVICE_VARIABLES = (
  'TPU_NAME',
  'TPU_WORKER_ID',
  'TPU_WORKER_HOSTNAMES',
  'PJRT_NAMES_AND_LIBRARY_PATHS',
)


def use_cpu_without_accelerator(
  environ: MutableMapping[str, str] = os.environ, root: str = '/'
):
  """Sets JAX_PLATFORMS=cpu where no accelerator is present. Call it before jax starts.

  With libtpu installed on a machine without a TPU, every start of JAX looks for one and
  prints warnings, and two processes at once can abort on its lock file. JAX_PLATFORMS,
  where set, is obeyed; so are the variables of TPU machines and plug-ins.
  """
  if 'JAX_PLATFORMS' in environ or any(v in environ for v in _DEVICE_VARIABLES):
    return
  if not sys.platform.startswith('linux'):
    return  # Other systems have no such device files to look at.
  if not any(True for files in _DEVICE_FILES for _ in pathlib.Path(root).glob(files)):
    environ['JAX_PLATFORMS'] = 'cpu'


def define(values: flags.FlagValues):
  """The flags of every launcher that starts jax."""
  paths.define(
    values,
    'compile_cache',
    None,
    'Folder that keeps compiled programs, or off. Default: '
    '$JAX_COMPILATION_CACHE_DIR, $DLX_CACHE_DIR or ~/.cache/dlx/xla.',
  )
  flags.DEFINE_enum(
    'allocator',
    'tuned',
    ['tuned', 'default'],
    "tuned: on a Linux CPU, glibc's malloc keeps large temporaries between steps "
    "(launch/machine/allocator.py); default: the system's settings.",
    flag_values=values,
    module_name='launcher',
  )


def start_jax(config: Any, values: flags.FlagValues):
  """Imports jax and sets what must be set before the first array.

  float64 in the config turns on JAX's 64-bit mode for the whole process.

  Args:
    config: of the run.
    values: parsed flags, those of `define` among them.

  Raises:
    ConfigError: a compilation cache that cannot be written.
  """
  if values.allocator == 'tuned' and os.environ.get('JAX_PLATFORMS') == 'cpu':
    allocator.tune()

  import jax

  dtypes = [getattr(config, f'{what}_dtype', None) for what in ('compute', 'param')]
  if 'float64' in dtypes:  # A study has none.
    jax.config.update('jax_enable_x64', True)
  use_compile_cache(values.compile_cache)


def use_compile_cache(
  folder: str | None, environ: MutableMapping[str, str] = os.environ
) -> str | None:
  """Turns on JAX's persistent compilation cache; imports jax.

  Args:
    folder: 'off', a folder, or None: JAX_COMPILATION_CACHE_DIR, else DLX_CACHE_DIR,
      else ~/.cache/dlx/xla; that default stays off where it cannot be written.
    environ: the variables.

  Returns:
    The folder in use, None for off.

  Raises:
    ConfigError: a folder that was asked for cannot be written.
  """
  import jax

  if folder == 'off':
    jax.config.update('jax_enable_compilation_cache', False)
    return None
  asked = (
    folder or environ.get('JAX_COMPILATION_CACHE_DIR') or environ.get('DLX_CACHE_DIR')
  )
  chosen = asked or str(pathlib.Path('~/.cache/dlx/xla').expanduser())
  if '://' not in chosen:
    try:
      os.makedirs(chosen, exist_ok=True)
      writable = os.access(chosen, os.W_OK)
    except OSError:
      writable = False
    if not writable and asked:
      raise ConfigError(
        f'--compile_cache={chosen} is not allowed: must be a folder '
        'that can be written, or off.'
      )
    if not writable:
      return None
    if chosen != environ.get('JAX_COMPILATION_CACHE_DIR'):  # That may be others', too.
      compile_cache.tidy(chosen)
  jax.config.update('jax_compilation_cache_dir', chosen)
  # Also programs that compile within a second: a start is made of dozens of those.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return chosen
