"""What several processes decide together, and the arrays that they hold together.

All processes call these in the same order, from their main threads. What only process 0
sees or does (the disk) becomes known to all, so that none takes another way and waits
for the others for ever. On one process nothing is exchanged: `put` is jax.device_put
and `to_host` np.array.
"""

import itertools
from typing import Any, Callable, Sequence

import jax
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.errors import StorageError
from dlx.state import is_key

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


# Arrays: host values in, host values out.


def put(tree: Any, shardings: Any) -> Any:
  """Values that every process holds whole, on the devices.

  jax.device_put would compare them between the processes, with a collective for every
  leaf. A leaf that is on the devices of several processes already is only rearranged.

  Args:
    tree: arrays or NumPy arrays, equal on every process.
    shardings: one for all, or a tree of them.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  if isinstance(shardings, Sharding):
    return jax.tree.map(lambda x: _put(x, shardings), tree)
  return jax.tree.map(_put, tree, shardings)


def _put(x: Any, sharding: Sharding) -> jax.Array:
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return jax.jit(lambda x: x, out_shardings=sharding)(x)
  if isinstance(x, jax.Array) and is_key(x):
    data, impl = jax.random.key_data(x), jax.random.key_impl(x)
    assert isinstance(sharding, NamedSharding)
    whole = _put(data, NamedSharding(sharding.mesh, P()))
    wrap = lambda data: jax.random.wrap_key_data(data, impl=impl)
    return jax.jit(wrap, out_shardings=sharding)(whole)
  host = np.asarray(x)
  with jax.transfer_guard('allow'):  # JAX does not take this for an explicit transfer.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def whole(x: jax.Array) -> jax.Array:
  """An array that this process can read; where it lies on several, all call this."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return x
  assert isinstance(x.sharding, NamedSharding)
  everywhere = NamedSharding(x.sharding.mesh, P())
  # Waits: see checksums.inspect.
  return jax.block_until_ready(jax.jit(lambda x: x, out_shardings=everywhere)(x))


def to_host(x: Any) -> np.ndarray:
  """A NumPy copy of a leaf; of a typed key, its key data.

  A copy, since a view of a CPU array, while it lives, turns donation into a copy.
  """
  if isinstance(x, jax.Array):
    x = whole(jax.random.key_data(x) if is_key(x) else x)
  return np.array(x)
