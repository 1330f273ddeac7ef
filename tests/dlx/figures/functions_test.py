"""Figures of fitted functions: what is drawn where, and what is refused."""

from absl.testing import absltest, parameterized
import numpy as np

from dlx.figures import fitted_function


class FittedFunctionTest(parameterized.TestCase):
  def test_points_of_a_line_are_sorted(self):
    figure = fitted_function([[1], [-1], [0]], [1, 3, 2], [1, 3, 5])
    (ax,) = figure.axes
    target, fit = (line.get_xydata().tolist() for line in ax.lines)
    self.assertEqual(target, [[-1, 3], [0, 2], [1, 1]])
    self.assertEqual(fit, [[-1, 3], [0, 5], [1, 1]])
    self.assertIn('1.73', ax.get_title(loc='left'))  # sqrt(9 / 3)

  def test_the_first_input_of_a_plane_lies_along_x(self):
    x = [[a, b] for a in (0, 1) for b in (0, 1, 2)]
    target = np.array([10 * a + b for a, b in x])
    figure = fitted_function(x, target, target + 1)
    left, right = (ax.images[0] for ax in figure.axes[:2])
    self.assertEqual(left.get_array().tolist(), [[0, 10], [1, 11], [2, 12]])
    self.assertEqual(left.origin, 'lower')
    self.assertEqual(left.get_clim(), (0, 13))
    self.assertEqual(right.get_clim(), (0, 13))

  @parameterized.parameters(
    ([[0], [1]], [0, 1], [0], 'Points of shape'),
    (np.zeros((0, 1)), [], [], 'Points of shape'),
    ([[0, 0, 0]], [0], [0], 'of 3 numbers'),
    ([[0, 0], [0, 1], [1, 0]], [0, 0, 0], [0, 0, 0], '3 points are no grid of 2 by 2'),
  )
  def test_what_is_no_function_of_one_or_two_numbers(self, x, target, fit, message):
    with self.assertRaisesRegex(ValueError, message):
      fitted_function(x, target, fit)


if __name__ == '__main__':
  absltest.main()
