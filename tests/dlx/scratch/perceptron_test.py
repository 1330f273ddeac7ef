"""The perceptron: its rule by hand and as scikit-learn has it, its bound, XOR."""

import doctest

from absl.testing import absltest, parameterized
import numpy as np
import pytest

from dlx.scratch import perceptron
from dlx.scratch.perceptron import Perceptron, novikoff_bound


def separable(seed, num, features, margin):
  """Points at a distance from a random line, and that line."""
  rng = np.random.default_rng(seed)
  weight, bias = rng.normal(size=features), rng.normal()
  x = rng.normal(size=(50 * num, features))
  z = (x @ weight + bias) / np.sqrt(weight @ weight + bias**2)
  far = np.flatnonzero(np.abs(z) > margin)[:num]
  assert len(far) == num
  return x[far], (z[far] > 0).astype(int), weight, bias


class PerceptronTest(parameterized.TestCase):
  def test_doctests(self):
    found = doctest.testmod(perceptron)
    self.assertGreater(found.attempted, 8)
    self.assertEqual(found.failed, 0)

  def test_of_three_inputs_by_hand(self):
    neuron = Perceptron(3)
    x = np.array([1.0, -2.0, 0.5])
    self.assertTrue(neuron.correct(x, 1))  # z = 0 is class 0.
    np.testing.assert_array_equal(neuron.weight, x)
    self.assertEqual(neuron.bias, 1.0)
    self.assertAlmostEqual(float(neuron(x)), 1 / (1 + np.exp(-6.25)), delta=1e-15)
    self.assertFalse(neuron.correct(x, 1))
    self.assertTrue(neuron.correct(x, 0))
    np.testing.assert_array_equal(neuron.weight, [0, 0, 0])
    self.assertEqual(neuron(np.zeros((4, 5, 3))).shape, (4, 5))

  @parameterized.product(seed=(0, 1, 2), features=(2, 10), margin=(0.1, 0.4))
  def test_mistakes_stay_below_novikoffs_bound(self, seed, features, margin):
    x, label, *line = separable(seed, 60, features, margin)
    bound = novikoff_bound(x, label, *line)
    mistakes = Perceptron(features).learn(x, label, max_passes=10000)
    self.assertEqual(mistakes[-1], 0)
    self.assertBetween(sum(mistakes), 1, bound)
    # In another order, and where each example comes twice.
    other = np.repeat(np.random.default_rng(seed).permutation(60), 2)
    mistakes = Perceptron(features).learn(x[other], label[other], max_passes=10000)
    self.assertEqual(mistakes[-1], 0)
    self.assertLessEqual(sum(mistakes), bound)

  def test_bound_by_hand_and_a_line_that_does_not_separate(self):
    x, label = np.array([[3.0], [-2.0]]), np.array([1, 0])
    # |x'|^2 is at most 10, the margin of the line (1, 0) is 2.
    self.assertAlmostEqual(novikoff_bound(x, label, np.ones(1), 0.0), 2.5)
    self.assertAlmostEqual(novikoff_bound(x, label, 7 * np.ones(1), 0.0), 2.5)
    with self.assertRaisesRegex(ValueError, 'margin -3: must be above 0'):
      novikoff_bound(x, 1 - label, np.ones(1), 0.0)

  def test_xor_is_never_learnt(self):
    square, xor = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    for order in ([0, 1, 2, 3], [3, 1, 2, 0], [2, 0, 1, 3]):
      neuron = Perceptron(2)
      mistakes = neuron.learn(square[order], xor[order], max_passes=500)
      self.assertLen(mistakes, 500)
      self.assertGreater(min(mistakes), 0)
      self.assertLess((neuron.predict(square) == xor).sum(), 4)
    for label in ([0, 0, 0, 1], [0, 1, 1, 1]):  # AND and OR are.
      self.assertEqual(Perceptron(2).learn(square, np.array(label))[-1], 0)

  def test_weights_are_those_of_scikit_learn(self):
    linear_model = pytest.importorskip('sklearn.linear_model')
    x, label, *_ = separable(0, 50, 4, 0.1)
    first = np.argsort(-label, kind='stable')  # 0 is no mistake here of class 0.
    x, label = x[first], label[first]
    neuron = Perceptron(4)
    neuron.learn(x, label, max_passes=7)
    other = linear_model.Perceptron(max_iter=7, tol=None, shuffle=False)
    other.fit(x, label)
    np.testing.assert_allclose(neuron.weight, other.coef_[0], rtol=1e-12)
    np.testing.assert_allclose(neuron.bias, other.intercept_[0], rtol=1e-12)


if __name__ == '__main__':
  absltest.main()
