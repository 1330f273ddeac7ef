"""ROC-AUC and average precision: by hand, scikit-learn, shards, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from dlx import metrics
from dlx.errors import ConfigError
from dlx.state import add

ROWS = 60
auc, precision = jax.jit(metrics.roc_auc), jax.jit(metrics.average_precision)


def problem(seed, ties=False):
  rng = np.random.default_rng(seed)
  label = (rng.uniform(size=ROWS) < 0.3).astype(np.int32)
  score = rng.normal(size=ROWS) + label
  if ties:
    score = np.round(score)
  weight = (rng.uniform(size=ROWS) < 0.8).astype(np.float32)
  return score.astype(np.float32), label, weight


def test_by_hand():
  score, label = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
  # Of four pairs three are in order; precision 1 at 0.8 and 2/3 at 0.35.
  assert float(metrics.roc_auc(score, label)) == 0.75
  np.testing.assert_allclose(
    metrics.average_precision(score, label), (1 + 2 / 3) / 2, rtol=1e-6
  )
  # All alike: half of the pairs, and the share of positives.
  assert float(metrics.roc_auc(jnp.ones(4), label)) == 0.5
  assert float(metrics.average_precision(jnp.ones(4), label)) == 0.5


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('weights', ['ones', 'padded', 'real'])
def test_is_sklearn(ties, weights):
  for seed in range(5):
    score, label, weight = problem(seed, ties)
    if weights == 'ones':
      weight = np.ones_like(weight)
    if weights == 'real':
      weight = np.random.default_rng(seed).uniform(0, 2, ROWS).astype(np.float32)
    kept = weight > 0
    reference = {'sample_weight': np.float64(weight[kept])}
    # Sums of up to 60 weights in float32.
    np.testing.assert_allclose(
      auc(score, label, weight),
      sklearn.metrics.roc_auc_score(label[kept], score[kept], **reference),
      rtol=1e-5,
    )
    np.testing.assert_allclose(
      precision(score, label, weight),
      sklearn.metrics.average_precision_score(label[kept], score[kept], **reference),
      rtol=1e-5,
    )


def test_several_classes_are_sklearn_and_absent_ones_nan():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 3, ROWS))
  probs = jax.nn.softmax(logits)
  got = metrics.one_vs_rest(metrics.roc_auc, probs, label)
  wanted = sklearn.metrics.roc_auc_score(label, np.float64(probs), multi_class='ovr')
  np.testing.assert_allclose(jnp.nanmean(got), wanted, rtol=1e-5)
  for k, x in enumerate(metrics.one_vs_rest(metrics.average_precision, probs, label)):
    wanted = sklearn.metrics.average_precision_score(label == k, probs[:, k])
    np.testing.assert_allclose(x, wanted, rtol=1e-5)
  got = metrics.one_vs_rest(metrics.roc_auc, probs, jnp.minimum(label, 1))
  np.testing.assert_array_equal(np.isnan(got), [False, False, True])


def test_gathered_over_unequal_batches_it_is_that_of_the_whole():
  score, label, weight = problem(0)
  score[weight == 0] = np.nan  # Padding may hold anything.
  parts = [slice(0, 7), slice(7, 40), slice(40, 60)]
  index = jnp.arange(ROWS)
  total = None
  for part in parts:
    sums = metrics.place_scores(
      score[part], label[part], index[part], jnp.asarray(weight[part]), ROWS
    )
    total = sums if total is None else add(total, sums)
  assert total is not None
  assert float(metrics.roc_auc(**_named(total))) == float(auc(score, label, weight))


def _named(rows):
  return {f'{name}_N': x for name, x in rows.items()}


@pytest.mark.parametrize('num_bins', [1, 8, 4096])
def test_the_margin_of_bins_holds_the_exact_figure(num_bins):
  for seed in range(5):
    score, label, weight = problem(seed)
    halves = [
      metrics.score_sums(
        score[part], label[part], weight[part], low=-4.0, high=5.0, num_bins=num_bins
      )
      for part in (slice(0, 25), slice(25, ROWS))
    ]
    found = metrics.ranking_of_bins(add(*halves))
    gap = abs(float(found['roc_auc']) - float(auc(score, label, weight)))
    assert gap <= float(found['roc_auc_margin']) + 1e-6
  assert num_bins > 1 or float(found['roc_auc']) == 0.5
  if num_bins == 4096:
    assert float(found['roc_auc_margin']) < 0.01
    np.testing.assert_allclose(
      found['average_precision'], precision(score, label, weight), rtol=1e-2
    )


def test_scores_beyond_the_bins_count_in_the_outermost():
  sums = metrics.score_sums(
    jnp.array([-9.0, 0.0, 1.0, 9.0]), jnp.array([0, 0, 1, 1]), num_bins=2
  )
  np.testing.assert_array_equal(sums['negative'], [2, 0])
  np.testing.assert_array_equal(sums['positive'], [0, 2])
  with pytest.raises(ConfigError, match='num_bins=0'):
    metrics.score_sums(jnp.ones(1), jnp.ones(1), num_bins=0)


@pytest.mark.parametrize('label', [[0, 0], [1, 1]])
def test_one_class_has_no_ranking(label):
  score, label = jnp.array([0.1, 0.9]), jnp.array(label)
  assert np.isnan(auc(score, label)) and np.isnan(precision(score, label))
  found = metrics.ranking_of_bins(metrics.score_sums(score, label))
  assert all(np.isnan(float(x)) for x in found.values())


def test_the_margin_is_half_of_the_pairs_that_share_a_bin():
  # Of 2 x 2 pairs one shares a bin: its order is open, by a half of a pair each way.
  score, label = jnp.array([0.1, 0.15, 0.6, 0.9]), jnp.array([1, 0, 0, 1])
  sums = metrics.score_sums(score, label, num_bins=4)
  found = metrics.ranking_of_bins(sums)
  assert float(found['roc_auc']) == (0.5 + 0 + 1 + 1) / 4
  assert float(found['roc_auc_margin']) == 0.5 / 4


def test_no_rows_and_nan():
  none, label = jnp.zeros(0), jnp.zeros(0, jnp.int32)
  assert np.isnan(metrics.roc_auc(none, label))
  assert np.isnan(metrics.average_precision(none, label))
  score, label = jnp.array([0.1, jnp.nan, 0.9]), jnp.array([0, 1, 1])
  assert np.isnan(auc(score, label)) and np.isnan(precision(score, label))
  found = metrics.ranking_of_bins(metrics.score_sums(score, label))
  assert np.isnan(found['roc_auc'])
  weight = jnp.array([1.0, 0.0, 1.0])
  assert float(auc(score, label, weight)) == 1
  sums = metrics.score_sums(score, label, weight)
  assert float(metrics.ranking_of_bins(sums)['roc_auc']) == 1
