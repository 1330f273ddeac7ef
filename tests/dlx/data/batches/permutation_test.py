"""Tests of the order of the training stream."""

import functools
import math

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches import permutation
from dlx.data.batches.permutation import permute, position, stream_rows

M = 2**31 - 1


def orders(n, epochs, rounds=None, seed=1):
  """int[epochs, n]: the permutations of the first epochs."""
  offset = np.tile(np.arange(n, dtype=np.uint32), epochs)
  epoch = np.repeat(np.arange(epochs, dtype=np.uint32), n)
  out = permute(offset, n, seed, np.zeros_like(epoch), epoch, xp=np, rounds=rounds)
  return out.reshape(epochs, n)


def excess(counts, cells, freedom):
  """How many standard deviations the chi-square of counts lies above its mean.

  Chi-square of f degrees of freedom has mean f and variance 2 f. `counts` may leave
  out empty cells, `cells` is their true number.
  """
  counts = np.concatenate([counts, np.zeros(cells - len(counts))])
  expected = counts.sum() / cells
  chi_square = ((counts - expected) ** 2 / expected).sum()
  return (chi_square - freedom) / math.sqrt(2 * freedom)


def order_excess(n, rounds=None):
  """Of the n! orders, over 100 n! epochs."""
  out = orders(n, 100 * math.factorial(n), rounds)
  _, counts = np.unique(out @ n ** np.arange(n), return_counts=True)
  return excess(counts, math.factorial(n), math.factorial(n) - 1)


def place_excess(n, epochs, rounds=None):
  """Of the n * n pairs (place, example).

  Every place and every example occurs once an epoch: (n - 1)**2 degrees of freedom,
  and the plain sum is n / (n - 1) times a chi-square of them.
  """
  out = orders(n, epochs, rounds)
  counts = np.bincount((out + n * np.arange(n)).ravel(), minlength=n * n)
  expected = epochs / n
  chi_square = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n
  return (chi_square - (n - 1) ** 2) / math.sqrt(2 * (n - 1) ** 2)


def step_excess(n, epochs, distance, rounds=None):
  """Of the n - 1 differences between examples that lie `distance` places apart."""
  out = orders(n, epochs, rounds)
  steps = (out[:, distance:] - out[:, :-distance]) % n
  counts = np.bincount(steps.ravel(), minlength=n)
  assert counts[0] == 0
  return excess(counts[1:], n - 1, n - 2)


class PositionTest(parameterized.TestCase):
  def test_equals_big_integers(self):
    rng = np.random.default_rng(0)
    edges = [1, 2, 3, 7, 65536, 1_280_000, M - 1, M]
    draw = lambda low: int(rng.choice([*edges, rng.integers(low, M)]))
    for _ in range(400):
      n, batch, step = draw(1), draw(1), draw(0) - int(rng.integers(2))
      got = position(step, n, batch, xp=np)
      epoch, offset = divmod(step * batch, n)
      self.assertEqual(
        (int(got.high) * 2**32 + int(got.low), int(got.offset)),
        (epoch, offset),
        (n, batch, step),
      )

  @parameterized.parameters(
    (1_280_000, 65536), (3, 65536), (1, M), (M, M), (M, 1), (60000, 128)
  )
  def test_traced_equals_big_integers(self, n, batch):
    f = jax.jit(functools.partial(position, n=n, batch_size=batch))
    for step in (0, 1, 5, 2**16, 2**30 + 12345, M - 1, M):
      got = f(jnp.int32(step))
      epoch, offset = divmod(step * batch, n)
      self.assertEqual(
        (int(got.high) * 2**32 + int(got.low), int(got.offset)), (epoch, offset)
      )

  @parameterized.parameters((0, 4), (2**31, 4), (4, 0), (4, 2**31))
  def test_refuses_sizes(self, n, batch):
    with self.assertRaisesRegex(ValueError, 'is not allowed'):
      stream_rows(0, 0, np.arange(2), n, batch, xp=np)


class PermuteTest(parameterized.TestCase):
  @parameterized.parameters(*range(1, 20), 255, 256, 257, 1024, 1437, 9409, 9410, 60000)
  def test_bijection(self, n):
    for out in orders(n, 3):
      np.testing.assert_array_equal(np.sort(out), np.arange(n))

  def test_largest_n(self):
    # Out of 2**31 - 1 values, 50000 random ones that are distinct stay distinct; chance
    # alone would give 50000**2 / 2**32, about half a collision: 200000 give nine.
    rng = np.random.default_rng(0)
    offset = np.unique(rng.integers(0, M, 200_000)).astype(np.uint32)
    offset = np.append(offset, np.uint32(M - 1))
    zero = np.zeros_like(offset)
    out = permute(offset, M, 3, zero, zero, xp=np)
    self.assertLen(np.unique(out), len(np.unique(offset)))
    self.assertGreaterEqual(out.min(), 0)
    self.assertLess(out.max(), M)
    # Thirty-two equal parts of the range: 31 degrees of freedom, five deviations.
    counts = np.bincount(out.astype(np.int64) * 32 // M, minlength=32)
    self.assertLess(excess(counts, 32, 31), 5)

  @parameterized.parameters(1, 2, 3, 5, 10, 256, 257, 1437, 60000, M)
  def test_numpy_equals_jax(self, n):
    rng = np.random.default_rng(n)
    words = lambda high: jnp.asarray(rng.integers(0, high, 512, dtype=np.uint32))
    offset, high, low = words(n), words(2**32 - 1), words(2**32 - 1)
    got = jax.jit(lambda *x, seed: permute(x[0], n, seed, x[1], x[2]))(
      offset, high, low, seed=jnp.uint32(2**32 - 5)
    )
    want = permute(
      *map(np.asarray, (offset,)),
      n,
      2**32 - 5,
      np.asarray(high),
      np.asarray(low),
      xp=np,
    )
    self.assertEqual(got.dtype, jnp.int32)
    self.assertEqual(want.dtype, np.int32)
    np.testing.assert_array_equal(got, want)

  def test_key_words_all_count(self):
    offset = np.arange(1000, dtype=np.uint32)
    out = [
      permute(
        offset, 1000, seed, np.full_like(offset, high), np.full_like(offset, low), xp=np
      )
      for seed, high, low in (
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (2**31, 0, 0),
        (0, 2**31, 0),
        (0, 0, 2**31),
      )
    ]
    for i, a in enumerate(out):
      for b in out[:i]:
        # Two random orders agree in Poisson(1) places; P(11 or more) is 1e-8.
        self.assertLess((a == b).sum(), 11)


class StatisticsTest(parameterized.TestCase):
  """Each bound is six deviations of a chi-square of f degrees of freedom.

  Its tail is heavier than the normal one: at f = 1 six deviations above the mean are
  9.5, P = 2e-3; at f = 5 they are 24, P = 2e-4; at f = 100 they are 185, P = 5e-7.
  Seeds are fixed, so a test passes or fails for ever.
  """

  @parameterized.parameters(2, 3, 4, 5, 6, 7)
  def test_all_orders_are_equally_likely(self, n):
    self.assertLess(order_excess(n), 6)

  @parameterized.parameters(4, 5, 6)
  def test_orders_of_two_rounds_are_not(self, n):
    self.assertGreater(order_excess(n, rounds=2), 6)

  @parameterized.parameters(
    (3, 40000),
    (8, 40000),
    (9, 40000),
    (10, 40000),
    (50, 20000),
    (256, 4000),
    (257, 4000),
    (1000, 1000),
  )
  def test_places(self, n, epochs):
    self.assertLess(place_excess(n, epochs), 6)

  @parameterized.parameters((10, 40000), (50, 20000))
  def test_places_of_two_rounds(self, n, epochs):
    self.assertGreater(place_excess(n, epochs, rounds=2), 6)

  @parameterized.product(
    case=(
      (8, 40000),
      (9, 40000),
      (10, 40000),
      (50, 20000),
      (256, 4000),
      (257, 4000),
      (1437, 1000),
      (60000, 16),
    ),
    column=(False, True),
  )
  def test_neighbours(self, case, column):
    # Also at the distance of one column of the network, where its structure would show.
    n, epochs = case
    distance = -(-n // (math.isqrt(n - 1) + 1)) if column else 1
    self.assertLess(step_excess(n, epochs, distance), 6)

  @parameterized.parameters(
    (10, 4000), (50, 4000), (257, 1000), (1437, 200), (60000, 4)
  )
  def test_neighbours_of_two_rounds(self, n, epochs):
    self.assertGreater(step_excess(n, epochs, 1, rounds=2), 6)

  def test_epochs_and_seeds_are_independent(self):
    # The differences of one place over successive epochs, and over successive seeds:
    # uniform over [0, n), n - 1 degrees of freedom.
    n = 500
    for out in (
      orders(n, 400),
      np.concatenate([orders(n, 1, None, s) for s in range(400)]),
    ):
      steps = (out[1:] - out[:-1]) % n
      counts = np.bincount(steps.ravel(), minlength=n)
      self.assertLess(excess(counts, n, n - 1), 6)


class StreamRowsTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (10, 10), (7, 16), (3, 65), (1, 5), (300, 7))
  def test_every_epoch_is_whole(self, n, batch):
    stream = np.concatenate(
      [
        stream_rows(5, step, np.arange(batch), n, batch, xp=np)
        for step in range(-(-6 * n // batch))
      ]
    )
    epochs = stream[: 6 * n].reshape(6, n)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(n), (6, 1)))
    np.testing.assert_array_equal(epochs, orders(n, 6, seed=5))
    if n > 9:
      self.assertLen(np.unique(epochs, axis=0), 6)

  @parameterized.parameters(
    (1_280_000, 65536, 64), (3, 65536, 64), (M, M, 8), (1, 3, 3), (1437, 64, 64)
  )
  def test_big_integers_numpy_and_jax_agree(self, n, batch, count):
    f = jax.jit(lambda seed, step, rows: stream_rows(seed, step, rows, n, batch))
    rng = np.random.default_rng(1)
    for step in (0, 1, 123_456, 2**30, M - 1, M):
      rows = np.sort(rng.integers(0, batch, count)).astype(np.int32)
      rows[-1] = batch - 1
      places = [divmod(step * batch + int(row), n) for row in rows]
      want = permute(
        np.array([offset for _, offset in places], np.uint32),
        n,
        11,
        np.array([e >> 32 for e, _ in places], np.uint32),
        np.array([e % 2**32 for e, _ in places], np.uint32),
        xp=np,
      )
      np.testing.assert_array_equal(stream_rows(11, step, rows, n, batch, xp=np), want)
      got = f(jnp.uint32(11), jnp.int32(step), jnp.asarray(rows))
      np.testing.assert_array_equal(got, want)

  @parameterized.parameters(
    (10, 4, slice(None)),
    (1, 2, slice(1, 2)),
    (300, 64, slice(60, 3, -7)),
    (60000, 128, slice(0, 128)),
    (7, 3 * permutation.BLOCK, slice(None)),
    (3, 2**30, slice(2**30 - 9, 2**30)),
    (M, M, slice(5, 9)),
  )
  def test_blocks_on_the_host_are_those_of_each_batch(self, n, batch, rows):
    wanted = np.arange(*rows.indices(batch))
    for step in (0, 1, 2, 63, 64, 65, 2**20, M):
      found = permutation.host_rows(5, step, rows, n, batch)
      each = stream_rows(5, step, wanted, n, batch, xp=np)
      np.testing.assert_array_equal(found, each, strict=True)
    self.assertFalse(found.flags.writeable)  # Kept for the batches after it.

  @parameterized.parameters((10, 4), (3, 8), (1, 2), (300, 64), (M, M))
  def test_without_a_seed_the_source_is_repeated(self, n, batch):
    get = jax.jit(lambda step: stream_rows(None, step, jnp.arange(9) % batch, n, batch))
    rows = np.arange(9) % batch
    for step in (0, 1, 2, 65, 2**20, M):
      want = np.array([(step * batch + int(row)) % n for row in rows], np.int32)
      found = stream_rows(None, step, rows, n, batch, xp=np)
      np.testing.assert_array_equal(found, want, strict=True)
      np.testing.assert_array_equal(get(jnp.int32(step)), want, strict=True)
      on_host = permutation.host_rows(None, step, slice(0, min(9, batch)), n, batch)
      np.testing.assert_array_equal(on_host, want[: min(9, batch)], strict=True)

  def test_vmapped_seeds(self):
    rows = functools.partial(stream_rows, n=50, batch_size=8)
    f = jax.jit(jax.vmap(lambda seed: rows(seed, jnp.int32(9), jnp.arange(8))))
    got = f(jnp.arange(3, dtype=jnp.uint32))
    for seed in range(3):
      np.testing.assert_array_equal(
        got[seed], stream_rows(seed, 9, np.arange(8), 50, 8, xp=np)
      )

  def test_order_is_pinned(self):
    # A change of these numbers breaks the resumption of every run: raise the version.
    self.assertEqual(permutation.ROUNDS, 8)
    got = [
      stream_rows(0, 0, np.arange(6), 1437, 6, xp=np).tolist(),
      stream_rows(7, 1000, np.arange(6), 60000, 128, xp=np).tolist(),
      stream_rows(3, 2, np.arange(6), 5, 6, xp=np).tolist(),
    ]
    self.assertEqual(
      got,
      [
        [61, 155, 1427, 18, 995, 1208],
        [47582, 26572, 32720, 49202, 16543, 29878],
        [3, 0, 1, 0, 1, 2],
      ],
    )
