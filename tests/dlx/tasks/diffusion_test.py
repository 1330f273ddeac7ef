"""The error of the best predictor of a known batch: what overfitting can reach."""

from absl.testing import absltest, parameterized
import jax.numpy as jnp
import numpy as np

from dlx.tasks.diffusion import TaskConfig


class LeastTest(parameterized.TestCase):
  @parameterized.parameters('eps', 'v', 'x0')
  def test_one_image_is_known_at_every_noise(self, prediction):
    task = TaskConfig(num_steps=50, prediction=prediction).task()
    found = task.least(jnp.full((1, 2, 2, 1), 0.3), None)
    # Errors are those of rounding, over the least noise or signal, near 1e-3, squared.
    self.assertLess(float(found), 1e-6)

  def test_two_pixels_by_quadrature(self):
    task = TaskConfig(num_steps=50, prediction='x0').task()
    image = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
    # Of x = +-1 in noise: 1 - E tanh(s - sqrt(s) z) at the ratio s of signal to noise.
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    snr_T = (task.schedule.signal_T / task.schedule.noise_T) ** 2
    tanh_TZ = np.tanh(snr_T[:, None] - np.sqrt(snr_T)[:, None] * z)
    wanted = (1 - tanh_TZ @ weight / weight.sum()).mean()
    found = float(task.least(image, None, draws=2**15))
    # Of 2**16 errors, between 0 and 4: five standard errors of a deviation below 0.7.
    self.assertLess(abs(found - wanted), 5 * 0.7 / 256)
    self.assertGreater(wanted, 0.2)
    # Told which of the two it is, nothing is left.
    known = float(task.least(image, jnp.array([3, 4]), draws=64))
    self.assertLess(known, 1e-6)


if __name__ == '__main__':
  absltest.main()
