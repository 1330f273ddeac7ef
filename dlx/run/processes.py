"""What several processes decide together; on one process nothing is exchanged.

All processes call these in the same order, from their main threads. What only process 0
sees or does (the disk) becomes known to all, so that none takes another way and waits
for the others for ever.
"""

import itertools
from typing import Callable, Sequence

import jax
import numpy as np

from dlx.errors import StorageError

_DAY_MS = 24 * 3600 * 1000
_meetings = itertools.count()


def is_first() -> bool:
  """Whether this is process 0, the one that removes, renames and tells."""
  return jax.process_index() == 0


def meet():
  """Waits until all processes are here, for hours where need be.

  Before the first collective of a group of devices: over gloo (the CPU's) that gives up
  when one process is 30 s behind another, with its data, a compilation or a picture;
  later ones wait (75 s were tried).
  """
  if jax.process_count() > 1:
    from jax._src import distributed  # No public name; Orbax does the same.

    client = distributed.global_state.client
    assert client is not None
    client.wait_at_barrier(f'dlx/meet/{next(_meetings)}', _DAY_MS)


def of_first(values: Sequence[int]) -> list[int]:
  """The numbers (int32) of process 0, on every process."""
  if jax.process_count() == 1:
    return list(values)
  from jax.experimental import multihost_utils

  # Two rounds: what is broadcast must have the same shape everywhere.
  count = int(multihost_utils.broadcast_one_to_all(np.int32(len(values))))
  mine = np.array(values if is_first() else [0] * count, np.int32)
  return [int(v) for v in multihost_utils.broadcast_one_to_all(mine)] if count else []


def largest(value: int) -> int:
  """The largest of the numbers that the processes hold."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def first_does(do: Callable[[], object], what: str):
  """Calls `do` on process 0 and nowhere else; no process goes on before it is done.

  Args:
    do: changes files.
    what: it does, for the message.

  Raises:
    OSError: on process 0, what `do` raised.
    StorageError: on the others, where it failed on process 0.
  """
  failed = None
  if is_first():
    try:
      do()
    except OSError as error:
      failed = error
  if largest(failed is not None):
    raise failed or StorageError(f'Process 0 could not {what}; its log says why.')
