"""Tests for dlx/inspect/maps/embedding.py."""

import jax
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.inspect.maps.embedding import features, neighbours, principal
from tests.dlx.inspect.maps import nets


def test_features_are_what_the_head_reads():
  model, state, image = nets.model(), nets.weights(), np.asarray(nets.images(5))
  maps = jax.jit(nets.maps_of)(state['params'], image)
  wanted = np.square(np.asarray(maps)).mean((1, 2))
  # In parts, the last of which is shorter.
  found = features(model, state, image, rows=3)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  of_layer = features(model, state, image, model.layer('conv'))
  np.testing.assert_allclose(of_layer, np.asarray(maps).reshape(5, -1), rtol=1e-5)


def test_principal_components_by_hand():
  # Along (3, 4) / 5 the variance is 4, across it 1.
  along, across = np.array([3, 4]) / 5, np.array([-4, 3]) / 5
  points = np.stack([2 * along, -2 * along, across, -across]) + 7
  plane = principal(points)
  np.testing.assert_allclose(plane.shares, [0.8, 0.2])
  np.testing.assert_allclose(plane.points_N2[:2], [[2, 0], [-2, 0]], atol=1e-12)
  np.testing.assert_allclose(np.abs(plane.points_N2[2:, 1]), 1)
  # One feature: nothing across it.
  line = principal(np.arange(4.0)[:, None])
  np.testing.assert_allclose(line.points_N2[:, 0], [-1.5, -0.5, 0.5, 1.5])
  np.testing.assert_allclose(line.points_N2[:, 1], 0)
  assert line.shares == (1, 0)


def test_neighbours_stay_together():
  rng = np.random.default_rng(0)
  far = np.repeat(np.eye(3) * 50, 10, 0) + rng.normal(size=(30, 3))
  found = neighbours(far)
  assert found.shape == (30, 2)
  centres = found.reshape(3, 10, 2).mean(1)
  near = np.linalg.norm(found[:, None] - centres[None], axis=-1).argmin(1)
  np.testing.assert_array_equal(near, np.repeat(np.arange(3), 10))


def test_errors():
  with pytest.raises(ConfigError, match='2 images are not allowed'):
    principal(np.zeros((2, 4)))
  with pytest.raises(ConfigError, match='are equal'):
    principal(np.ones((5, 4)))
