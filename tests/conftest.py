"""What every test runs under; set before jax is imported, inherited by subprocesses."""

import os
import pathlib

from absl import flags

ACCELERATORS = ('/dev/nvidiactl', '/dev/accel0', '/dev/vfio/0')

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

# Grain hands absl flags on to its worker processes and refuses flags not yet parsed.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()
