"""Buckets: shapes, order and cover of an epoch, cuts, declared lengths."""

import collections
import dataclasses
import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches import buckets as lib
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError, DataError

WIDTH = 7
# Token 100 + i marks sentence i.
LENGTHS = np.random.default_rng(0).integers(1, WIDTH + 1, 53)
TOKENS = np.where(np.arange(WIDTH) < LENGTHS[:, None], 100 + np.arange(53)[:, None], 0)
COUNTS = tuple(int((LENGTHS == n).sum()) for n in range(1, WIDTH + 1))


def source(**change):
  data = {'tokens': TOKENS.astype(np.int32), 'label': np.arange(53, dtype=np.int32) % 2}
  shapes = {
    'tokens': jax.ShapeDtypeStruct((WIDTH,), np.int32),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  origin = {'name': 'words', 'split': 'train', 'kind': 'generated', 'size': 53}
  read = lambda data_dir: Loaded(data, origin)
  return dataclasses.replace(Source('words', 'train', shapes, 53, read), **change)


def bucketed(**change):
  fields = dict(lengths=(3, 5, 7), batch_size=4, seed=3, block_steps=1)
  return lib.Bucketed(source(), COUNTS, **{**fields, **change})


def epoch(data, arrays, e):
  """Batches of an epoch, each with its bucket."""
  get = jax.jit(data.get, static_argnames='shape_id')
  for step in range(e * data.steps_per_epoch, (e + 1) * data.steps_per_epoch):
    i = data.shape_id(step)
    yield i, jax.tree.map(np.array, get(arrays, jnp.int32(step), shape_id=i))


class LeastPaddingTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 3, 4, 12)
  def test_as_by_trying_all(self, most):
    rng = np.random.default_rng(most)
    for size in (1, 2, 6, 9):
      counts = rng.integers(0, 5, size) * rng.integers(0, 2, size)
      counts[-1] += 1

      def tokens(lengths, counts=counts):
        sizes = [counts[a:b].sum() for a, b in itertools.pairwise((0, *lengths))]
        return int(np.dot(sizes, lengths))

      found = lib.lengths_of_least_padding(counts, most)
      every = [
        (*inner, size)
        for k in range(min(most, size))
        for inner in itertools.combinations(range(1, size), k)
      ]
      self.assertLessEqual(len(found), most)
      self.assertEqual(tokens(found), min(map(tokens, every)))
      self.assertNotIn(0, lib.bucket_sizes(counts, found))


class PairsTest(absltest.TestCase):
  def test_a_pair_is_as_long_as_its_longer_side(self):
    rng = np.random.default_rng(0)
    lengths_N2 = rng.integers(1, WIDTH + 1, (40, 2))
    mark_N1 = 100 + np.arange(40, dtype=np.int32)[:, None]
    sides = {
      name: np.where(np.arange(WIDTH) < lengths_N2[:, i, None], mark_N1, 0)
      for i, name in enumerate(('source', 'target'))
    }
    shape = jax.ShapeDtypeStruct((WIDTH,), np.int32)
    origin = {'name': 'pairs', 'split': 'train', 'kind': 'generated', 'size': 40}
    pairs = Source(
      'pairs', 'train', dict.fromkeys(sides, shape), 40, lambda _: Loaded(sides, origin)
    )
    counts = np.bincount(lengths_N2.max(1), minlength=WIDTH + 1)[1:].tolist()
    data = lib.Bucketed(
      pairs, counts, lengths=(5, 7), batch_size=8, seed=0, fields=('source', 'target')
    )
    seen = []
    for i, batch in epoch(data, data.load().data, 0):
      self.assertEqual(batch['source'].shape, (8, (5, 7)[i]))
      self.assertEqual(batch['target'].shape, (8, (5, 7)[i]))
      row_B = batch['source'][:, 0] - 100
      np.testing.assert_array_equal(row_B, batch['target'][:, 0] - 100)
      for side, name in enumerate(sides):
        found_B = (batch[name] != 0).sum(1)
        np.testing.assert_array_equal(found_B, lengths_N2[row_B, side])
      fits = lengths_N2[row_B].max(1) <= 5
      self.assertTrue(fits.all() if i == 0 else not fits.any())
      seen += row_B.tolist()
    self.assertEqual(set(seen), set(range(40)))
    self.assertEqual(data.steps, tuple(-(-n // 8) for n in data.sizes))


class BucketSizesTest(parameterized.TestCase):
  def test_counts(self):
    self.assertEqual(lib.bucket_sizes((1, 2, 3, 4), (2, 4)), (3, 7))
    # Longer sentences are cut to the last bucket; a last bucket may be too long.
    self.assertEqual(lib.bucket_sizes((1, 2, 3, 4), (1, 2)), (1, 9))
    self.assertEqual(lib.bucket_sizes((1, 2, 3, 4), (3, 9)), (6, 4))

  @parameterized.parameters(
    ((), 'must be one or more rising'),
    ((0, 2), 'must be one or more rising'),
    ((4, 2), 'must be one or more rising'),
    ((2, 2), 'must be one or more rising'),
    ((1, 4), 'no sentence belongs to the bucket of 1 tokens'),
  )
  def test_refuses(self, lengths, message):
    with self.assertRaisesRegex(ConfigError, message):
      lib.bucket_sizes((0, 2, 3, 4), lengths)


class BucketedTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_every_sentence_once_an_epoch_up_to_filling(self, block_steps):
    data = bucketed(block_steps=block_steps)
    arrays = data.load().data
    rows = 4 * block_steps
    for e in (0, 5):
      seen = collections.defaultdict(collections.Counter)
      for i, batch in epoch(data, arrays, e):
        self.assertEqual(batch['tokens'].shape, (4, data.lengths[i]))
        length = (batch['tokens'] > 0).sum(1)
        self.assertTrue((length <= data.lengths[i]).all())
        self.assertTrue(i == 0 or (length > data.lengths[i - 1]).all())
        sentence = batch['tokens'][:, 0] - 100
        np.testing.assert_array_equal(batch['label'], sentence % 2)
        np.testing.assert_array_equal(length, LENGTHS[sentence])
        seen[i].update(sentence.tolist())
      for i, size in enumerate(data.sizes):
        self.assertLen(seen[i], size)
        wanted = -(-size // rows) * rows
        self.assertEqual(seen[i].total(), wanted)
        # The filling is spread evenly.
        self.assertLessEqual(max(seen[i].values()), -(-wanted // size))
      self.assertEqual(sum(map(len, seen.values())), 53)

  def test_arrays_have_the_declared_shapes_and_constructing_reads_nothing(self):
    def never(data_dir):
      raise AssertionError('read')

    data = lib.Bucketed(
      source(read=never), COUNTS, lengths=(3, 7), batch_size=4, seed=0
    )
    declared = data.array_shapes()
    self.assertEqual(data.shapes[1]['tokens'].shape, (4, 7))
    found = bucketed(lengths=(3, 7)).load().data
    self.assertEqual(declared.keys(), found.keys())
    for name, x in found.items():
      self.assertEqual((x.shape, x.dtype), (declared[name].shape, declared[name].dtype))

  def test_order_is_pure_and_changes_with_seed_and_epoch(self):
    order = lambda data, e: [
      data.shape_id(s)
      for s in range(e * data.steps_per_epoch, (e + 1) * data.steps_per_epoch)
    ]
    data = bucketed()
    self.assertEqual(order(data, 0), order(bucketed(), 0))
    self.assertNotEqual(order(data, 0), order(data, 1))
    self.assertNotEqual(order(data, 0), order(bucketed(seed=4), 0))
    self.assertEqual(sorted(order(data, 0)), sorted(order(data, 1)))
    arrays = data.load().data
    rows = lambda e: [
      b['tokens'][:, 0].tolist() for i, b in epoch(data, arrays, e) if not i
    ]
    self.assertNotEqual(rows(0), rows(1))

  def test_shape_is_constant_over_blocks(self):
    data = bucketed(block_steps=4)
    ids = [data.shape_id(s) for s in range(2 * data.steps_per_epoch)]
    blocks = np.reshape(ids, (-1, 4))
    np.testing.assert_array_equal(blocks, blocks[:, :1].repeat(4, 1))
    self.assertEqual(set(ids), {0, 1, 2})

  def test_sentences_are_cut_at_the_longest_bucket(self):
    data = bucketed(lengths=(2, 4))
    arrays = data.load().data
    self.assertEqual(arrays['tokens/4'].shape, (int((LENGTHS > 2).sum()), 4))
    whole = LENGTHS[LENGTHS > 2]
    found = (arrays['tokens/4'] > 0).sum(1)
    np.testing.assert_array_equal(found, np.minimum(whole, 4))

  def test_other_lengths_than_declared_are_refused(self):
    wrong = (COUNTS[0] + 1, COUNTS[1] - 1, *COUNTS[2:])
    data = lib.Bucketed(source(), wrong, lengths=(3, 7), batch_size=4, seed=0)
    message = (
      f'words/train: expected {wrong[0]} sentences of 1 tokens, found {COUNTS[0]}'
    )
    with self.assertRaisesRegex(DataError, message):
      data.load()

  def test_block_steps_are_at_least_one(self):
    with self.assertRaisesRegex(ConfigError, 'bucket_block_steps=0 is not allowed'):
      bucketed(block_steps=0)


if __name__ == '__main__':
  absltest.main()
