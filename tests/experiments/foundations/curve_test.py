"""Targets of `curve` by hand, and its test points as an even grid."""

from absl.testing import absltest, parameterized
import jax.numpy as jnp
import numpy as np

from experiments.foundations import curve


class CurveTest(parameterized.TestCase):
  @parameterized.parameters(
    ('sine', [[0.25], [-0.25], [0.5]], [1, -1, 0]),
    ('step', [[0.5], [-1e-3], [0]], [1, -1, 0]),
    ('bump', [[0, 0], [0.5, 0], [0.5, -0.5]], np.exp([0, -2, -4])),
  )
  def test_values_in_numpy_and_jax(self, name, points, wanted):
    for xp in (np, jnp):
      found = curve.TARGETS[name].value(xp, xp.asarray(points, np.float32))
      np.testing.assert_allclose(found, wanted, atol=1e-6)

  def test_the_grid_has_the_middle_of_every_cell(self):
    found = curve.grid(curve.TARGETS['step']._replace(grid=4))
    self.assertEqual(found['x'].tolist(), [[-0.75], [-0.25], [0.25], [0.75]])
    self.assertEqual(found['y'].tolist(), [-1, -1, 1, 1])
    plane = curve.grid(curve.TARGETS['bump']._replace(grid=2))['x']
    self.assertEqual(
      plane.tolist(), [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    )

  def test_errors_of_the_mean_are_known(self):
    # Mean 0 and square 1/2 of the sine, 1 of the step, over whole periods.
    for name, wanted in (('sine', 0.5), ('step', 1)):
      built = curve.build(curve.Config(target=name))
      self.assertAlmostEqual(built.metrics['mse'].chance, wanted, delta=1e-6)


if __name__ == '__main__':
  absltest.main()
