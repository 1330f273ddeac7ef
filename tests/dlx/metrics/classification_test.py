"""Metrics: hand-computed numbers, additivity over shards, then scikit-learn."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.metrics

from dlx import metrics, state

EPS = float(np.finfo(np.float32).eps)


def problem(seed=0, rows=96, classes=5, absent=None):
  """Logits, labels and weights 0 or 1; a fifth of the rows is padding."""
  a, b, c = jax.random.split(jax.random.key(seed), 3)
  logits = jax.random.normal(a, (rows, classes))
  label = jax.random.randint(b, (rows,), 0, classes)
  logits = logits + 1.5 * jax.nn.one_hot(label, classes)
  if absent is not None:
    label = jnp.where(label == absent, 0, label)
    logits = logits.at[:, absent].set(-9.0)
  weight = (jax.random.uniform(c, (rows,)) > 0.2).astype(jnp.float32)
  return logits, label, weight


def real(logits, label, weight):
  kept = np.array(weight) > 0
  return np.array(label)[kept], np.array(logits).argmax(1)[kept]


class ClassificationTest(parameterized.TestCase):
  def test_by_hand(self):
    logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 2.0, 0.0], [5.0, 1, 1]])
    label, weight = jnp.array([0, 1, 2, 1]), jnp.array([1.0, 1.0, 1.0, 0.0])
    got = metrics.accuracy(logits, label, weight)
    self.assertEqual((float(got.total), float(got.count)), (2, 3))
    np.testing.assert_array_equal(
      metrics.confusion(logits, label, weight), [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    )
    # Class 1: precision 1/2, recall 1. Class 2 is never predicted: 0, not nan.
    scores = metrics.precision_recall_f1(metrics.confusion(logits, label, weight), None)
    np.testing.assert_allclose(scores['precision'], [1, 0.5, 0])
    np.testing.assert_allclose(scores['recall'], [1, 1, 0])
    np.testing.assert_allclose(scores['f1'], [1, 2 / 3, 0], rtol=EPS)

  def test_top_k(self):
    logits = jnp.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 2.0, 2.0]])
    label = jnp.array([1, 0, 1])
    totals = [float(metrics.top_k(logits, label, k=k).total) for k in (1, 2, 3)]
    self.assertEqual(totals, [0, 2, 3])
    logits, label, weight = problem()
    one = metrics.top_k(logits, label, weight, k=1)
    self.assertEqual(one, metrics.accuracy(logits, label, weight))

  @parameterized.parameters(0.0, -0.0)
  def test_ties_and_top_k_agree_with_accuracy(self, first):
    logits, label = jnp.zeros((4, 3)).at[:, 0].set(first), jnp.array([0, 1, 2, 0])
    for metric in (metrics.accuracy(logits, label), metrics.top_k(logits, label, k=1)):
      self.assertEqual(float(metric.total), 2)

  @parameterized.product(average=('weighted', 'macro', None), absent=(None, 2))
  def test_is_sklearn(self, average, absent):
    logits, label, weight = problem(absent=absent)
    true, predicted = real(logits, label, weight)
    confusion = metrics.confusion(logits, label, weight)
    classes = list(range(5))
    np.testing.assert_array_equal(
      confusion, sklearn.metrics.confusion_matrix(true, predicted, labels=classes)
    )
    settings: Any = {'labels': classes, 'average': average, 'zero_division': 0}
    reference: Any = sklearn.metrics.precision_recall_fscore_support(
      true, predicted, **settings
    )
    got = metrics.precision_recall_f1(confusion, average)
    for name, value in zip(('precision', 'recall', 'f1'), reference):
      # Quotients of small integers, then a mean of 5.
      np.testing.assert_allclose(got[name], value, rtol=8 * EPS, err_msg=name)

  def test_no_examples_give_0(self):
    got = metrics.precision_recall_f1(jnp.zeros((3, 3)))
    self.assertEqual({float(x) for x in got.values()}, {0.0})

  def test_unknown_average(self):
    with self.assertRaisesRegex(ValueError, "'micro': must be 'weighted'"):
      metrics.precision_recall_f1(jnp.eye(2), 'micro')

  def test_sum_over_shards_is_exact(self):
    logits, label, weight = problem()
    whole = metrics.classification_sums(logits, label, weight)
    shards = [x.reshape(8, 12, *x.shape[1:]) for x in (logits, label, weight)]
    parts = jax.vmap(metrics.classification_sums)(*shards)
    summed = jax.tree.map(lambda x: x.sum(0), parts)
    jax.tree.map(np.testing.assert_array_equal, summed, whole)
    self.assertEqual(whole['confusion'].sum(), weight.sum())

  def test_fractional_weights(self):
    logits, label, _ = problem()
    weight = jax.random.uniform(jax.random.key(7), label.shape)
    reference = sklearn.metrics.confusion_matrix(
      label, logits.argmax(1), sample_weight=weight
    )
    # Sums of up to 96 weights below 1.
    got = metrics.confusion(logits, label, weight)
    np.testing.assert_allclose(got, reference, rtol=96 * EPS)

  def test_summary_keeps_other_means_and_maps_over_members(self):
    logits, label, weight = problem()
    sums = {
      'loss': state.Mean(jnp.array(6.0), jnp.array(4.0)),
      **metrics.classification_sums(logits, label, weight),
    }
    got = metrics.classification_summary(sums)
    self.assertEqual(
      set(got), {'loss', 'accuracy', 'precision', 'recall', 'f1', 'confusion'}
    )
    self.assertEqual(float(got['loss']), 1.5)
    true, predicted = real(logits, label, weight)
    # Weighted recall is accuracy.
    accuracy = sklearn.metrics.accuracy_score(true, predicted)
    np.testing.assert_allclose(got['accuracy'], accuracy, rtol=2 * EPS)
    np.testing.assert_allclose(got['recall'], accuracy, rtol=8 * EPS)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), sums)
    mapped = jax.vmap(metrics.classification_summary)(two)
    for name in set(got) - {'confusion'}:
      # Doubling every sum changes no ratio.
      np.testing.assert_allclose(mapped[name], jnp.stack([got[name]] * 2), rtol=4 * EPS)

  def test_mean_checks_shapes(self):
    with self.assertRaises(AssertionError):
      metrics.mean(jnp.zeros((3, 1)))
    with self.assertRaises(AssertionError):
      metrics.mean(jnp.zeros(3), jnp.zeros(2))

  def test_mean_of_bfloat16_counts_in_float32(self):
    got = metrics.mean(jnp.ones(300, jnp.bfloat16), jnp.ones(300, jnp.bfloat16))
    self.assertEqual((float(got.total), float(got.count)), (300, 300))
    self.assertEqual(got.total.dtype, jnp.float32)


class RegressionTest(parameterized.TestCase):
  def test_by_hand(self):
    prediction, target = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 3.0, 5.0])
    sums = metrics.regression_sums(prediction, target, shift=3.0)
    got = metrics.regression_summary(sums)
    # Errors 0, -1, 1; variance of the targets 8/3, so r2 = 1 - (2/3) / (8/3) = 3/4.
    self.assertEqual(set(got), {'mse', 'rmse', 'mae', 'r2'})
    np.testing.assert_allclose(got['mse'], 2 / 3, rtol=2 * EPS)
    np.testing.assert_allclose(got['rmse'], np.sqrt(2 / 3), rtol=2 * EPS)
    np.testing.assert_allclose(got['mae'], 2 / 3, rtol=2 * EPS)
    np.testing.assert_allclose(got['r2'], 0.75, rtol=8 * EPS)

  @parameterized.product(mean=(0.0, 1000.0), padded=(True, False))
  def test_is_sklearn(self, mean, padded):
    a, b, c = jax.random.split(jax.random.key(3), 3)
    target = mean + jax.random.normal(a, (64,))
    prediction = target + 0.5 * jax.random.normal(b, (64,))
    weight = (jax.random.uniform(c, (64,)) > 0.3 * padded).astype(jnp.float32)
    sums = metrics.regression_sums(prediction, target, weight, shift=mean)
    got = metrics.regression_summary(sums)
    kept = np.array(weight) > 0
    y, p = np.array(target, np.float64)[kept], np.array(prediction, np.float64)[kept]
    # float32 sums of 64 terms; errors themselves are exact to eps * 1000 / 0.5.
    rtol = 64 * EPS + 4 * EPS * mean
    for name, value in {
      'mse': sklearn.metrics.mean_squared_error(y, p),
      'mae': sklearn.metrics.mean_absolute_error(y, p),
      'rmse': sklearn.metrics.root_mean_squared_error(y, p),
      'r2': sklearn.metrics.r2_score(y, p),
    }.items():
      np.testing.assert_allclose(got[name], value, rtol=rtol, err_msg=name)

  @parameterized.parameters(True, False)
  def test_constant_targets_as_sklearn(self, exact):
    target = jnp.full(6, 0.1)
    prediction = target if exact else target + jnp.arange(6.0)
    sums = metrics.regression_sums(prediction, target, shift=0.1)
    r2 = float(metrics.regression_summary(sums)['r2'])
    self.assertEqual(r2, sklearn.metrics.r2_score(target, prediction))

  def test_r2_far_from_zero(self):
    """Targets of -311030 +- 7, whose squares differ in the tenth digit."""
    rng = np.random.default_rng(0)
    target = rng.normal(-311030, 7, 1000).astype(np.float32)
    prediction = target + rng.normal(0, 3.2, 1000).astype(np.float32)
    wanted = sklearn.metrics.r2_score(*(np.float64(x) for x in (target, prediction)))
    pair = jnp.asarray(prediction), jnp.asarray(target)
    r2 = lambda *pair, shift: float(
      metrics.regression_summary(metrics.regression_sums(*pair, shift=shift))['r2']
    )
    np.testing.assert_allclose(r2(*pair, shift=-311000.0), wanted, atol=1e-4)
    # From 0 no digit of the variance is left: never a plausible number.
    self.assertTrue(np.isnan(r2(*pair, shift=0.0)))
    same = jnp.full(1000, 1000.1)
    self.assertTrue(np.isnan(r2(same + 0.5, same, shift=0.0)))
    self.assertEqual(r2(same + 0.5, same, shift=1000.1), 0)
    self.assertEqual(r2(same, same, shift=0.0), 1)

  def test_the_shift_is_asked_for(self):
    with self.assertRaises(TypeError):
      metrics.regression_sums(jnp.zeros(3), jnp.zeros(3))  # pyright: ignore

  def test_sum_over_shards(self):
    # Small integers: every sum is exact, so shards give the same bits.
    target = jnp.arange(32.0) % 7
    prediction, weight = jnp.arange(32.0) % 5, (jnp.arange(32) % 3 > 0).astype(float)
    whole = metrics.regression_sums(prediction, target, weight, shift=3.0)
    shards = [x.reshape(8, 4) for x in (prediction, target, weight)]
    parts = jax.vmap(lambda p, t, w: metrics.regression_sums(p, t, w, shift=3.0))(
      *shards
    )
    summed = jax.tree.map(lambda x: x.sum(0), parts)
    jax.tree.map(np.testing.assert_array_equal, summed, whole)

  def test_a_column_is_refused(self):
    with self.assertRaises(AssertionError):
      metrics.regression_sums(jnp.zeros((4, 1)), jnp.zeros(4), shift=0.0)


if __name__ == '__main__':
  absltest.main()
