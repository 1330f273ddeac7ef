"""What every test runs under; set before jax is imported, inherited by subprocesses."""

import atexit
import os
import pathlib
import shutil
import tempfile

from absl import flags

ACCELERATORS = ('/dev/nvidiactl', '/dev/accel0', '/dev/vfio/0')

# A library that is built on request and changes the bits; its own tests turn it on.
os.environ.setdefault('DLX_ONEDNN', 'off')

if not any(pathlib.Path(path).exists() for path in ACCELERATORS):
  # With libtpu installed, JAX would look for a TPU at every start, and two processes at
  # once can abort on its lock file.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Several test processes share one accelerator.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
os.environ.setdefault('MPLBACKEND', 'agg')
# Spinning OpenMP threads of torch would starve the other test processes.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# Many tests build the same program anew, in one process or several: one cache for the
# whole session, empty at its start, took 43 % off the CPU time of the contract's tests
# (110 s to 63 s; two cores, jax 0.10.2). Workers of xdist inherit the variable.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  cache = tempfile.mkdtemp(prefix='dlx-tests-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = cache
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  atexit.register(shutil.rmtree, cache, ignore_errors=True)

# Grain hands absl flags on to its worker processes and refuses flags not yet parsed.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()
