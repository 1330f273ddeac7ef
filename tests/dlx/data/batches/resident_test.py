"""Tests of the resident data sets."""

import dataclasses

from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.choose import shuffled
from dlx.data.batches.permutation import stream_rows
from dlx.data.batches.resident import InOrder, Shuffled, Whole
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError, DataError

SHAPES = {
  'image': jax.ShapeDtypeStruct((4, 3), np.uint8),
  'label': jax.ShapeDtypeStruct((), np.int32),
}


def arrays(n):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (n, 4, 3), dtype=np.uint8)
  return {'image': image, 'label': np.arange(n, dtype=np.int32)}


def source(n, *, size=-1, shapes=None, **changed):
  """A source of `arrays(n)`, with fields replaced; None leaves a field out."""
  data = {k: v for k, v in (arrays(n) | changed).items() if v is not None}
  origin = {'name': 'toy', 'split': 'train', 'kind': 'generated'}
  read = lambda data_dir: Loaded(data, {**origin, 'path': data_dir})
  return Source('toy', 'train', shapes or SHAPES, n if size == -1 else size, read)


class LoadTest(parameterized.TestCase):
  def test_returns_declared_fields_contiguous(self):
    turned = np.asfortranarray(arrays(5)['image'])
    loaded = Shuffled(source(5, image=turned), 2, 0).load('somewhere')
    self.assertEqual(list(loaded.data), ['image', 'label'])
    self.assertTrue(loaded.data['image'].flags.c_contiguous)
    np.testing.assert_array_equal(loaded.data['image'], turned)
    self.assertEqual(loaded.origin['size'], 5)
    self.assertEqual(loaded.origin['path'], 'somewhere')

  @parameterized.named_parameters(
    ('missing', dict(label=None), r"fields: expected .*'label'.*, found \['image'\]"),
    ('extra', dict(mask=np.zeros(5)), r"fields: expected .*, found .*'mask'"),
    (
      'dtype',
      dict(label=np.arange(5)),
      "dtype of field 'label': expected int32, found int64",
    ),
    (
      'shape',
      dict(image=np.zeros((5, 4, 4), np.uint8)),
      r"shape of field 'image': expected \(N, 4, 3\), found \(5, 4, 4\)",
    ),
    (
      'rank',
      dict(label=np.int32(3)),
      r"shape of field 'label': expected \(N\), found \(\)",
    ),
    (
      'uneven',
      dict(label=np.arange(4, dtype=np.int32)),
      "size of field 'label': expected 5 as of field 'image', found 4",
    ),
    ('size', dict(size=6), 'size: expected 6 examples, found 5'),
  )
  def test_refuses(self, changed, message):
    with self.assertRaisesRegex(DataError, f'^toy/train: {message}.*:.*'):
      InOrder(source(5, **changed), 2).load()

  def test_refuses_an_empty_set(self):
    with self.assertRaisesRegex(DataError, 'size: expected 1 to .* examples, found 0'):
      Shuffled(source(0, size=None), 2, 0).load()

  def test_declares_shapes_without_reading(self):
    unread = dataclasses.replace(source(5), read=None)
    for data in (Shuffled(unread, 8, 0), InOrder(unread, 8), Whole(unread)):
      held = data.array_shapes()
      chex.assert_trees_all_equal_shapes_and_dtypes(held, arrays(5))
      batch = jax.eval_shape(data.get, held, jnp.int32(0))
      chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(data.shapes[0]))
      self.assertEqual(data.size, 5)

  def test_unknown_size_cannot_be_planned(self):
    data = InOrder(source(5, size=None), 2)
    self.assertIsNone(data.size)
    with self.assertRaisesRegex(ConfigError, 'toy/train: the number of examples'):
      data.array_shapes()
    self.assertEqual(data.num_batches(data.load().data), 3)
    with self.assertRaisesRegex(ConfigError, 'toy/train: the number of examples'):
      Whole(source(5, size=None))

  @parameterized.parameters(0, -1, 2**31)
  def test_refuses_batch_sizes(self, batch_size):
    with self.assertRaisesRegex(ConfigError, f'^batch_size={batch_size} is not allow'):
      shuffled(source(5), batch_size=batch_size, seed=0)

  def test_refuses_a_field_called_weight(self):
    shapes = {'weight': jax.ShapeDtypeStruct((), np.float32)}
    with self.assertRaisesRegex(ConfigError, 'field weight is not allowed'):
      InOrder(source(5, shapes=shapes), 2)


class ShuffledTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (3, 8), (1, 2), (300, 64))
  def test_gathers_the_stream(self, n, batch_size):
    data = Shuffled(source(n), batch_size, seed=5)
    held = data.load().data
    get = jax.jit(data.get)
    for step in (0, 1, 2, 1000, 2**31 - 1):
      rows = stream_rows(5, step, np.arange(batch_size), n, batch_size, xp=np)
      batch = get(held, jnp.int32(step))
      chex.assert_trees_all_equal(batch, {k: x[rows] for k, x in held.items()})
      chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(data.shapes[0]))

  def test_no_end_and_nothing_dropped(self):
    data = Shuffled(source(10), 4, seed=0)
    held = data.load().data
    self.assertIsNone(data.num_batches(held))

    def body(step, seen):
      return seen.at[data.get(held, step)['label']].add(1)

    seen = jax.lax.fori_loop(0, 5, body, jnp.zeros(10, jnp.int32))
    np.testing.assert_array_equal(seen, np.full(10, 2))

  def test_arrays_are_an_argument(self):
    # 300 kB closed over would stand in the text of the program.
    data = Shuffled(source(25_000), 4, seed=0)
    text = jax.jit(data.get).lower(data.load().data, jnp.int32(0)).as_text()
    self.assertLess(len(text), 200_000)

  def test_without_shuffling_epochs_are_in_the_order_of_the_source(self):
    data = Shuffled(source(5), 3, seed=7, shuffle=False)
    held = data.load().data
    labels = [data.get(held, jnp.int32(step))['label'].tolist() for step in range(4)]
    self.assertEqual(labels, [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]])

  def test_seeds_may_be_mapped(self):
    held = arrays(20)
    get = lambda seed: Shuffled(source(20), 4, seed).get(held, jnp.int32(7))['label']
    labels = jax.jit(jax.vmap(get))(jnp.arange(3, dtype=jnp.uint32))
    for seed in range(3):
      np.testing.assert_array_equal(
        labels[seed], stream_rows(seed, 7, np.arange(4), 20, 4, xp=np)
      )


class InOrderTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (8, 4), (3, 8), (1, 1), (5, 5))
  def test_every_example_counts_once(self, n, batch_size):
    data = InOrder(source(n), batch_size)
    held = data.load().data
    count = data.num_batches(held)
    self.assertEqual(count, -(-n // batch_size))
    self.assertEqual(count, data.num_batches(data.array_shapes()))
    get = jax.jit(data.get)
    batches = [get(held, jnp.int32(i)) for i in range(count)]
    for batch in batches:
      chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(data.shapes[0]))
    stacked = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    weight = stacked.pop('weight')
    np.testing.assert_array_equal(weight, np.arange(len(weight)) < n)
    for name, x in held.items():
      np.testing.assert_array_equal(stacked[name][:n], x)
      padding = stacked[name][n:]
      np.testing.assert_array_equal(padding, np.broadcast_to(x[-1], padding.shape))

  def test_past_the_end_nothing_counts(self):
    data = InOrder(source(10), 4)
    for step in (3, 4, 2**30, 2**31 - 1):
      self.assertEqual(data.get(arrays(10), jnp.int32(step))['weight'].sum(), 0)


class WholeTest(parameterized.TestCase):
  def test_full_arrays(self):
    data = Whole(source(5))
    held = data.load().data
    self.assertEqual(data.num_batches(held), 1)
    self.assertEqual(data.placement, {'image': P(), 'label': P()})
    chex.assert_trees_all_equal(data.get(held, jnp.int32(3)), held)

  def test_a_graph_is_one_example(self):
    shapes = {
      'features': jax.ShapeDtypeStruct((6, 2), np.float32),
      'edges': jax.ShapeDtypeStruct((9, 2), np.int32),
    }
    graph = {
      'features': np.ones((1, 6, 2), np.float32),
      'edges': np.zeros((1, 9, 2), np.int32),
    }
    one = source(1, shapes=shapes, image=None, label=None, **graph)
    data = Whole(one)
    held = data.load().data
    chex.assert_trees_all_equal_shapes_and_dtypes(held, data.array_shapes())
    chex.assert_trees_all_equal_shapes_and_dtypes(dict(data.shapes[0]), dict(shapes))
    batch = data.get(held, jnp.int32(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(shapes))

  def test_fields(self):
    data = Whole(source(5), fields=['label'])
    self.assertEqual(list(data.get(arrays(5), jnp.int32(0))), ['label'])
    self.assertEqual(list(data.shapes[0]), ['label'])
    self.assertEqual(data.placement, {'label': P()})
    with self.assertRaisesRegex(ConfigError, "field 'lable' is not allowed: .*label"):
      Whole(source(5), fields=['lable'])
