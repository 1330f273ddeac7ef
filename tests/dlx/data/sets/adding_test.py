"""Rows of the adding problem."""

from absl.testing import absltest, parameterized
import numpy as np

from dlx.data.sets import adding


class AddingTest(parameterized.TestCase):
  @parameterized.parameters(2, 3, 10, 101)
  def test_target_is_the_sum_of_one_marked_value_of_each_half(self, length):
    found = adding.source('train', 500, length).read(None)
    value_BT, marker_BT = np.moveaxis(found.data['x'], -1, 0)
    half = length // 2
    np.testing.assert_array_equal(marker_BT[:, :half].sum(1), 1)
    np.testing.assert_array_equal(marker_BT[:, half:].sum(1), 1)
    self.assertLessEqual(set(np.unique(marker_BT)), {0, 1})
    self.assertBetween(value_BT.min(), 0, 1)
    self.assertLess(value_BT.max(), 1)
    # A sum of two float32 below 1: one rounding.
    wanted_B = (value_BT * marker_BT).sum(1)
    np.testing.assert_allclose(found.data['target'], wanted_B, atol=2e-7)
    # Every place is marked somewhere.
    if length <= 10:
      self.assertTrue((marker_BT.sum(0) > 0).all())

  def test_the_answer_1_has_the_baseline_error(self):
    target_B = adding.source('test', 20000, 20).read(None).data['target']
    error_B = np.square(target_B - 1)
    # Five standard errors of the mean.
    bound = 5 * error_B.std() / np.sqrt(error_B.size)
    self.assertAlmostEqual(error_B.mean(), adding.BASELINE, delta=bound)

  def test_splits_seeds_and_repetition(self):
    read = lambda *args: adding.source(*args).read(None).data['x']
    one = read('train', 50, 8, 0)
    np.testing.assert_array_equal(one, read('train', 50, 8, 0))
    for other in (read('test', 50, 8, 0), read('train', 50, 8, 1)):
      self.assertFalse(np.isin(other[..., 0], one[..., 0]).any())

  def test_declared_shapes_are_those_read(self):
    source = adding.source('test', 7, 5)
    data = source.read(None).data
    self.assertEqual(set(data), set(source.shapes))
    for name, x in source.shapes.items():
      self.assertEqual(data[name].shape, (7, *x.shape))
      self.assertEqual(data[name].dtype, x.dtype)

  @parameterized.parameters(('validation', 5, 'split'), ('train', 1, 'length=1'))
  def test_refused(self, split, length, message):
    with self.assertRaisesRegex(ValueError, message):
      adding.source(split, 10, length)


if __name__ == '__main__':
  absltest.main()
