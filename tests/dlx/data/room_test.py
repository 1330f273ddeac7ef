"""Memory that arrays of a batch are made in, and rows picked into it."""

from absl.testing import absltest, parameterized
import ml_dtypes
import numpy as np

from dlx.data import room


class Counted:
  """Makes arrays, and keeps them."""

  def __init__(self):
    self.made = []

  def __call__(self, shape, dtype):
    self.made.append(np.empty(shape, dtype))
    return self.made[-1]


class RoomTest(parameterized.TestCase):
  def test_numpy_makes_them_unless_told_otherwise(self):
    make = Counted()
    with room.made_by(make):
      inside = room.empty((2, 3), np.int8)
      with room.made_by(np.empty):
        room.empty((1,), np.int8)
    room.empty((1,), np.int8)
    self.assertIs(inside, make.made[0])
    self.assertLen(make.made, 1)

  def test_a_failure_puts_it_back(self):
    make = Counted()
    with self.assertRaises(ZeroDivisionError), room.made_by(make):
      _ = 1 / 0
    room.empty((1,), np.int8)
    self.assertEqual(make.made, [])

  @parameterized.parameters(
    (np.arange(24, dtype=np.uint8).reshape(6, 2, 2), True),
    (np.arange(6, dtype=np.int64), True),
    (np.arange(6, dtype='>f4').reshape(6, 1), True),  # The other order of bytes.
    (np.arange(6).astype(ml_dtypes.bfloat16), True),
    (np.zeros((6, 0), np.float32), True),
    (np.arange(24, dtype=np.uint8).reshape(4, 6).T, False),  # Not in rows.
    (np.array([{}, 1, 'a', None, 2, 3], object), False),
  )
  def test_picks_what_indexing_does(self, x, here):
    for index in ([5, 0, 3, 3], [2], []):
      make, index = Counted(), np.array(index, np.int64)
      with room.made_by(make):
        found = room.picked(x, index)
      np.testing.assert_array_equal(found, x[index], strict=True)
      self.assertEqual(bool(make.made), here and len(index) > 0)
      if make.made:
        self.assertIs(found, make.made[0])

  def test_rows_that_are_not_there(self):
    x = np.arange(6)
    with self.assertRaises(IndexError):
      room.picked(x, np.array([0, 6]))
    with self.assertRaises(IndexError):
      room.picked(x[:0], np.array([0]))
    # As NumPy counts them, from the end.
    np.testing.assert_array_equal(room.picked(x, np.array([-1, 2])), [5, 2])

  def test_of_a_mapped_file(self):
    path = self.create_tempfile('x.npy').full_path
    x = np.random.default_rng(0).normal(size=(9, 4))
    np.save(path, x)
    found = room.picked(np.load(path, mmap_mode='r'), np.array([8, 1]))
    self.assertIs(type(found), np.ndarray)
    np.testing.assert_array_equal(found, x[[8, 1]], strict=True)


if __name__ == '__main__':
  absltest.main()
