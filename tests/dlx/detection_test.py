"""Objects as points: radii against overlaps, targets by hand, there and back."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import boxes, detection


class RadiusTest(parameterized.TestCase):
  @parameterized.product(least=(0.3, 0.7, 0.9), size=((10, 10), (4, 25), (300, 2)))
  def test_corners_that_are_off_by_it_leave_the_overlap(self, least, size):
    r = float(detection.gaussian_radius(*map(jnp.float32, size), least))
    given = np.float32([0, 0, *size])
    # Each corner off by r both ways along the diagonal: inward, outward, one of each.
    moves = [
      [r * a, r * a, r * b, r * b] for a, b in itertools.product((-1, 1), repeat=2)
    ]
    found = boxes.iou(jnp.asarray(given + np.float32(moves)), jnp.asarray([given]))
    np.testing.assert_allclose(found.min(), least, rtol=1e-4)

  def test_of_nothing(self):
    found = detection.gaussian_radius(jnp.array([0.0, 0, 5]), jnp.array([0.0, 5, 5]))
    np.testing.assert_array_equal(found[:2], [0, 0])
    self.assertGreater(float(found[2]), 0)


class TargetsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.heat = jax.jit(
      lambda *of: detection.heat_map(*of, num_classes=3, size=(4, 6), stride=2)
    )

  def test_cells(self):
    box = jnp.array([[0.0, 0, 4, 4], [0, 0, 3.9, 4], [6, 10, 8, 12], [7, 11, 90, 90]])
    found = detection.centre_cells(box, (4, 6), 2)
    np.testing.assert_array_equal(found, [[1, 1], [0, 1], [3, 5], [3, 5]])

  def test_heat_by_hand(self):
    # 6 x 6 pixels are 3 x 3 cells: less than one cell of radius, so s = 1 / 6.
    box = jnp.array([[[1.0, 1, 7, 7], [0, 4, 8, 12], [0, 0, 2, 2], [9, 9, 9, 9]]])
    label, real = jnp.array([[0, 2, 2, 1]]), jnp.array([[True, True, True, False]])
    found = np.asarray(self.heat(box, label, real))
    self.assertEqual(found.shape, (1, 4, 6, 3))
    wanted = np.zeros((4, 6, 3))
    wanted[2, 2, 0] = wanted[2, 4, 2] = wanted[0, 0, 2] = 1
    self.assertTrue((found[0][wanted == 1] == 1).all())
    self.assertFalse(found[0, :, :, 1].any())  # What is not real.
    np.testing.assert_allclose(found[0, 1:4, 2, 0], np.exp([-18, 0, -18]), rtol=1e-5)
    np.testing.assert_allclose(found[0, 3, 3, 0], np.exp(-36), rtol=1e-5)
    # Rows and columns, and the nearer of two of a class.
    np.testing.assert_allclose(found[0, 0, 1, 2], np.exp(-18), rtol=1e-5)
    np.testing.assert_allclose(found[0, 2, 5, 2], np.exp(-18), rtol=1e-5)

  def test_larger_boxes_are_wider(self):
    call = jax.jit(
      lambda box: detection.heat_map(
        box, jnp.zeros((1, 1), int), jnp.ones((1, 1)), num_classes=1, size=(32, 32),
        stride=1,
      )
    )  # fmt: skip
    found = call(jnp.array([[[0.0, 0, 32, 32]]]))[0, :, :, 0]
    # A square of 32 at 0.7: outward r = 32 (0.7^-0.5 - 1) / 2 = 3.12, one of each
    # 32 (1 - (1.4 / 1.7)^0.5) = 2.96, inward 32 (1 - 0.7^0.5) / 2 = 2.61: so r = 2.
    np.testing.assert_allclose(found[16, 18], np.exp(-4 / (2 * 25 / 36)), rtol=1e-5)

  def test_no_such_class_is_nan_of_that_image_alone(self):
    box = jnp.broadcast_to(jnp.array([0.0, 0, 4, 4]), (4, 1, 4))
    label = jnp.array([[1], [3], [-1], [9]])
    found = self.heat(box, label, jnp.array([[True], [True], [True], [False]]))
    np.testing.assert_array_equal(
      jnp.isnan(found).all((1, 2, 3)), [False, True, True, False]
    )
    np.testing.assert_array_equal(
      jnp.isnan(found).any((1, 2, 3)), [False, True, True, False]
    )


class DecodeTest(absltest.TestCase):
  def test_boxes_of_cells(self):
    shape = jnp.zeros((1, 2, 3, 4)).at[0, 1, 2].set(jnp.array([0.5, -0.5, 2.0, 3.0]))
    found = detection.boxes_of(shape, 4)
    height, width = 4 * np.log1p(np.exp([2.0, 3.0]))
    # The centre is 1.5 + 0.5 cells down, 2.5 - 0.5 cells to the right.
    wanted = [8 - height / 2, 8 - width / 2, 8 + height / 2, 8 + width / 2]
    np.testing.assert_allclose(found[0, 1, 2], wanted, rtol=1e-6)

  def test_there_and_back(self):
    """Perfect maps of boxes give these boxes, and nothing else."""
    stride, size = 2, (16, 16)
    box = jnp.array([[[1.0, 2, 11, 9], [12, 10, 30, 31], [0, 20, 9, 27], [0, 0, 0, 0]]])
    label, real = jnp.array([[4, 2, 4, 0]]), jnp.array([[True, True, True, False]])

    @jax.jit
    def run(box, label, real):
      heat = detection.heat_map(
        box, label, real, num_classes=5, size=size, stride=stride
      )
      cell = detection.centre_cells(box, size, stride)
      centre_size = boxes.to_centre_size(box) / stride
      offset = centre_size[..., :2] - (cell + 0.5)
      # The other way round than softplus.
      sides = jnp.log(jnp.expm1(jnp.maximum(centre_size[..., 2:], 1e-3)))
      shape = jnp.concatenate([offset, sides], -1)
      maps = jnp.zeros((1, *size, 4)).at[0, cell[0, :, 0], cell[0, :, 1]].set(shape[0])
      logits = jnp.log(heat + 1e-6) - jnp.log(1 - 0.999 * heat)
      found = detection.decode(
        logits, detection.boxes_of(maps, stride), (32, 32), most=6
      )
      return found, detection.at_cells(maps, cell), shape

    found, held, shape = run(box, label, real)
    np.testing.assert_array_equal(held, shape)
    found = jax.tree.map(lambda x: np.asarray(x[0]), found)
    order = np.lexsort((found.box_BN4[:3, 1],))
    np.testing.assert_allclose(found.box_BN4[order], box[0, [0, 1, 2]], atol=1e-4)
    np.testing.assert_array_equal(found.label_BN[order], [4, 2, 4])
    self.assertTrue((found.score_BN[:3] > 0.99).all())
    self.assertTrue((found.score_BN[3:] < 0.01).all())
    self.assertTrue((np.diff(found.score_BN) <= 0).all())

  def test_by_hand(self):
    """Peaks, plateaus, places that stay empty; an image alone is as among others."""
    no = -jnp.inf
    heat = jnp.full((2, 3, 4, 2), no)
    # Side by side, so that the larger alone is a peak; a plateau; another class.
    heat = heat.at[0, 0, 0, 0].set(2.0).at[0, 1, 1, 0].set(1.0)
    heat = heat.at[0, 2, 3, 0].set(0.5).at[0, 1, 3, 0].set(0.5)
    heat = heat.at[0, 0, 0, 1].set(-1.0)
    heat = heat.at[1, 1, 1, 1].set(jnp.nan).at[1, 0, 0, 0].set(0.0)
    row, column = jnp.meshgrid(jnp.arange(3.0), jnp.arange(4.0), indexing='ij')
    box = jnp.stack([row - 1, column, row + 1, column + 1], -1)[None].repeat(2, 0)
    call = jax.jit(
      lambda *of: detection.decode(*of, image=(3, 4), most=5, most_iou=0.3)
    )
    found = call(heat, box)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    wanted = [sigmoid(2.0), sigmoid(0.5), sigmoid(-1.0), 0, 0]
    np.testing.assert_allclose(found.score_BN[0], wanted, rtol=1e-6)
    np.testing.assert_array_equal(found.label_BN[0], [0, 0, 1, -1, -1])
    # Cut to the image; of the plateau the first, of row 1.
    np.testing.assert_array_equal(
      found.box_BN4[0], [[0, 0, 1, 1], [0, 3, 2, 4], [0, 0, 1, 1], [0] * 4, [0] * 4]
    )
    np.testing.assert_allclose(found.score_BN[1], [0.5, 0, 0, 0, 0])
    alone = call(heat[1:], box[1:])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[1]), alone, found)

  def test_frames_and_scores_that_are_enough(self):
    box = jnp.array([[[0.0, 0, 2.5, 3], [1, 1, 5, 4], [0, 0, 0, 0]]])
    label, score = jnp.array([[1, 0, -1]]), jnp.array([[0.9, 0.5, 0.0]])
    objects = detection.Objects(box, label, score)
    image = jnp.full((1, 5, 5, 3), 7, jnp.uint8)
    colours = np.uint8([[10] * 3, [20] * 3])
    draw = jax.jit(lambda of, least: detection.framed(
      image, detection.at_least(of, least), colours))  # fmt: skip
    both = [
      [20, 20, 20, 7, 7],
      [20, 10, 20, 10, 7],
      [20, 20, 20, 10, 7],
      [7, 10, 7, 10, 7],
      [7, 10, 10, 10, 7],
    ]
    found = draw(objects, 0.5)
    self.assertEqual(found.dtype, jnp.uint8)
    np.testing.assert_array_equal(found[0, :, :, 0], both)
    one = np.where(np.array(both) == 20, 20, 7)
    np.testing.assert_array_equal(draw(objects, 0.6)[0, :, :, 2], one)
    left = detection.at_least(objects, 0.6)
    np.testing.assert_array_equal(left.label_BN, [[1, -1, -1]])
    np.testing.assert_array_equal(left.box_BN4[0, 1:], np.zeros((2, 4)))


if __name__ == '__main__':
  absltest.main()
