"""Every metric that scikit-learn has, over numbers of rows, classes, weights, ties."""

import itertools

import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics as reference
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from dlx import losses, metrics
from dlx.state import ratios

EPS = float(np.finfo(np.float32).eps)
AVERAGES = ('macro', 'weighted', None)
WEIGHTS = ('ones', 'padded', 'real')
SHAPES = ((6, 2), (40, 3), (90, 11))


def draw(rows, classes, weights, ties, seed=0):
  """Logits, labels and weights; the classes of the labels are all there."""
  rng = np.random.default_rng([seed, rows, classes, ties])
  label = np.concatenate([np.arange(classes), rng.integers(0, classes, rows)])[:rows]
  label = rng.permutation(label) if rows > classes else label
  logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[label]
  weight = {
    'ones': np.ones(rows),
    'padded': (rng.uniform(size=rows) < 0.8) * 1.0,
    'real': rng.uniform(0.1, 3, rows),
  }[weights]
  for k in range(classes):  # Each class counts, once at least.
    weight[np.argmax(label == k)] = max(1, weight[np.argmax(label == k)])
  logits = np.round(logits) if ties else logits
  return np.float32(logits), label.astype(np.int32), np.float32(weight)


CASES = tuple(
  pytest.param(*shape, weights, ties, id=f'{shape}-{weights}{"-ties" * ties}')
  for shape, weights, ties in itertools.product(SHAPES, WEIGHTS, (False, True))
)


def near(found, wanted, rows):
  """Quotients of sums of so many weights in float32."""
  np.testing.assert_allclose(found, wanted, rtol=(rows + 16) * EPS, atol=4 * EPS)


@jax.jit
def classified(logits, label, weight):
  """(means, confusion, scores by average): one program a shape."""
  means = {
    'accuracy': metrics.accuracy(logits, label, weight),
    'top_k': metrics.top_k(logits, label, weight, k=logits.shape[1] // 2),
    'loss': metrics.mean(losses.softmax_cross_entropy(logits, label), weight),
    'hinge': metrics.mean(losses.multiclass_hinge(logits, label), weight),
  }
  if logits.shape[1] == 2:  # scikit-learn takes one column.
    of_pair = losses.hinge(logits[:, 1] - logits[:, 0], label)
    means['hinge'] = metrics.mean(of_pair, weight)
  confusion = metrics.confusion(logits, label, weight)
  scores = [metrics.precision_recall_f1(confusion, average) for average in AVERAGES]
  return ratios(means), confusion, scores


@jax.jit
def ranked(*args):
  both = metrics.roc_auc, metrics.average_precision
  return [metrics.one_vs_rest(metric, *args) for metric in both]


@pytest.mark.parametrize(('rows', 'classes', 'weights', 'ties'), CASES)
def test_classification(rows, classes, weights, ties):
  logits, label, weight = draw(rows, classes, weights, ties)
  own = {'sample_weight': np.float64(weight)}
  predicted, all_ = logits.argmax(1), np.arange(classes)
  means, confusion, scores = classified(logits, label, weight)
  near(means['accuracy'], reference.accuracy_score(label, predicted, **own), rows)
  if classes > 2:  # Of equal scores scikit-learn keeps the highest classes.
    mirrored = classes - 1 - label, np.float64(logits[:, ::-1])
    more = {'k': classes // 2, 'labels': all_, **own}
    near(means['top_k'], reference.top_k_accuracy_score(*mirrored, **more), rows)
  probability = scipy.special.softmax(np.float64(logits), 1)
  near(means['loss'], reference.log_loss(label, probability, labels=all_, **own), rows)
  decision = logits if classes > 2 else logits[:, 1] - logits[:, 0]
  near(means['hinge'], reference.hinge_loss(label, decision, **own), rows)
  near(confusion, reference.confusion_matrix(label, predicted, **own), rows)
  for average, found in zip(AVERAGES, scores, strict=True):
    wanted = reference.precision_recall_fscore_support(
      label, predicted, labels=all_, average=average, zero_division=0, **own
    )
    for name, x in zip(('precision', 'recall', 'f1'), wanted):
      near(found[name], x, rows)


@pytest.mark.parametrize(('rows', 'classes', 'weights', 'ties'), CASES)
def test_ranking(rows, classes, weights, ties):
  logits, label, weight = draw(rows, classes, weights, ties)
  two = {'average': None, 'sample_weight': np.float64(weight)}
  found = ranked(logits, label, weight)
  hot = np.eye(classes)[label]
  for x, score in zip(
    found, (reference.roc_auc_score, reference.average_precision_score)
  ):
    near(x, score(hot, np.float64(logits), **two), 4 * rows)


@pytest.mark.parametrize('weights', WEIGHTS)
@pytest.mark.parametrize(
  ('rows', 'mean', 'deviation'), [(2, 0, 1), (50, 3, 0.1), (50, -40, 7)]
)
def test_regression(rows, mean, deviation, weights):
  rng = np.random.default_rng(rows)
  target = np.float32(rng.normal(mean, deviation, rows))
  prediction = np.float32(target + rng.normal(0, deviation, rows))
  weight = draw(rows, 2, weights, False)[2]
  sums = metrics.regression_sums(prediction, target, weight, shift=float(mean))
  found = metrics.regression_summary(sums)
  pair, own = (np.float64(target), np.float64(prediction)), {'sample_weight': weight}
  # What is added is rounded relative to the mean, and divided by the deviation.
  slack = int(rows * (1 + abs(mean) / deviation))
  near(found['mse'], reference.mean_squared_error(*pair, **own), slack)
  near(found['rmse'], reference.root_mean_squared_error(*pair, **own), slack)
  near(found['mae'], reference.mean_absolute_error(*pair, **own), slack)
  near(1 - found['r2'], 1 - reference.r2_score(*pair, **own), slack)


@pytest.mark.parametrize(('rows', 'features'), [(1, 1), (7, 3), (12, 40)])
def test_kernels(rows, features):
  rng = np.random.default_rng(features)
  x = np.float32(rng.normal(size=(rows, features)))
  y = np.float32(rng.normal(size=(5, features)))
  for width in (0.5, 1.0, 5.0):
    wanted = rbf_kernel(x, y, 1 / (2 * width**2))
    # Squared distances of up to 4 a feature, over the bandwidth's square.
    np.testing.assert_allclose(
      metrics.gaussian_kernel(width)(x, y), wanted, rtol=64 * features * EPS / width**2,
      atol=EPS,
    )  # fmt: skip
  for degree in (1, 2, 3):
    wanted = polynomial_kernel(x, y, degree, 1 / features)
    np.testing.assert_allclose(
      metrics.polynomial_kernel(degree)(x, y), wanted, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('euclidean', [False, True])
@pytest.mark.parametrize(
  ('rows', 'features', 'k'), [(5, 2, 1), (30, 6, 4), (30, 6, 30)]
)
def test_neighbours(rows, features, k, euclidean):
  rng = np.random.default_rng(rows)
  bank = np.float32(rng.normal(size=(rows, features)) + 3)
  query = np.float32(rng.normal(size=(9, features)) + 3)
  found = metrics.nearest(query, bank, k=k, euclidean=euclidean, chunk=4)
  kind = {'metric': 'euclidean' if euclidean else 'cosine', 'algorithm': 'brute'}
  distance, row = NearestNeighbors(**kind).fit(bank).kneighbors(query, k)
  np.testing.assert_array_equal(found.row_Mk, row)
  wanted = -(distance**2) if euclidean else 1 - distance
  np.testing.assert_allclose(found.similarity_Mk, wanted, rtol=0, atol=256 * EPS)
