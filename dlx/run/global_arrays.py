"""Arrays that several processes hold together: host values in, host values out.

On one process these are jax.device_put and np.array.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.state import is_key


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
  return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def whole(x: jax.Array) -> jax.Array:
  """An array that this process can read; where it lies on several, all call this."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return x
  assert isinstance(x.sharding, NamedSharding)
  everywhere = NamedSharding(x.sharding.mesh, P())
  # Waits: see fingerprint.inspect.
  return jax.block_until_ready(jax.jit(lambda x: x, out_shardings=everywhere)(x))


def to_host(x: Any) -> np.ndarray:
  """A NumPy copy of a leaf; of a typed key, its key data.

  A copy, since a view of a CPU array, while it lives, turns donation into a copy.
  """
  if isinstance(x, jax.Array):
    x = whole(jax.random.key_data(x) if is_key(x) else x)
  return np.array(x)
