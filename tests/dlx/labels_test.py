"""Labels in narrow dtypes, and what comes of labels and indices out of range."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import diffusion, labels, losses, metrics
from dlx.layers import embeddings, graph
from dlx.models import gan

NARROW = jnp.array([0, 5, 60, 126])
EPS = float(np.finfo(np.float32).eps)
nan = float('nan')


class NarrowTest(parameterized.TestCase):
  """uint8 labels of 300 classes: class 300 - 256 + 44 is no other class."""

  @parameterized.parameters(jnp.uint8, jnp.int8, jnp.uint16, jnp.int32)
  def test_cross_entropy(self, dtype):
    logits = jax.random.normal(jax.random.key(0), (4, 300))
    loss = losses.softmax_cross_entropy(logits, NARROW.astype(dtype))
    np.testing.assert_allclose(loss, [4.51, 6.88, 6.02, 7.02], atol=0.005)

  def test_confusion_counts_every_example_once(self):
    label = (jnp.arange(50) * 5).astype(jnp.uint8)
    logits = jax.random.normal(jax.random.key(1), (50, 300))
    self.assertEqual(float(metrics.confusion(logits, label).sum()), 50)

  def test_codes_votes_and_draws(self):
    label = jnp.array([7, 44], jnp.uint8)
    code = labels.one_hot(label, 300)
    np.testing.assert_array_equal(code.argmax(1), [7, 44])
    np.testing.assert_array_equal(code.sum(1), [1, 1])
    joined = gan.join_label(jnp.zeros((2, 1)), label, 300)
    np.testing.assert_array_equal(joined[:, 1:], code)
    near = metrics.Neighbours(jnp.zeros((1, 2)), jnp.array([[0, 1]], jnp.int32))
    votes = metrics.vote(near, label, num_classes=300)
    np.testing.assert_array_equal(votes[0, :50].nonzero()[0], [7, 44])
    self.assertEqual(float(votes.sum()), 1)
    _, weight = metrics.draw_labels(
      jax.random.key(0), label, per_class=1, num_classes=300
    )
    self.assertEqual(float(weight.sum()), 2)

  def test_the_label_that_stands_for_none(self):
    label = embeddings.drop_labels(
      jax.random.key(0), jnp.zeros(3, jnp.uint8), 1.0, null=256
    )
    np.testing.assert_array_equal(label, [256] * 3)


class OutOfRangeTest(parameterized.TestCase):
  """-1 does not count from the end, and K is not the class K - 1."""

  def test_rows(self):
    table = jnp.arange(6.0).reshape(3, 2)
    got = labels.rows(table, jnp.array([[0, 2], [-1, 3]]))
    np.testing.assert_array_equal(got, [[[0, 1], [4, 5]], [[nan] * 2] * 2])

  @parameterized.parameters(-1, 3)
  def test_metrics_of_a_wrong_label_are_nan(self, wrong):
    logits, label = jnp.eye(3)[:2] * 5, jnp.array([0, wrong])
    sums = metrics.classification_sums(logits, label)
    found = metrics.classification_summary(sums)
    for name in ('accuracy', 'precision', 'recall', 'f1'):
      self.assertTrue(np.isnan(found[name]), name)
    top = metrics.top_k(logits, label, k=2)
    probs = jax.nn.softmax(logits)
    error = metrics.calibration_error(metrics.calibration_sums(probs, label))
    self.assertTrue(np.isnan(top.total) and np.isnan(error))
    # What has no weight may have any label.
    weight = jnp.array([1.0, 0.0])
    sums = metrics.classification_sums(logits, label, weight)
    found = metrics.classification_summary(sums)
    self.assertEqual((float(found['accuracy']), float(found['f1'])), (1, 1))
    self.assertEqual(float(metrics.top_k(logits, label, weight, k=2).total), 1)
    sums = metrics.calibration_sums(probs, label, weight)
    self.assertTrue(np.isfinite(metrics.calibration_error(sums)))

  def test_one_based_labels_of_probes_and_votes(self):
    x = jnp.eye(4)
    linear = metrics.fit_linear(x, jnp.array([1, 2, 3, 4]), num_classes=4)
    self.assertTrue(np.isnan(linear(x)).all())
    left_out = metrics.fit_linear(
      x, jnp.array([0, 1, 2, 9]), jnp.array([1.0, 1, 1, 0]), num_classes=4
    )
    self.assertTrue(np.isfinite(left_out(x)).all())
    near = metrics.Neighbours(
      jnp.array([[0.5, -jnp.inf]]), jnp.array([[0, 1]], jnp.int32)
    )
    vote = lambda *label: metrics.vote(near, jnp.array(label), num_classes=2)
    self.assertTrue(np.isnan(vote(2, 0)).all())
    np.testing.assert_array_equal(vote(1, 2), [[0, 1]])  # Row 1 is not there.

  def test_conditions_of_generators(self):
    wrong = jnp.array([1, 2, -1])
    joined = gan.join_label(jnp.zeros((3, 1)), wrong, 2)
    np.testing.assert_array_equal(joined, [[0, 0, 1], [0, nan, nan], [0, nan, nan]])
    logit = gan.logit_of_label(jnp.ones((3, 3)), wrong, 2)
    np.testing.assert_array_equal(logit, [2, nan, nan])

  def test_steps_of_noise(self):
    schedule = diffusion.linear_schedule(25)
    x, t = jnp.ones((3, 2)), jnp.array([24, 25, -1])
    noised = diffusion.q_sample(schedule, x, jnp.zeros_like(x), t)
    np.testing.assert_allclose(noised[0], schedule.signal_T[24], rtol=4 * EPS)
    np.testing.assert_array_equal(noised[1:], nan)
    np.testing.assert_array_equal(diffusion.at(schedule.beta_T, t)[1:], nan)

  @parameterized.parameters(-1, 3)
  def test_edges(self, wrong):
    """A node that is not there makes the sums of its neighbours nan."""
    edges = jnp.array([[0, 1], [1, wrong]])
    links = graph.symmetric_normalisation(edges, 3)
    sums = graph.propagate(jnp.ones((3, 1)), *links)
    self.assertTrue(np.isnan(sums).any())
    entry = jnp.array([[0, 0], [wrong, 1]])
    product = graph.sparse_matmul(entry, jnp.ones(2), jnp.ones((2, 1)), 3)
    self.assertTrue(np.isnan(product).any())


class NumpyTest(parameterized.TestCase):
  """Arrays of NumPy are taken where a trace closes over them."""

  def test_rows(self):
    found = labels.rows(np.float32([[1], [2]]), np.array([1, 2]))
    np.testing.assert_array_equal(found, [[2], [nan]])
    weight = losses.example_weight(
      np.array([1, 0]), 2, class_weight_K=np.float32([3, 4])
    )
    np.testing.assert_array_equal(weight, [4, 3])

  def test_metrics_that_order_rows(self):
    score, label = np.float32([[3, 0], [1, 2], [0, 1]]), np.array([0, 1, 0])
    weight = np.float32([1, 1, 1])
    found = metrics.one_vs_rest(metrics.roc_auc, score, label, weight)
    np.testing.assert_array_equal(found, [0.5, 1])
    near = jax.jit(lambda x: metrics.nearest(x, score, k=1))(score)
    votes = jax.jit(lambda near: metrics.vote(near, label, num_classes=2))(near)
    np.testing.assert_array_equal(votes, [[1, 0], [0, 1], [1, 0]])
    rows = jax.jit(lambda: metrics.in_chunks(lambda x: 2 * x, score, 2))()
    np.testing.assert_array_equal(rows, 2 * score)


if __name__ == '__main__':
  absltest.main()
