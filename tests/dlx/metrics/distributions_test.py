"""MMD, Frechet distance and inception score: by hand, by loops, shards, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics
from dlx.errors import ConfigError
from dlx.state import add


def rows(seed, n=7, features=3, shift=0.0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, features)) + shift).astype(np.float32)


KERNELS = {
  'gaussian': (
    metrics.gaussian_kernel(1.5),
    lambda a, b: np.exp(-((a - b) ** 2).sum() / 4.5),
  ),
  'polynomial': (metrics.polynomial_kernel(), lambda a, b: (a @ b / 3 + 1) ** 3),
}


@pytest.mark.parametrize('kernel', sorted(KERNELS))
def test_mmd_is_the_definition(kernel):
  ours, one = KERNELS[kernel]
  x, y = rows(0), rows(1, 5, shift=0.5)
  mean = lambda a, b, skip=False: np.mean(
    [
      one(np.float64(p), np.float64(q))
      for i, p in enumerate(a)
      for j, q in enumerate(b)
      if not (skip and i == j)
    ]
  )
  for unbiased in (True, False):
    wanted = mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y)
    got = jax.jit(lambda x, y, u=unbiased: metrics.mmd(x, y, ours, unbiased=u))(x, y)
    # Means of kernel values up to 60 for the polynomial.
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_rows_of_weight_0_do_not_count():
  kernel = metrics.gaussian_kernel(1.0)
  x, y = rows(0), rows(1)
  padded = np.concatenate([x, np.full((2, 3), np.nan, np.float32)])
  weight = np.float32([1] * 7 + [0] * 2)
  for unbiased in (True, False):
    np.testing.assert_allclose(
      metrics.mmd(padded, y, kernel, weight, unbiased=unbiased),
      metrics.mmd(x, y, kernel, unbiased=unbiased),
      atol=1e-6,
    )


def test_mmd_tells_a_shift_from_none_and_is_unbiased():
  kernel = metrics.gaussian_kernel(1.5)
  one = jax.jit(lambda x, y: metrics.mmd(x, y, kernel))
  same = [float(one(rows(i, 30), rows(100 + i, 30))) for i in range(40)]
  # The mean over draws is 0 within 4 standard errors; some draws are below 0.
  assert abs(np.mean(same)) < 4 * np.std(same) / 40**0.5 and min(same) < 0
  assert float(one(rows(0, 30), rows(1, 30, shift=1.0))) > 2 * max(same)
  biased = metrics.mmd(rows(0), rows(0), kernel, unbiased=False)
  np.testing.assert_allclose(biased, 0, atol=1e-6)


def test_mmd_of_features_far_from_0():
  kernel = metrics.gaussian_kernel(1.5)
  x, y = rows(0), rows(1)
  near, far = metrics.mmd(x, y, kernel), metrics.mmd(x + 1000, y + 1000, kernel)
  np.testing.assert_allclose(far, near, atol=1e-3)  # Rows are rounded to 6e-5.


def test_median_distance():
  x, y = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [5.0]])
  assert float(metrics.median_distance(x, y)) == 2.0  # Of 1, 5, 1 and 3.
  assert float(metrics.median_distance(x, x)) == 1.0
  with pytest.raises(
    ConfigError, match='bandwidth=0.0 is not allowed: must be above 0'
  ):
    metrics.gaussian_kernel(0.0)


def test_few_rows():
  kernel, one, none = metrics.gaussian_kernel(1.0), rows(0, 1), rows(0, 0)
  assert np.isnan(metrics.mmd(one, rows(1), kernel))
  assert np.isfinite(metrics.mmd(one, rows(1), kernel, unbiased=False))
  assert np.isnan(metrics.mmd(none, rows(1), kernel, unbiased=False))
  constant = np.ones((4, 3), np.float32)
  assert float(metrics.mmd(constant, constant, kernel)) == 0


def test_frechet_of_sums_is_that_of_the_rows_and_adds_up():
  a, b = rows(0, 50), rows(1, 40, shift=0.3)
  ones = lambda n: jnp.ones(n, jnp.float32)
  halves = [metrics.feature_moments(x, ones(25)) for x in (a[:25], a[25:])]
  sums = add(*halves), metrics.feature_moments(b, ones(40))
  wanted = metrics.frechet_distance(
    *(jnp.float32(z) for x in (a, b) for z in (x.mean(0), np.cov(x.T)))
  )
  np.testing.assert_allclose(metrics.frechet_of(*sums), wanted, rtol=1e-4)
  np.testing.assert_allclose(metrics.frechet_of(sums[0], sums[0]), 0, atol=1e-4)
  few = metrics.feature_moments(a[:3], ones(3))
  assert np.isnan(metrics.frechet_of(few, sums[1]))
  assert np.isnan(metrics.frechet_of(sums[1], few))


def score(probs, weight=None):
  return float(
    metrics.inception_score(metrics.inception_sums(jnp.asarray(probs), weight))
  )


def test_inception_score_by_hand():
  assert score(np.eye(4, dtype=np.float32)) == pytest.approx(4)
  assert score(np.full((5, 4), 0.25, np.float32)) == pytest.approx(1)
  assert score([[1.0, 0, 0, 0]] * 3) == pytest.approx(1)  # One class: no variety.
  probs = np.float64([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
  mean = probs.mean(0)
  wanted = np.exp((probs * np.log(probs / mean)).sum(1).mean())
  assert score(np.float32(probs)) == pytest.approx(wanted, rel=1e-6)


def test_inception_score_adds_up_and_skips_padding():
  probs = jax.nn.softmax(jnp.asarray(rows(0, 9, 4)))
  padded = jnp.concatenate([probs[5:], jnp.full((3, 4), jnp.nan)])
  parts = add(
    metrics.inception_sums(probs[:5]),
    metrics.inception_sums(padded, jnp.array([1.0] * 4 + [0.0] * 3)),
  )
  assert float(metrics.inception_score(parts)) == pytest.approx(score(probs), rel=1e-6)
  assert np.isnan(score(np.zeros((0, 4), np.float32)))
  assert np.isnan(score([[np.nan, 0.5]]))
