"""Windows of a text: each start once an epoch, each target once a pass."""

from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.windows import AllWindows, ContinuingWindows, Windows
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError, DataError


def source(n, *, declared=-1, shapes=None):
  """A text whose tokens are their own places."""
  data = {'token': np.arange(n, dtype=np.uint8)}
  return Source(
    'toy',
    'train',
    shapes or {'token': jax.ShapeDtypeStruct((), np.uint8)},
    n if declared == -1 else declared,
    lambda data_dir: Loaded(data, {'name': 'toy', 'path': data_dir}),
  )


def batches(data, count):
  held = data.load().data
  get = jax.jit(data.get)
  return [jax.device_get(get(held, jnp.int32(i))) for i in range(count)]


class WindowsTest(parameterized.TestCase):
  @parameterized.parameters(
    (20, 4, 1, range(16)),  # The last window starts at 15 and ends at 19.
    (20, 4, 4, (0, 4, 8, 12)),
    (21, 4, 4, (0, 4, 8, 12, 16)),
    (5, 4, 1, (0,)),
  )
  def test_every_start_once_an_epoch(self, n, length, stride, starts):
    data = Windows(source(n), len(starts), length, seed=3, stride=stride)
    found = batches(data, 2)
    for batch in found:
      token = batch['token']
      self.assertEqual(sorted(token[:, 0].tolist()), list(starts))
      np.testing.assert_array_equal(
        token - token[:, :1], [range(length + 1)] * len(token)
      )
    if len(starts) > 4:
      self.assertNotEqual(found[0]['token'].tolist(), found[1]['token'].tolist())

  def test_a_batch_is_a_function_of_seed_and_step(self):
    get = lambda size, seed, count: np.concatenate(
      [b['token'] for b in batches(Windows(source(50), size, 7, seed), count)]
    )
    # The stream does not depend on how it is cut, but on the seed.
    np.testing.assert_array_equal(get(4, 0, 6), get(8, 0, 3))
    self.assertFalse(np.array_equal(get(4, 0, 6), get(4, 1, 6)))

  def test_declares_shapes_without_reading(self):
    for data in (Windows(source(50), 4, 7, 0), AllWindows(source(50), 4, 7)):
      held = data.array_shapes()
      batch = jax.eval_shape(data.get, held, jnp.int32(0))
      chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(data.shapes[0]))
      self.assertEqual(data.load('here').origin['path'], 'here')
    self.assertIsNone(Windows(source(50), 4, 7, 0).num_batches(held))


class ContinuingWindowsTest(parameterized.TestCase):
  def test_each_row_reads_its_part_from_its_begin_to_its_end(self):
    # 29 targets: three parts of 9, two windows of 4 each, 1 target left over.
    data = ContinuingWindows(source(30), 3, 4)
    found = batches(data, 6)
    firsts = [batch['token'][:, 0].tolist() for batch in found]
    first = [[0, 9, 18], [4, 13, 22]]
    later = [[1, 10, 19], [5, 14, 23]]  # The second epoch begins one token later.
    self.assertEqual(firsts, [*first, *later, *first])
    for i, batch in enumerate(found):
      token = batch['token']
      np.testing.assert_array_equal(token - token[:, :1], [range(5)] * 3)
      np.testing.assert_array_equal(batch['reset'], [i % 2 == 0] * 3)
      if i % 2:  # The last target of a window is the first input of the next.
        np.testing.assert_array_equal(token[:, 0], found[i - 1]['token'][:, -1])

  def test_parts_that_windows_fill_begin_at_the_same_tokens_in_each_epoch(self):
    found = batches(ContinuingWindows(source(9), 2, 4), 2)
    for batch in found:
      self.assertEqual(batch['token'].tolist(), [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
      self.assertTrue(batch['reset'].all())

  def test_a_part_shorter_than_a_window(self):
    with self.assertRaisesRegex(ConfigError, 'length=4 .* at most 3, .* of 3 parts'):
      ContinuingWindows(source(12), 3, 4)

  def test_declares_shapes_without_reading(self):
    data = ContinuingWindows(source(50), 4, 7)
    batch = jax.eval_shape(data.get, data.array_shapes(), jnp.int32(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(data.shapes[0]))


class AllWindowsTest(parameterized.TestCase):
  @parameterized.product(n=(9, 17, 18, 24, 5), batch_size=(1, 3, 8))
  def test_every_target_counts_once(self, n, batch_size):
    data = AllWindows(source(n), batch_size, 4)
    held = data.load().data
    count = data.num_batches(held)
    windows = -(-(n - 1) // 4)
    self.assertEqual(count, -(-windows // batch_size))
    found = batches(data, count + 1)
    seen, total, weight = np.zeros(n), 0.0, 0.0
    for batch in found:
      target, counts = batch['token'][:, 1:], batch['counts']
      np.testing.assert_array_equal(target, batch['token'][:, :-1] + 1)
      real = batch['weight'] > 0
      np.add.at(seen, target[real], counts[real])
      mean = (target * counts).sum(1) / counts.sum(1)
      total += (mean * batch['weight']).sum()
      weight += batch['weight'].sum()
    np.testing.assert_array_equal(seen, [0] + [1] * (n - 1))
    # Means of windows, weighted, give the mean of all targets 1 to n - 1.
    self.assertAlmostEqual(total / weight, n / 2, places=4)
    np.testing.assert_array_equal(found[-1]['weight'], 0)  # Past the end.


class RefusesTest(parameterized.TestCase):
  @parameterized.parameters(
    (4, 0, 'length=0'), (0, 4, 'batch_size=0'), (4, 50, 'length=50 .* below 50')
  )
  def test_numbers(self, batch_size, length, message):
    for make in (lambda *a: Windows(*a, seed=0), AllWindows):
      with self.assertRaisesRegex(ConfigError, message):
        make(source(50), batch_size, length)

  def test_stride(self):
    with self.assertRaisesRegex(ConfigError, 'stride=0 is not allowed'):
      Windows(source(50), 4, 7, 0, stride=0)

  def test_no_text(self):
    image = jax.ShapeDtypeStruct((4,), np.uint8)
    with self.assertRaisesRegex(ConfigError, 'toy/train is no text'):
      AllWindows(source(50, shapes={'token': image}), 4, 7)

  def test_a_text_of_unknown_size(self):
    data = AllWindows(source(6, declared=None), 4, 7)
    with self.assertRaisesRegex(ConfigError, 'known only once the text was read'):
      data.array_shapes()
    with self.assertRaisesRegex(DataError, 'more than 7 tokens, found 6'):
      data.load()
