"""IoU, Dice and accuracy of pixels: by hand, and as scikit-learn has them."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.metrics

from dlx import metrics
from dlx.state import add

VOID = 255


def certain(label, classes):
  """Logits that choose these labels."""
  return jax.nn.one_hot(jnp.asarray(label), classes)


class SegmentationTest(absltest.TestCase):
  def test_by_hand(self):
    label = jnp.array([[[0, 0, 0], [1, 1, VOID]]], jnp.uint8)
    predicted = [[[0, 0, 1], [1, 2, 2]]]
    sums = metrics.segmentation_sums(certain(predicted, 4), label, ignore=VOID)
    wanted = [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(sums['confusion'], wanted)
    found = metrics.segmentation_summary(sums)
    # Class 0: 2 of 3; class 1: 1 of 3; class 2: 0 of 1; class 3 is nowhere.
    np.testing.assert_allclose(found['iou'], [2 / 3, 1 / 3, 0, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found['mean_iou'], 1 / 3, rtol=1e-6)
    self.assertEqual(float(found['least_iou']), 0)
    np.testing.assert_allclose(found['dice'], (4 / 5 + 2 / 4 + 0) / 3, rtol=1e-6)
    np.testing.assert_allclose(found['pixel_accuracy'], 3 / 5, rtol=1e-6)

  def test_as_scikit_learn(self):
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(5, size=(2, 6, 4, 7))
    void = rng.uniform(size=label.shape) < 0.2
    label = np.where(rng.uniform(size=label.shape) < 0.5, predicted, label)
    given = jnp.asarray(np.where(void, VOID, label))
    logits = certain(predicted, 5)
    count = jax.jit(lambda *of: metrics.segmentation_sums(*of, ignore=VOID))
    total = add(*(count(logits[r], given[r]) for r in (slice(0, 1), slice(1, 6))))
    pair = label[~void], predicted[~void]
    np.testing.assert_array_equal(
      total['confusion'], sklearn.metrics.confusion_matrix(*pair)
    )
    found = metrics.segmentation_summary(total)
    by_class = sklearn.metrics.jaccard_score(*pair, average=None)
    np.testing.assert_allclose(found['iou'], by_class, rtol=1e-6)
    np.testing.assert_allclose(found['mean_iou'], by_class.mean(), rtol=1e-6)
    f1 = sklearn.metrics.f1_score(*pair, average='macro')
    np.testing.assert_allclose(found['dice'], f1, rtol=1e-6)
    accuracy = sklearn.metrics.accuracy_score(*pair)
    np.testing.assert_allclose(found['pixel_accuracy'], accuracy, rtol=1e-6)

  def test_images_that_do_not_count_and_labels_that_are_none(self):
    label = jnp.array([[[0, 1]], [[9, 9]]])
    logits = certain([[[0, 1]], [[0, 0]]], 2)
    found = metrics.segmentation_sums(logits, label, jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(found['confusion'], np.eye(2))
    found = metrics.segmentation_sums(logits, label)
    self.assertTrue(bool(jnp.isnan(found['confusion']).all()))


if __name__ == '__main__':
  absltest.main()
