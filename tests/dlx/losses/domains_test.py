"""CORAL by hand and against numpy.cov."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses


def test_by_hand():
  # Covariances diag(2, 0) and diag(0, 8): (2^2 + 8^2) / (4 * 2^2).
  source = jnp.array([[1.0, 5], [-1, 5]])
  target = jnp.array([[7.0, 2], [7, -2]])
  assert float(losses.coral(source, target)) == pytest.approx(68 / 16)


@pytest.mark.parametrize(('b', 'n', 'd'), [(5, 9, 3), (2, 2, 7), (64, 32, 1)])
def test_equals_numpy(b, n, d):
  rng = np.random.default_rng(0)
  source, target = rng.normal(size=(b, d)), 2 * rng.normal(size=(n, d)) + 1
  apart = np.cov(source.T, ddof=1) - np.cov(target.T, ddof=1)
  expected = np.square(apart).sum() / (4 * d * d)
  f32 = [jnp.asarray(x, jnp.float32) for x in (source, target)]
  np.testing.assert_allclose(losses.coral(*f32), expected, rtol=1e-5)


def test_means_and_order_do_not_count_and_one_row_has_no_covariance():
  x = jax.random.normal(jax.random.key(0), (8, 3))
  assert float(losses.coral(x, x[::-1] + 5.0)) == pytest.approx(0, abs=1e-10)
  one = losses.coral(x[:1], x[1:2])
  assert float(one) == 0 and losses.coral(x.astype(jnp.bfloat16), x).dtype == 'float32'
  assert np.isfinite(jax.grad(losses.coral)(x[:1], x)).all()
  assert losses.coral(x[:0], x) == losses.coral(x[:1], x) > 0
