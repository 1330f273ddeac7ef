"""State of a process that a test may change for those after it, saved and restored.

Cheap enough for every test. What belongs to a library is looked at once the library is
imported. Modules that were imported stay so, as those that imported them hold them.
"""

import logging
import os
import signal
import sys
from typing import Any, NamedTuple

SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGHUP', 'SIGINT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGALRM')
  if hasattr(signal, name)
)
LOGGERS = ('root', 'absl', 'jax')
# Set by pytest for each phase of a test.
PHASE = 'PYTEST_CURRENT_TEST'
# New variables of these are removed. Libraries set others once, when they are imported
# (MOSAIC_GPU_CUDA_ROOT, KMP_INIT_AT_FORK), and need them from then on.
READ_AT_ANY_TIME = ('DLX_', 'JAX_', 'XLA_')


class State(NamedTuple):
  """Of a process, as `saved` found it."""

  environ: dict[str, str]
  folder: str
  path: list[str]
  signals: dict[int, Any]
  loggers: dict[str, tuple[int, list[logging.Handler], bool]]
  numpy: dict[str, Any] | None
  jax: dict[str, Any] | None
  matplotlib: dict[str, Any] | None


def _numpy() -> dict[str, Any] | None:
  numpy = sys.modules.get('numpy')
  return numpy and {'err': numpy.geterr(), 'print': numpy.get_printoptions()}


def _jax() -> dict[str, Any] | None:
  jax = sys.modules.get('jax')
  return jax and dict(jax.config.values)


def _matplotlib() -> dict[str, Any] | None:
  # As a plain mapping: to read its backend through it would import one.
  matplotlib = sys.modules.get('matplotlib')
  return matplotlib and dict(dict.items(matplotlib.rcParams))


def _loggers() -> dict[str, logging.Logger]:
  return {name: logging.getLogger(name) for name in LOGGERS}


def saved() -> State:
  """The state now."""
  return State(
    dict(os.environ),
    os.getcwd(),
    list(sys.path),
    {number: signal.getsignal(number) for number in SIGNALS},
    {k: (x.level, list(x.handlers), x.propagate) for k, x in _loggers().items()},
    _numpy(),
    _jax(),
    _matplotlib(),
  )


def restore(before: State) -> list[str]:
  """Puts back what differs.

  Returns:
    What that was, as 'environ: HOME', 'signals: 2'.
  """
  found = []
  now = dict(os.environ)
  for name in sorted(before.environ.keys() | now.keys()):
    if now.get(name) != before.environ.get(name) and name != PHASE:
      if name in before.environ:
        os.environ[name] = before.environ[name]
      elif name.startswith(READ_AT_ANY_TIME):
        del os.environ[name]
      else:
        continue
      found.append(f'environ: {name}')
  try:
    folder = os.getcwd()
  except FileNotFoundError:  # It was removed.
    folder = None
  if folder != before.folder:
    found.append('folder')
    os.chdir(before.folder)
  if sys.path != before.path:
    found.append('sys.path')
    sys.path[:] = before.path
  for number, handler in before.signals.items():
    # None: not of Python, so that it cannot be set from here.
    if signal.getsignal(number) is not handler and handler is not None:
      found.append(f'signals: {number}')
      signal.signal(number, handler)
  for name, logger in _loggers().items():
    wanted = before.loggers[name]
    if wanted != (logger.level, logger.handlers, logger.propagate):
      found.append(f'loggers: {name}')
      logger.setLevel(wanted[0])
      logger.handlers[:] = wanted[1]
      logger.propagate = wanted[2]
  return found + _restored_libraries(before)


def _restored_libraries(before: State) -> list[str]:
  found = []
  if before.numpy and before.numpy != (now := _numpy()) and now:
    import numpy as np

    found.append('numpy')
    np.seterr(**before.numpy['err'])
    np.set_printoptions(**before.numpy['print'])
  if before.jax and before.jax != (now := _jax()) and now:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    changed = [k for k, value in before.jax.items() if k in now and now[k] != value]
    for name in changed:
      jax.config.update(name, before.jax[name])
    if any('cache' in name for name in changed):
      # Whether and where programs are kept is looked up at the first compilation alone.
      compilation_cache.reset_cache()
    found += [f'jax: {name}' for name in changed]
  if before.matplotlib and before.matplotlib != (now := _matplotlib()) and now:
    import matplotlib

    for name, value in before.matplotlib.items():
      if now[name] != value:
        found.append(f'matplotlib: {name}')
        dict.__setitem__(matplotlib.rcParams, name, value)
  return found
