"""glibc's allocator, set for programs that take large temporaries at every step.

XLA on the CPU takes every temporary from malloc and gives it back after the step. By
default glibc serves those by mmap, so that each step pays page faults for memory that
the process has just returned: up to a third of a convolutional or transformer step.
Four parameters keep the memory in the process. Its peak does not grow; it is only not
given back to the system in between.
"""

import ctypes
import os
import sys
from typing import Mapping

# malloc.h: parameter and value.
_SETTINGS = (
  (-4, 0),  # M_MMAP_MAX: nothing by mmap.
  (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: do not shrink the heap.
  (-2, 256 << 20),  # M_TOP_PAD: grow it by 256 MB at a time.
  (-8, 1),  # M_ARENA_MAX: one heap for all threads.
)


def tune(environ: Mapping[str, str] = os.environ) -> bool:
  """Sets this process's allocator; returns whether it did. Call it early.

  What the user has set (MALLOC_* or GLIBC_TUNABLES) is left alone.
  """
  if not sys.platform.startswith('linux'):
    return False
  if 'GLIBC_TUNABLES' in environ or any(v.startswith('MALLOC_') for v in environ):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):  # Another C library, as in Alpine.
    return False
  return all(mallopt(name, value) == 1 for name, value in _SETTINGS)
