"""Several sets as one, parts of sets, and marks on them."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.zipped import Zipped, part
from dlx.data.dataset import Loaded, Source
from dlx.data.sources import indexed, of_classes, read, subset
from dlx.errors import ConfigError, DataError

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0, 0, 2], np.int32)


def source(size=10):
  shapes = {
    'x': jax.ShapeDtypeStruct((2,), np.float32),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }

  def read_all(data_dir):
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    origin = {'name': 's', 'split': 'train', 'kind': 'generated', 'size': 10}
    return Loaded({'x': x, 'label': LABELS}, origin)

  return Source('s', 'train', shapes, size, read_all)


class PartsOfASourceTest(parameterized.TestCase):
  def test_indexed_counts_and_cuts(self):
    found = read(indexed(source(), 4))
    np.testing.assert_array_equal(found.data['index'], np.arange(4))
    np.testing.assert_array_equal(found.data['x'][:, 0], [0, 2, 4, 6])
    self.assertEqual(indexed(source(), 40).size, 10)
    self.assertIsNone(indexed(source(None), 4).size)
    self.assertLen(read(indexed(source(None), 40)).data['index'], 10)
    with self.assertRaisesRegex(ConfigError, 'field index'):
      indexed(indexed(source()))
    with self.assertRaisesRegex(ConfigError, 'limit=0'):
      indexed(source(), 0)

  def test_of_classes_renames_in_the_given_order(self):
    found = read(of_classes(source(), (2, 0))).data
    np.testing.assert_array_equal(found['label'], [1, 0, 1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(found['x'][:, 0] // 2, [0, 2, 3, 5, 6, 7, 8, 9])
    self.assertEqual(found['label'].dtype, np.int32)

  @parameterized.parameters(*range(5))
  def test_subset_is_nested_and_balanced(self, seed):
    rows = {}
    for size in (1, 3, 6, 10):
      found = read(subset(source(), size, seed, by_class='label')).data
      rows[size] = set(found['x'][:, 0])
      counts = np.bincount(found['label'], minlength=3)
      # As many of each, as long as there are: the classes have 5, 2 and 3.
      if size <= 6:
        self.assertLessEqual(counts.max() - counts.min(), 1)
      self.assertLen(rows[size], size)
    self.assertTrue(rows[1] <= rows[3] <= rows[6] <= rows[10])

  def test_marked_are_the_smaller_subset(self):
    large = read(subset(source(), 8, 3, marked=4)).data
    small = read(subset(source(), 4, 3)).data
    np.testing.assert_array_equal(large['x'][large['marked']], small['x'])
    other = read(subset(source(), 4, 4)).data
    self.assertFalse(np.array_equal(small['x'], other['x']))

  def test_more_than_there_are(self):
    with self.assertRaisesRegex(ConfigError, 'subset of 11 examples is not allowed'):
      subset(source(), 11)
    with self.assertRaisesRegex(DataError, 'subset of 11 examples is asked for'):
      read(subset(source(None), 11))


class ZippedTest(absltest.TestCase):
  def test_parts_are_what_they_are_alone(self):
    alone = {'a': Shuffled(source(), 4, 0), 'b': Shuffled(subset(source(), 3), 2, 1)}
    both = Zipped(alone)
    loaded = both.load()
    self.assertEqual(loaded.origin['with'][0]['size'], 3)
    self.assertEqual(both.size, 10)
    arrays = jax.tree.map(jnp.asarray, loaded.data)
    shapes = jax.eval_shape(both.get, both.array_shapes(), jnp.int32(0))
    self.assertEqual(
      {k: v.shape for k, v in shapes.items()},
      {k: v.shape for k, v in both.shapes[0].items()},
    )
    for step in (0, 5):
      batch = both.get(arrays, jnp.int32(step))
      for name, data in alone.items():
        expected = data.get(arrays[name], jnp.int32(step))
        jax.tree.map(np.testing.assert_array_equal, part(batch, name), dict(expected))

  def test_placement_goes_by_part(self):
    whole = InOrder(source(), 2)
    whole.placement = {'x': jax.sharding.PartitionSpec()}
    both = Zipped({'a': Shuffled(source(), 4, 0), 'b': whole})
    self.assertEqual(dict(both.placement), {'b/x': jax.sharding.PartitionSpec()})


if __name__ == '__main__':
  absltest.main()
