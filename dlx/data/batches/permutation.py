"""Which example lies where in the training stream, computed index by index.

The stream is an endless row of epochs, each a fresh permutation of the n examples.
Example j of batch `step` is position p = step * B + j of the stream, so it is offset
p mod n of the permutation of epoch p div n: batches straddle epochs, nothing is dropped
and no array of n entries is ever made.

The permutation is a keyed Feistel network over mixed radices (Black and Rogaway 2002):
an index is (x, y) with x < a and y < b, where a is sqrt(n) rounded up to an even
number and a * b exceeds n by less than a, and the rounds add a keyed hash of one part
to the other, modulo its radix. What falls outside [0, n) goes through the network again
(cycle walking), which keeps it a bijection; few indices need it, since a / n is small.
With both radices odd every round would be an even permutation, so one of them is even.

Everything is uint32 arithmetic with the same bits in NumPy (workers) and jnp (inside
jit). Products that need 62 bits are never formed, see `position`.
"""

import functools
import math
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import MAX

# Up to SMALL examples more rounds: each mixes only log2(sqrt(n)) bits, and with 8 the
# orders of 5 to 100 examples are not uniform over many epochs.
# tests/dlx/data/batches/permutation_test.py holds the statistics, and 2 rounds fail
# them.
SMALL, SMALL_ROUNDS, ROUNDS = 256, 24, 8


# Rows of consecutive batches that NumPy computes at once: of 128 rows alone most time
# is that of some 150 calls.
BLOCK = 8192


class Position(NamedTuple):
  """A place in the stream: `(high * 2**32 + low) * n + offset`.

  Attributes:
    high: upper 32 bits of the epoch (which passes 2**32 only where B is far above n).
    low: lower 32 bits of the epoch.
    offset: place within the epoch, in [0, n).
  """

  high: Any
  low: Any
  offset: Any


def _check(name: str, value: int) -> None:
  if not 1 <= value <= MAX:
    raise ValueError(f'{name}={value} is not allowed: must be in [1, 2**31).')


def _uint32(x, xp: ModuleType):
  """A number or an array as uint32, also a Python int of 2**31 and above."""
  return xp.asarray(np.uint32(x) if isinstance(x, int) else x).astype(np.uint32)


def _hash(x):
  """A bijection of uint32 whose output bits depend on all input bits."""
  x = x ^ (x >> np.uint32(16))
  x = x * np.uint32(0x7FEB352D)
  x = x ^ (x >> np.uint32(15))
  x = x * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def _keys(seed, high, low, rounds: int):
  """uint32[rounds, R]: the round keys of the epoch of each index; 64 bits of state."""
  a, b = _hash(seed + np.uint32(0x3C6EF372)), _hash(seed ^ np.uint32(0xA54FF53A))
  for word in (low, high):
    a = _hash(a + word)
    b = _hash((b ^ word) + np.uint32(0x510E527F))
  golden = np.arange(rounds, dtype=np.uint32)[:, None] * np.uint32(0x9E3779B9)
  return _hash(a[None] + golden) ^ b[None]


def permute(
  offset, n: int, seed, high, low, *, xp: ModuleType = jnp, rounds: int | None = None
):
  """Where offsets lie in the permutation of [0, n) of an epoch.

  Args:
    offset: uint32[R], each in [0, n).
    n: number of examples, static, in [1, 2**31).
    seed: a number in [0, 2**32), or a uint32 scalar, which may be traced.
    high: uint32[R], upper half of the epoch of each offset.
    low: uint32[R], lower half.
    xp: `numpy` or `jax.numpy`; the same bits.
    rounds: of the network; None: as many as n needs. Given by tests alone.

  Returns:
    int32[R] in [0, n), distinct for distinct offsets of one epoch.
  """
  _check('n', n)
  a = math.isqrt(n - 1) + 1  # ceil(sqrt(n))
  a += a % 2 if n > 1 else 0
  b = -(-n // a)
  if rounds is None:
    rounds = ROUNDS if n > SMALL else SMALL_ROUNDS
  with np.errstate(over='ignore'):  # NumPy warns where a scalar wraps.
    keys = _keys(_uint32(seed, xp), high, low, rounds)

  def network(z):
    x, y = z // np.uint32(b), z % np.uint32(b)
    for i in range(rounds):
      if i % 2:
        y = (y + _hash(x + keys[i]) % np.uint32(b)) % np.uint32(b)
      else:
        x = (x + _hash(y + keys[i]) % np.uint32(a)) % np.uint32(a)
    return x * np.uint32(b) + y

  inside = np.uint32(n)
  if xp is np:
    z = network(offset)
    while (z >= inside).any():
      z = np.where(z >= inside, network(z), z)
  elif a * b == n:
    z = network(offset)
  else:

    def again(carry):
      z, first = carry
      return jnp.where(first | (z >= inside), network(z), z), jnp.bool_(False)

    # Entered for the first time without a look at z, so that the network stands in the
    # program once: that halves what it costs to compile.
    z, _ = jax.lax.while_loop(
      lambda carry: carry[1] | (carry[0] >= inside).any(),
      again,
      (offset, jnp.bool_(True)),
    )
  return z.astype(np.int32)


@functools.lru_cache(maxsize=64)
def _table(n: int, batch_size: int) -> np.ndarray:
  """uint32[3, 4, 256]: high, low and offset of divmod(d * 256**i * batch_size, n)."""
  table = np.zeros((3, 4, 256), np.uint32)
  for i in range(4):
    for digit in range(256):
      epoch, offset = divmod((digit << 8 * i) * batch_size, n)
      table[:, i, digit] = epoch >> 32, epoch % 2**32, offset
  return table


def position(step, n: int, batch_size: int, *, xp: ModuleType = jnp) -> Position:
  """Where batch `step` begins: exactly divmod(step * batch_size, n).

  `batch_size` and `n` are static and `step` has four bytes, so the answer is the sum of
  four entries of a table that Python's integers fill exactly. Two offsets below
  n < 2**31 add up below 2**32, and the epochs carry.
  """
  _check('n', n)
  _check('batch_size', batch_size)
  digits = (_uint32(step, xp) >> np.arange(0, 32, 8, dtype=np.uint32)) & np.uint32(255)
  high, low, offset = xp.asarray(_table(n, batch_size))[:, np.arange(4), digits]
  for half in (2, 1):
    total = offset[:half] + offset[half:]
    wraps = (total >= np.uint32(n)).astype(np.uint32)
    high, low = _add(high[:half], low[:half], high[half:], low[half:])
    high, low = _add(high, low, np.uint32(0), wraps)
    offset = total - wraps * np.uint32(n)
  return Position(high[0], low[0], offset[0])


def _add(high, low, more_high, more_low):
  """The sum of two 64-bit numbers in halves."""
  total = low + more_low
  return high + more_high + (total < low).astype(np.uint32), total


def stream_rows(
  seed,
  step,
  rows,
  n: int,
  batch_size: int,
  *,
  xp: ModuleType = jnp,
  rounds: int | None = None,
):
  """The example of each of the given rows of global batch `step`.

  Args:
    seed: of the order of the data, in [0, 2**32); may be traced. None: the order of the
      source in every epoch.
    step: number of the batch, in [0, 2**31); may be traced.
    rows: integers[R] in [0, batch_size): rows of the global batch, in any order.
    n: number of examples, static, in [1, 2**31).
    batch_size: rows of the global batch, static, in [1, 2**31); may exceed n.
    xp: `numpy` or `jax.numpy`; the same bits.
    rounds: see `permute`.

  Returns:
    int32[R] in [0, n).
  """
  high, low, offset = _places(step, rows, n, batch_size, xp)
  if seed is None:
    return offset.astype(np.int32)
  return permute(offset, n, seed, high, low, xp=xp, rounds=rounds)


def stream_epochs(step, rows, n: int, batch_size: int, *, xp: ModuleType = jnp):
  """How often the stream had given all examples before each row of batch `step`.

  Args:
    step, rows, n, batch_size, xp: see `stream_rows`.

  Returns:
    int32[R]: the lower 31 bits of the count.
  """
  _, low, _ = _places(step, rows, n, batch_size, xp)
  return (low & np.uint32(2**31 - 1)).astype(np.int32)


def _places(step, rows, n: int, batch_size: int, xp: ModuleType) -> Position:
  """The place in the stream of rows of a batch, uint32[R] each."""
  high, low, offset = position(step, n, batch_size, xp=xp)
  start = offset + _uint32(rows, xp)  # Below 2**32: both are below 2**31.
  high, low = _add(high, low, np.uint32(0), start // np.uint32(n))
  return Position(high, low, start % np.uint32(n))


def host_rows(
  seed: int | None, step: int, rows: slice, n: int, batch_size: int
) -> np.ndarray:
  """`stream_rows` in NumPy, of a batch among its neighbours: kept for the next ones.

  Args:
    seed, step, n, batch_size: as there.
    rows: of the global batch, in a slice.

  Returns:
    int32[R], read-only.
  """
  wanted = rows.indices(batch_size)
  steps = max(1, BLOCK // max(1, len(range(*wanted))))
  block = _block(seed, step // steps, steps, wanted, n, batch_size)
  return block[step % steps]


@functools.lru_cache(maxsize=16)
def _block(
  seed: int | None, number: int, steps: int, rows: tuple, n: int, batch_size: int
) -> np.ndarray:
  """int32[steps, R] of block `number`; below 2**63 there is nothing to split."""
  _check('n', n)
  _check('batch_size', batch_size)
  step = number * steps + np.arange(steps, dtype=np.uint64)[:, None]
  place = step * np.uint64(batch_size) + np.arange(*rows, dtype=np.uint64)
  epoch, offset = np.divmod(place.reshape(-1), np.uint64(n))
  if seed is None:
    index = offset.astype(np.int32)
  else:
    low, high = epoch.astype(np.uint32), (epoch >> np.uint64(32)).astype(np.uint32)
    index = permute(offset.astype(np.uint32), n, seed, high, low, xp=np)
  found = np.asarray(index).reshape(place.shape)
  found.flags.writeable = False
  return found
