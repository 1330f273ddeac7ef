"""Trees as arrays: ways down by hand, thresholds in float32, room that is filled up."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.models import trees
from dlx.models.trees import Nodes

# x1 <= 0.5 ? leaf 1 : (x0 <= 2 ? leaf 3 : leaf 4)
DEEP = Nodes(
  np.array([1, -2, 0, -2, -2]),
  np.array([0.5, -2.0, 2.0, -2.0, -2.0]),
  np.array([1, -1, 3, -1, -1]),
  np.array([2, -1, 4, -1, -1]),
  np.array([False, True, False, True, True]),
)
ROOT = Nodes(*(np.array([x]) for x in (-2, -2.0, -1, -1)), np.array([True]))


class TreesTest(absltest.TestCase):
  def test_ways_down_by_hand(self):
    packed = trees.pack([DEEP, ROOT], trees=3, nodes=7)
    x_BF = jnp.array([[9.0, 0.5], [2.0, 0.6], [2.1, 0.6]])
    leaf_BT = trees.leaves(packed, x_BF)
    np.testing.assert_array_equal(leaf_BT, [[1, 0, 0], [3, 0, 0], [4, 0, 0]])
    value_TN = jnp.arange(21).reshape(3, 7)
    np.testing.assert_array_equal(
      trees.values(value_TN, leaf_BT), [[1, 7, 14], [3, 7, 14], [4, 7, 14]]
    )
    # x0 is asked of two of three examples, x1 of all, in one tree of three.
    np.testing.assert_allclose(trees.decisions(packed, x_BF), [2 / 9, 3 / 9])

  def test_a_threshold_divides_float32_as_it_does_in_float64(self):
    for wide in (0.1, 0.5, -0.1, 1 / 3, -7.0, 16777217.0, 1e-50, -1e-50):
      near = trees.at_most(wide)
      self.assertEqual(near.dtype, np.float32)
      self.assertLessEqual(float(near), wide)
      self.assertGreater(float(np.nextafter(near, np.float32(np.inf))), wide)

  def test_blank_trees_lead_nowhere(self):
    x_BF = jnp.ones((2, 3))
    blank = trees.blank(4, 5)
    np.testing.assert_array_equal(trees.leaves(blank, x_BF), np.zeros((2, 4)))
    np.testing.assert_array_equal(trees.decisions(blank, x_BF), np.zeros(3))
    packed = trees.pack([], 4, 5)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    self.assertEqual(shapes(packed), shapes(blank))

  def test_what_has_no_room_is_refused(self):
    with self.assertRaisesRegex(ValueError, '2 trees of up to 5 nodes: .* 1 of 5'):
      trees.pack([DEEP, ROOT], 1, 5)
    with self.assertRaisesRegex(ValueError, 'room for 1 of 4'):
      trees.pack([DEEP], 1, 4)


if __name__ == '__main__':
  absltest.main()
