"""Ordered classes: probabilities by hand, far scores, what the thresholds start at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.ordinal import Ordinal, log_probabilities


def test_three_classes_by_hand():
  """sigmoid(-log 3) = 1/4 and sigmoid(log 3) = 3/4."""
  thresholds = jnp.array([-np.log(3), np.log(3)], jnp.float32)
  found = jnp.exp(log_probabilities(jnp.zeros(1), thresholds))
  np.testing.assert_allclose(found, [[0.25, 0.5, 0.25]], rtol=1e-6)


@pytest.mark.parametrize('score', (0.3, -60.0, 60.0))
def test_far_scores_against_float64(score):
  thresholds = np.array([-1.0, -0.9, 2.0])
  found = jax.jit(log_probabilities)(jnp.float32([score]), jnp.float32(thresholds))[0]
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  # From the near side, so that no difference of two ones is taken.
  turn = np.sign(score)
  at = sigmoid(turn * (thresholds - score)) if turn < 0 else sigmoid(thresholds - score)
  whole = np.array([0, *at, 1]) if turn > 0 else np.array([1, *at, 0])
  want = np.abs(np.diff(whole))
  np.testing.assert_allclose(found, np.log(want), rtol=1e-4, atol=1e-6)
  assert jnp.exp(found).sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize('num_classes', (2, 3, 10))
def test_before_training_a_score_of_0_has_no_preference(num_classes):
  model = Ordinal(num_classes)
  variables = model.init(jax.random.key(0), jnp.zeros(1))
  found = jnp.exp(model.apply(variables, jnp.zeros(1)))
  np.testing.assert_allclose(found, np.full((1, num_classes), 1 / num_classes), 1e-5)
  low, high = (model.apply(variables, jnp.float32([x]))[0] for x in (-9, 9))
  assert (low.argmax(), high.argmax()) == (0, num_classes - 1)


def test_gradients_are_finite_far_away():
  loss = lambda score: -log_probabilities(score, jnp.array([-1.0, 1.0]))[:, 0].sum()
  grad = jax.jit(jax.grad(loss))(jnp.array([80.0, -80.0, 0.0]))
  np.testing.assert_allclose(grad, [1, 0, 1 / (1 + np.exp(-1))], atol=1e-6)
