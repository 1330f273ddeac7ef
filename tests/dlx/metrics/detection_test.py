"""Mean average precision: by hand, and as COCO's evaluation written out in Python."""

import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.metrics.detection import THRESHOLDS
from dlx.state import add

WHOLE = [0.0, 0.0, 1.0, 1.0]


def part(share):
  """A box whose IoU with WHOLE is this."""
  return [0.0, 0.0, share, 1.0]


def arrays(found, true):
  """Of images of lists, (box, label, score) found and (box, label) true, what is given.

  With 8 and 4 places an image, so that shapes are few.
  """
  fill = lambda rows, n, blank: rows + [blank] * (n - len(rows))
  found = [fill(rows, 8, (WHOLE, 0, 0.0)) for rows in found]
  real = jnp.array([[i < len(rows) for i in range(4)] for rows in true])
  true = [fill(rows, 4, (WHOLE, 0)) for rows in true]
  column = lambda rows, i, dtype: jnp.array([[x[i] for x in r] for r in rows], dtype)
  kinds = jnp.float32, jnp.int32, jnp.float32
  of = tuple(column(found, i, dtype) for i, dtype in enumerate(kinds))
  return of, (*(column(true, i, dtype) for i, dtype in enumerate(kinds[:2])), real)


def sums(found, true, **more):
  rows = len(found)
  given = *arrays(found, true), jnp.arange(rows), jnp.ones(rows)
  return counted(*given, num_rows=rows, **more)


@functools.partial(jax.jit, static_argnames=('num_classes', 'num_rows'))
def counted(found, true, index, weight, num_classes=2, num_rows=3):
  return metrics.detection_sums(
    found, true, index, weight, num_classes=num_classes, num_rows=num_rows
  )


summary = jax.jit(metrics.detection_summary)


def cocos(found, true, bound, k):
  """AP and recall of a class, after COCO's loops: evaluateImg, then accumulate."""
  scores, hits, count = [], [], 0
  for objects, real in zip(found, true, strict=True):
    mine = [x for x in objects if x[1] == k and x[2] > 0]
    mine.sort(key=lambda x: -x[2])
    those = [box for box, label in real if label == k]
    count += len(those)
    taken = [False] * len(those)
    for box, _, score in mine:
      best, at = bound, -1
      for j, other in enumerate(those):
        if taken[j]:
          continue
        common = max(min(box[2], other[2]) - max(box[0], other[0]), 0) * max(
          min(box[3], other[3]) - max(box[1], other[1]), 0
        )
        size = lambda x: (x[2] - x[0]) * (x[3] - x[1])
        over = common / (size(box) + size(other) - common)
        if over < best:
          continue
        best, at = over, j
      if at >= 0:
        taken[at] = True
      scores.append(score)
      hits.append(at >= 0)
  if not count:
    return np.nan, np.nan
  order = np.argsort(-np.array(scores, np.float64), kind='mergesort')
  hit = np.array(hits, bool)[order]
  tp, fp = np.cumsum(hit), np.cumsum(~hit)
  precision = (tp / np.maximum(tp + fp, 1)).tolist()
  for i in range(len(precision) - 1, 0, -1):
    precision[i - 1] = max(precision[i - 1], precision[i])
  read = []
  for r in range(101):
    at = np.flatnonzero(100 * tp >= r * count)
    read.append(precision[at[0]] if len(at) else 0.0)
  return np.mean(read), (tp[-1] if len(tp) else 0) / count


def drawn(rng, images=12, classes=3):
  """Objects of images that are found more or less well, on a grid of quarters."""
  true, found = [], []
  for _ in range(images):
    low = rng.integers(0, 12, size=(rng.integers(5), 2)) / 4
    size = rng.integers(2, 9, size=low.shape) / 4
    label = rng.integers(classes - 1, size=len(low))  # The last class is nowhere.
    of = np.concatenate([low, low + size], 1)
    true.append([(b.tolist(), int(k)) for b, k in zip(of, label, strict=True)])
    mine = []
    for box, k in true[-1] * 2:
      if rng.uniform() < 0.7:
        moved = np.array(box) + rng.integers(-1, 2, size=4) / 8
        k = int(rng.integers(classes)) if rng.uniform() < 0.2 else k
        mine.append((moved.tolist(), k, float(rng.integers(1, 9) / 8)))
    found.append(mine)
  return found, true


class AveragePrecisionTest(absltest.TestCase):
  def test_by_hand(self):
    # Class 0: the first image right, then a false one, then the second right. Class 1
    # is found in a box of IoU 0.72, which is near enough for 5 of 10 thresholds.
    true = [[(WHOLE, 0)], [(WHOLE, 0), (WHOLE, 1)], []]
    found = [
      [(WHOLE, 0, 0.9)],
      [(WHOLE, 0, 0.3), (part(0.72), 1, 0.8)],
      [(WHOLE, 0, 0.5)],
    ]
    result = summary(sums(found, true))
    # Precision is 1 up to a recall of 0.5, 51 of 101; then 2 of 3.
    first = (51 + 50 * 2 / 3) / 101
    np.testing.assert_allclose(result['average_precision'][0], first, rtol=1e-6)
    np.testing.assert_array_equal(result['average_precision'][1], [1] * 5 + [0] * 5)
    np.testing.assert_allclose(result['map_50'], (first + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(result['map_75'], first / 2, rtol=1e-6)
    np.testing.assert_allclose(result['map'], (first + 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(result['recall'], (1 + 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(result['precision'][0, [0, 100]], [1, (1 + 2 / 3) / 2])

  def test_a_box_found_twice_is_true_once_and_another_class_is_none(self):
    twice = [[(WHOLE, 0, 0.9), (part(0.99), 0, 0.8), (WHOLE, 1, 0.7)]]
    result = summary(sums(twice, [[(WHOLE, 0)]]))
    # The second comes after all is found: no recall is read behind it. Class 1 has
    # no true object and counts in no mean.
    np.testing.assert_array_equal(result['average_precision'][0], np.ones(10))
    self.assertTrue(np.isnan(result['average_precision'][1:]).all())
    np.testing.assert_array_equal([result['map'], result['recall']], [1, 1])
    # Now it has the higher score, and takes the true box where it is near enough.
    turned = [[(WHOLE, 0, 0.8), (part(0.6), 0, 0.9)]]
    average = summary(sums(turned, [[(WHOLE, 0)]]))['average_precision'][0]
    np.testing.assert_allclose(average, [1] * 3 + [0.5] * 7)

  def test_of_two_true_boxes_that_are_as_near_the_last_is_taken(self):
    # Between both, and then one on the first, which is still there.
    true = [[([0.0, 0, 2, 2], 0), ([0.0, 1, 2, 3], 0)]]
    found = [[([0.0, 0.5, 2, 2.5], 0, 0.9), ([0.0, 0, 2, 2], 0, 0.8)]]
    self.assertEqual(float(summary(sums(found, true))['map_50']), 1)

  def test_thresholds_are_met_by_an_iou_that_is_equal(self):
    for bound in THRESHOLDS:
      whole = round(100 * bound)
      found = [[([0.0, 0, 1, whole], 0, 1.0)]]
      result = summary(sums(found, [[([0.0, 0, 1, 100], 0)]]))['average_precision'][0]
      np.testing.assert_array_equal(result, np.array(THRESHOLDS) <= bound)

  def test_recalls_are_compared_as_whole_numbers(self):
    # Recalls of 100 true boxes; in float64 0.01 * 57 is above 57 / 100.
    true = [[(WHOLE, 0)] for _ in range(100)]
    for hits in (0, 1, 57, 58, 100):
      found = [[(WHOLE, 0, 0.9)] if i < hits else [] for i in range(100)]
      found[-1] = found[-1] or [(WHOLE, 1, 0.9)]
      result = summary(sums(found, true))
      wanted = (hits + 1) / 101 if hits else 0
      np.testing.assert_allclose(result['map_50'], wanted, rtol=1e-6)

  def test_as_cocos_loops(self):
    for seed in range(4):
      found, true = drawn(np.random.default_rng(seed))
      result = summary(sums(found, true, num_classes=3))
      wanted = np.array(
        [[cocos(found, true, bound, k) for bound in THRESHOLDS] for k in range(3)]
      )
      np.testing.assert_allclose(
        result['average_precision'], wanted[..., 0], rtol=1e-5, atol=1e-6
      )
      np.testing.assert_allclose(
        result['recall'], np.nanmean(wanted[..., 1]), rtol=1e-5
      )
      self.assertTrue(0.05 < result['map'] < 0.9)

  def test_in_any_batches(self):
    found, true = drawn(np.random.default_rng(9), images=6)
    of, those = arrays(found, true)
    call = functools.partial(counted, num_classes=3, num_rows=6)
    one = call(of, those, jnp.arange(6), jnp.ones(6))
    total = jax.tree.map(jnp.zeros_like, one)
    for rows in ((3, 5), (0, 1), (4, 2)):
      # A row of padding, and one that is no image of the set.
      rows = np.array([*rows, 3, 0])
      mine, true_ones = jax.tree.map(lambda x, r=rows: x[r], (of, those))
      index = jnp.asarray(rows).at[3].set(-1 if rows[0] == 3 else 6)
      total = add(total, call(mine, true_ones, index, jnp.array([1.0, 1, 0, 1])))
    jax.tree.map(np.testing.assert_array_equal, total, one)

  def test_scores_and_classes_that_are_none(self):
    of, those = arrays([[(WHOLE, 0, 0.5)], []], [[(WHOLE, 0)], [(WHOLE, 1)]])
    call = lambda of, those, weight=(1.0, 1.0): summary(
      counted(of, those, jnp.arange(2), jnp.array(weight), num_rows=2)
    )['map']
    self.assertEqual(float(call(of, those)), 0.5)
    broken = (of[0], of[1], of[2].at[1, 0].set(jnp.nan))
    self.assertTrue(np.isnan(call(broken, those)))
    self.assertEqual(float(call(broken, those, (1.0, 0.0))), 1)
    for label in (-1, 2):
      wrong = (those[0], those[1].at[1, 0].set(label), those[2])
      self.assertTrue(np.isnan(call(of, wrong)))
      self.assertEqual(float(call(of, wrong, (1.0, 0.0))), 1)
      # Where nothing is true the class does not matter.
      other = (those[0], those[1].at[1, 3].set(label), those[2])
      self.assertEqual(float(call(of, other)), 0.5)


if __name__ == '__main__':
  absltest.main()
