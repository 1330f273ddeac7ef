"""Temperature scaling against hand-computed numbers, a grid and SciPy."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from dlx import metrics
from dlx.metrics import temperature

fit = jax.jit(metrics.fit_temperature)


def loss(log_NK, label_N, inverse):
  z = np.float64(log_NK) * inverse
  return (special.logsumexp(z, 1) - z[np.arange(len(z)), label_N]).mean()


def answers(seed, scale, n=400, k=5):
  """Probabilities, and labels drawn from those at temperature `scale`."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(n, k)) * 2
  true = special.softmax(logits, 1)
  label = (true.cumsum(1) > rng.uniform(size=(n, 1))).argmax(1)
  probs = special.softmax(logits * scale, 1).astype(np.float32)
  return probs, label.astype(np.int32)


class TemperatureTest(parameterized.TestCase):
  def test_by_hand(self):
    # Two classes, always 0.9 for the first, right 3 times in 4: the logits log 9 must
    # become log 3, half of it.
    probs = jnp.array([[0.9, 0.1]] * 4)
    found = fit(probs, jnp.array([0, 0, 0, 1]))
    np.testing.assert_allclose(found, 2, rtol=1e-5)
    scaled = metrics.tempered(probs, found)
    np.testing.assert_allclose(scaled, [[0.75, 0.25]] * 4, rtol=1e-5)

  def test_one_changes_nothing_and_the_order_stays(self):
    probs, _ = answers(0, 1)
    # One rounding of a logarithm as large as 13, and one of a softmax.
    np.testing.assert_allclose(metrics.tempered(probs, 1.0), probs, rtol=1e-5)
    for scale in (0.1, 3.0):
      chosen = metrics.tempered(probs, scale).argmax(1)
      np.testing.assert_array_equal(chosen, probs.argmax(1))

  @parameterized.parameters((0, 0.3), (1, 1.0), (2, 3.0), (3, 8.0))
  def test_is_the_minimum(self, seed, scale):
    probs, label = answers(seed, scale)
    found = float(fit(probs, label))
    log_NK = np.asarray(metrics.log_probabilities(probs))
    wanted = optimize.minimize_scalar(
      lambda x: loss(log_NK, label, np.exp(-x)),
      bounds=np.log([temperature.LEAST, temperature.MOST]),
      method='bounded',
      options={'xatol': 1e-8},
    )
    # The slope is known to 1e-6 in float32, and the curvature is of order 1.
    np.testing.assert_allclose(found, np.exp(wanted.x), rtol=2e-4)
    grid = [loss(log_NK, label, 1 / t) for t in np.geomspace(0.05, 20, 200)]
    self.assertLessEqual(loss(log_NK, label, 1 / found), min(grid) + 1e-6)
    # Labels were drawn at temperature `scale`: 400 of them say it to some 10 %.
    np.testing.assert_allclose(found, scale, rtol=0.3)

  def test_calibrates_what_was_too_sure(self):
    probs, label = answers(4, 4.0, n=2000)
    before = jax.jit(metrics.probability_scores)(probs, label)
    after = jax.jit(metrics.probability_scores)(
      metrics.tempered(probs, fit(probs, label)), label
    )
    self.assertEqual(before['accuracy'], after['accuracy'])
    for name in ('nll', 'brier', 'ece'):
      self.assertLess(float(after[name]), float(before[name]), name)
    self.assertLess(float(after['ece']), 0.03)

  def test_bounds(self):
    """All right: ever surer; always the least likely class: ever less sure."""
    probs = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    right, wrong = fit(probs, jnp.array([0, 1])), fit(probs, jnp.array([1, 0]))
    self.assertLess(loss(np.log(probs), np.array([0, 1]), 1 / right), 1e-6)
    np.testing.assert_allclose(wrong, temperature.MOST)
    sure = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # Of which half is wrong.
    self.assertTrue(np.isfinite(fit(sure, jnp.array([0, 1]))))
    none = metrics.fit_temperature(jnp.ones((0, 2)), jnp.zeros(0, jnp.int32))
    self.assertTrue(np.isnan(none))


if __name__ == '__main__':
  absltest.main()
