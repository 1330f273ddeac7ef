"""Sums over the bits of a state: checksums on the device, a fingerprint on the host."""

import hashlib
import json
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlx.run.processes import to_host
from dlx.state import Array, is_key, leaves_by_path


def fingerprint(tree: Any) -> str:
  """sha256 over the sha256 of every leaf: equal exactly where all bits are.

  A leaf's sum is over its path, dtype, shape and little-endian bytes; a typed key's
  over its implementation and key data. Reads everything to the host: for the end of a
  run. Several processes call it together.
  """
  total = hashlib.sha256()
  for path, leaf in leaves_by_path(tree).items():
    kind = str(jax.random.key_impl(leaf)) if is_key(leaf) else str(leaf.dtype)
    host = to_host(leaf)
    little = host.astype(host.dtype.newbyteorder('<'), copy=False)
    one = hashlib.sha256(json.dumps([path, kind, list(host.shape)]).encode())
    one.update(np.ascontiguousarray(little).tobytes())
    total.update(one.digest())
  return total.hexdigest()


def _words(x: Array) -> list[Array]:
  """The bits of a leaf as arrays of uint32 of its shape (two of them for 8 bytes)."""
  if is_key(x):
    x = jax.random.key_data(x)
  if jnp.issubdtype(x.dtype, jnp.complexfloating):
    return _words(x.real) + _words(x.imag)
  if x.dtype == bool:
    return [x.astype(jnp.uint32)]
  size = x.dtype.itemsize
  if size == 8:
    pair = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return [pair[..., 0], pair[..., 1]]
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[size]
  return [jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)]


def _mix(x: Array) -> Array:
  """A bijection of uint32 in which every bit depends on every bit (murmur3's end)."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def checksum(x: Array) -> Array:
  """uint32[2] that differs, but for a chance of 2**-64, if any bit of a leaf does.

  The sum over elements of a hash of (position, bits), so that it is computed where the
  shards are and does not depend on how the leaf is sharded.
  """
  lanes = []
  for lane, salt in enumerate((0x9E3779B1, 0x7FEB352D)):
    total = jnp.zeros((), jnp.uint32)
    for word, bits in enumerate(_words(x)):
      position = jnp.full(bits.shape, 2 * word + lane + 1, jnp.uint32)
      for axis, size in enumerate(bits.shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        position = position * jnp.uint32(size % 2**32) + index
      # Positions are hashed before the bits come in: a swap of two elements shows.
      total += _mix(bits + _mix(position * jnp.uint32(salt))).sum(dtype=jnp.uint32)
    lanes.append(total)
  return jnp.stack(lanes)


@jax.jit
def _inspect(x: Array) -> tuple[Array, Array]:
  inexact = jnp.issubdtype(x.dtype, jnp.inexact)
  return checksum(x), jnp.isfinite(x).all() if inexact else jnp.ones((), bool)


def inspect(leaves: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
  """(checksum, whether all finite) of every leaf, on the device.

  One small program for each shape, dtype and sharding, shared by the leaves that have
  them: one of all leaves takes as long to compile as a train step.
  """
  found = {}
  for i, (name, x) in enumerate(leaves.items()):
    found[name] = _inspect(x)
    # On the CPU, 32 programs in flight whose devices wait for each other stand still
    # for ever: 40 of these did, over gloo and in one process (jax 0.10.2 and 0.11.2).
    if i % 8 == 7:
      jax.block_until_ready(list(found.values())[-8:])
  sums = {name: value for name, (value, _) in found.items()}
  return sums, {name: value for name, (_, value) in found.items()}


def as_text(sums: dict[str, Any]) -> dict[str, str]:
  """Checksums as they stand in a checkpoint's metadata: 16 hexadecimal digits."""
  return {
    name: ''.join(f'{int(v):08x}' for v in np.asarray(value))
    for name, value in sums.items()
  }
