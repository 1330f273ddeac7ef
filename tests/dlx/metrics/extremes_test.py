"""Every metric of no rows, of rows that do not count, of nan, of one class or point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics
from dlx.state import ratios

NAN = np.nan
SCORES = ('precision', 'recall', 'f1')
ROWS, CLASSES = 3, 4


def means(x, label, weight):
  return ratios(
    {
      'accuracy': metrics.accuracy(x, label, weight),
      'top': metrics.top_k(x, label, weight, k=2),
      'mean': metrics.mean(jnp.where(weight != 0, x[:, 0], 0), weight),
    }
  )


def scores(x, label, weight):
  sums = metrics.classification_sums(x, label, weight)
  found = metrics.classification_summary(sums)
  return {name: found[name] for name in SCORES}


def calibration(x, label, weight):
  return metrics.calibration_error(metrics.calibration_sums(x, label, weight))


def ranking(x, label, weight):
  of = x[:, 0], label == 0, weight
  placed = metrics.place_scores(*of[:2], jnp.arange(len(x)), weight, ROWS)
  placed = placed['score'], placed['label'], placed['weight']
  binned = metrics.ranking_of_bins(metrics.score_sums(*of))
  found = [f(*args) for f in (metrics.roc_auc, metrics.average_precision)
           for args in (of, placed)]  # fmt: skip
  return [*found, binned, metrics.one_vs_rest(metrics.roc_auc, x, label, weight)]


def distances(x, label, weight):
  del label
  kernel = metrics.gaussian_kernel(1.0)
  own = x, x, kernel, weight, weight
  return metrics.mmd(*own), metrics.mmd(*own, unbiased=False)


def frechet(x, label, weight):
  del label
  sums = metrics.feature_moments(x[:, :1], weight)
  return metrics.frechet_of(sums, sums)


def inception(x, label, weight):
  del label
  return metrics.inception_score(metrics.inception_sums(x, weight))


def segmentation(x, label, weight):
  pixels = x[:, None, None], label[:, None, None]
  found = metrics.segmentation_summary(metrics.segmentation_sums(*pixels, weight))
  return {name: found[name] for name in metrics.SEGMENTATION}


def detection(x, label, weight):
  found = jnp.stack([0 * x[:, 0], 0 * x[:, 0], x[:, 0], x[:, 0]], 1)
  true = jnp.ones_like(x[:, None]).at[..., :2].set(0)
  label, index = label[:, None], jnp.arange(len(x))
  sums = metrics.detection_sums(
    (found[:, None], label, x[:, :1]), (true, label, label == 0), index, weight,
    num_classes=CLASSES, num_rows=ROWS,
  )  # fmt: skip
  found = metrics.detection_summary(sums)
  return {name: found[name] for name in metrics.DETECTION}


def regression(x, label, weight):
  del label
  # What does not count may be nan in none of these: a product of 0 and nan.
  x = jnp.where(weight[:, None] != 0, x, 0)
  sums = metrics.regression_sums(x[:, 0], x[:, 1], weight, shift=0.0)
  return metrics.regression_summary(sums)


# What each gives: of no rows; where no row counts, though they hold nan; of nan; of the
# same row again and again, of one class, which is predicted for certain.
CASES = {
  'means': (means, NAN, NAN, NAN, 1),
  'scores': (scores, 0, 0, NAN, 1),
  'calibration': (calibration, NAN, NAN, NAN, 0),
  'ranking': (ranking, NAN, NAN, NAN, NAN),
  'distances': (distances, NAN, NAN, NAN, 0),
  'frechet': (frechet, NAN, NAN, NAN, 0),
  'inception': (inception, NAN, NAN, NAN, 1),
  'segmentation': (segmentation, NAN, NAN, NAN, 1),
  'detection': (detection, NAN, NAN, NAN, 1),
  'regression': (
    regression, NAN, NAN, NAN, {'mse': 1, 'mae': 1, 'rmse': 1, 'r2': 0},
  ),
}  # fmt: skip
BROKEN = jnp.full((ROWS, CLASSES), NAN)
DATA = (
  (jnp.zeros((0, CLASSES)), 0),
  (BROKEN, 0),
  (BROKEN, 1),
  (jnp.eye(1, CLASSES).repeat(ROWS, 0), 1),
)
NAMES = ('no rows', 'none counts', 'nan', 'one class')


@pytest.fixture(scope='module')
def found():
  """By the data, then by case."""
  call = jax.jit(lambda *data: {name: case[0](*data) for name, case in CASES.items()})
  return [
    call(x, jnp.zeros(len(x), jnp.int32), jnp.full(len(x), float(w))) for x, w in DATA
  ]


@pytest.mark.parametrize('data', range(len(DATA)), ids=NAMES)
@pytest.mark.parametrize('name', sorted(CASES))
def test_stated(name, data, found):
  wanted, got = CASES[name][1 + data], found[data][name]
  if not isinstance(wanted, dict):
    wanted = jax.tree.map(lambda x: np.full(x.shape, wanted), got)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, wanted)


def test_one_row_of_nan_spoils_the_mean_and_no_row_beside_it():
  x = jnp.eye(3, CLASSES).at[1, 2].set(NAN)
  label, count = jnp.arange(3), jnp.array([1.0, 0, 1])
  assert np.isnan(metrics.accuracy(x, label).total)
  assert float(metrics.accuracy(x, label, count).total) == 2
  assert np.isnan(metrics.confusion(x, label)).any()
  wanted = np.diag([1.0, 0, 1, 0])
  np.testing.assert_array_equal(metrics.confusion(x, label, count), wanted)


def test_calibration_of_rows_that_count_alone():
  probs = jnp.array([[0.75, 0.25], [NAN, NAN], [0.5, 0.5]])
  label, weight = jnp.array([0, 9, -1]), jnp.array([1.0, 0, 0])
  sums = metrics.calibration_sums(probs, label, weight)
  assert sums['count'].shape == (15,) and float(sums['count'].sum()) == 1
  np.testing.assert_allclose(metrics.calibration_error(sums), 0.25, rtol=1e-6)


@pytest.mark.parametrize('index', [-1, 3])
def test_what_has_a_number_outside_is_left_out(index):
  one, numbers = jnp.ones(2), jnp.array([0, index])
  placed = metrics.place_scores(one, one, numbers, one, 3)
  for name in ('score', 'label', 'weight'):
    np.testing.assert_array_equal(placed[name], [1, 0, 0])
  rows = metrics.place_rows(jnp.ones((2, 1)), numbers, one, 3)
  np.testing.assert_array_equal(rows, [[1], [0], [0]])


def test_features_that_do_not_count_and_those_of_no_rows():
  x = jnp.array([[1.0, 2.0], [NAN, NAN]])
  placed = metrics.place_rows(x, jnp.array([1, 0]), jnp.array([1.0, 0.0]), 2)
  np.testing.assert_array_equal(placed, [[0, 0], [1, 2]])
  none = jnp.zeros((0, 2, 2, 1))
  assert metrics.place_rows(none, jnp.zeros(0, int), jnp.zeros(0), 3).shape == (3, 4)
  none = jnp.zeros((0, 2))
  assert metrics.nearest_distance(none, 0).shape == (0,)
  assert np.isinf(metrics.nearest_distance(x[:1], 1)).all()
  assert np.isnan(metrics.median_distance(none, x))
  assert np.isnan(metrics.alignment(none, none))
  assert np.isnan(metrics.uniformity(none)) and np.isnan(metrics.uniformity(x[:1]))
  same = metrics.principal_components(jnp.ones((3, 2)))
  np.testing.assert_array_equal(same, np.zeros((3, 2)))


def test_texts_without_words():
  assert metrics.corpus_bleu([], []) == 0
  for text, reference in (('', ''), ('a b', ''), ('', 'a b')):
    assert metrics.corpus_bleu([text], [[reference]]) == 0
