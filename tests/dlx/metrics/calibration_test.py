"""Expected calibration error by hand."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import figures, metrics
from dlx.state import add


class CalibrationTest(absltest.TestCase):
  def test_by_hand(self):
    # Ten answers at 0.75, of which five are right, and ten at 0.95, all right.
    probs = jnp.array([[0.75, 0.25]] * 10 + [[0.05, 0.95]] * 10)
    label = jnp.array([0] * 5 + [1] * 5 + [1] * 10)
    found = metrics.calibration_sums(probs, label)
    # (10 * |0.5 - 0.75| + 10 * |1 - 0.95|) / 20
    np.testing.assert_allclose(metrics.calibration_error(found), 0.15, rtol=1e-6)
    self.assertEqual(float(found['count'].sum()), 20)

  def test_a_calibrated_predictor_has_a_small_error(self):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20000).astype(np.float32)
    label = (rng.uniform(size=20000) > p).astype(np.int32)
    found = metrics.calibration_sums(jnp.stack([p, 1 - p], 1), jnp.asarray(label))
    # Each of 8 bins holds 2500: deviations of 0.01, of which the mean is 0.8 of it.
    self.assertLess(float(metrics.calibration_error(found)), 0.015)
    tenth = metrics.calibration_sums(jnp.stack([p, 1 - p], 1) ** 3, jnp.asarray(label))
    self.assertGreater(float(metrics.calibration_error(tenth)), 0.1)

  def test_is_the_definition_bin_by_bin(self):
    """arXiv:1706.04599, equation 3, written as a loop over bins in float64."""
    rng = np.random.default_rng(1)
    probs = np.asarray(jax.nn.softmax(jnp.asarray(rng.normal(size=(500, 4)) * 2)))
    label = rng.integers(0, 4, 500)
    confidence, right = np.float64(probs.max(1)), probs.argmax(1) == label
    for num_bins in (1, 10, 15):
      wanted = 0.0
      for i in range(num_bins):
        inside = (confidence > i / num_bins) & (confidence <= (i + 1) / num_bins)
        if inside.any():
          gap = abs(right[inside].mean() - confidence[inside].mean())
          wanted += inside.mean() * gap
      found = metrics.calibration_sums(
        jnp.asarray(probs), jnp.asarray(label), None, num_bins
      )
      # Sums of 500 confidences in float32.
      np.testing.assert_allclose(metrics.calibration_error(found), wanted, atol=1e-5)

  def test_no_examples_and_one_class(self):
    none = metrics.calibration_sums(jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32))
    self.assertTrue(np.isnan(metrics.calibration_error(none)))
    one = metrics.calibration_sums(jnp.ones((5, 1)), jnp.zeros(5, jnp.int32))
    self.assertEqual(float(metrics.calibration_error(one)), 0)

  def test_adds_up_and_padding_counts_nothing(self):
    probs = jax.nn.softmax(jax.random.normal(jax.random.key(0), (12, 3)))
    label = jnp.arange(12) % 3
    whole = metrics.calibration_sums(probs, label)
    parts = add(
      metrics.calibration_sums(probs[:5], label[:5]),
      metrics.calibration_sums(probs[5:], label[5:]),
    )
    for name in whole:
      np.testing.assert_allclose(whole[name], parts[name], rtol=1e-6)
    weight = (jnp.arange(12) < 5).astype(jnp.float32)
    some = metrics.calibration_sums(probs, label, weight)
    np.testing.assert_allclose(
      metrics.calibration_error(some),
      metrics.calibration_error(metrics.calibration_sums(probs[:5], label[:5])),
    )

  def test_bounds_of_the_bins(self):
    probs = jnp.array([[1.0, 0.0], [0.5, 0.5], [0.6, 0.4]])
    found = metrics.calibration_sums(probs, jnp.zeros(3, jnp.int32), num_bins=5)
    # (0.8, 1], (0.4, 0.6] and 0.6 itself, as far as float32 goes.
    np.testing.assert_array_equal(found['count'], [0, 0, 2, 0, 1])

  def test_diagram_of_members_says_the_mean_of_their_errors(self):
    """One errs upwards and one downwards by 0.2: pooled they would be calibrated."""
    bins = lambda right: {
      'count': np.array([0.0, 10.0]),
      'confidence': np.array([0.0, 7.0]),
      'correct': np.array([0.0, right]),
    }
    members = jax.tree.map(lambda *x: np.stack(x), bins(5.0), bins(9.0))
    figure = figures.calibration_diagram({'members': members})
    (label,) = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    self.assertEqual(label, 'members, mean ECE 0.200')

  def test_the_answers_of_many_members_are_compared_as_shares(self):
    one = {'count': [3.0, 1.0], 'confidence': [1.2, 0.9], 'correct': [2.0, 1.0]}
    many = {name: np.array([value] * 5) for name, value in one.items()}
    figure = figures.calibration_diagram({'ensemble': one, 'members': many})
    for line in figure.axes[1].lines:
      np.testing.assert_allclose(line.get_ydata(), [0.75, 0.25])

  def test_diagram_draws(self):
    found = metrics.calibration_sums(jnp.array([[0.9, 0.1]]), jnp.zeros(1, jnp.int32))
    figure = figures.calibration_diagram({'one': jax.tree.map(np.array, found)})
    self.assertLen(figure.axes, 2)


class ScoresTest(absltest.TestCase):
  def test_by_hand(self):
    probs = jnp.array([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1]])
    found = jax.jit(metrics.probability_scores)(probs, jnp.array([0, 2]))
    self.assertEqual(found['accuracy'], 0.5)
    np.testing.assert_allclose(
      found['nll'], -(np.log(0.5) + np.log(0.1)) / 2, rtol=1e-6
    )
    # (0.25 + 0.25 + 0 and 0.04 + 0.49 + 0.81) / 2; |1 - 0.5| and |0 - 0.7|.
    np.testing.assert_allclose(found['brier'], (0.5 + 1.34) / 2, rtol=1e-6)
    np.testing.assert_allclose(found['ece'], 0.6, rtol=1e-6)

  def test_impossible_and_unknown_labels(self):
    probs = jnp.array([[1.0, 0.0]])
    impossible = metrics.probability_scores(probs, jnp.array([1]))
    self.assertAlmostEqual(float(impossible['nll']), 87.336, places=2)
    for label in (-1, 2):
      unknown = metrics.probability_scores(probs, jnp.array([label]))
      self.assertTrue(all(np.isnan(x) for x in unknown.values()), unknown)

  def test_disagreement_of_pairs(self):
    # Chosen: 0 0 1, 0 1 1, 1 0 1: pairs differ in 1, 1 and 2 of 3 examples.
    chosen = jnp.array([[0, 0, 1], [0, 1, 1], [1, 0, 1]])
    found = metrics.disagreement(jax.nn.one_hot(chosen, 2))
    np.testing.assert_allclose(found, 4 / 9, rtol=1e-6)
    self.assertTrue(np.isnan(metrics.disagreement(jnp.ones((1, 3, 2)))))


if __name__ == '__main__':
  absltest.main()
