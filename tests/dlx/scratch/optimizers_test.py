"""The seven optimisers equal optax over 100 steps, and have their known properties."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx.scratch import optimizers
from dlx.scratch.optimizers import OPTIMIZERS, descend

# Asked for is 1e-6; both are float64 and differ by the order of a few roundings a step,
# which a step on a curved surface may magnify.
TOLERANCE = 1e-9
OPTAX = {
  'sgd': (dict(lr=0.02), optax.sgd(0.02)),
  'momentum': (dict(lr=0.004, mu=0.8), optax.sgd(0.004, 0.8)),
  'nesterov': (dict(lr=0.004), optax.sgd(0.004, 0.9, nesterov=True)),
  'rmsprop': (dict(lr=0.02), optax.rmsprop(0.02)),
  'adam': (dict(lr=0.05, b1=0.8), optax.adam(0.05, 0.8)),
  'adamw': (dict(lr=0.05, decay=0.3), optax.adamw(0.05, weight_decay=0.3)),
  'lamb': (dict(lr=0.01, decay=0.1), optax.lamb(0.01, weight_decay=0.1)),
}


def quartic_slope(w):
  """Of sum(c w^4) / 4 + sum(w)^2 / 2, for any shape."""
  c = np.cos(np.arange(w.size)).reshape(w.shape) ** 2 + 0.1
  return c * w**3 + w.sum()


def by_optax(tx, slope, start, num_steps):
  """The way of the same parameters by optax, in one program."""

  def step(carry, _):
    w, state = carry
    updates, state = tx.update(slope(w), state, w)
    w = optax.apply_updates(w, updates)
    return (w, state), w

  with jax.enable_x64(True):
    w = jnp.asarray(start)
    path = jax.lax.scan(step, (w, tx.init(w)), length=num_steps)[1]
    return np.concatenate([start[None], np.asarray(path)])


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_equals_optax_over_100_steps(name):
  rates, tx = OPTAX[name]
  start = np.random.default_rng(0).normal(size=(3, 4))
  got = descend(OPTIMIZERS[name], quartic_slope, start, 100, **rates)
  expected = by_optax(tx, quartic_slope, start, 100)
  assert np.abs(got[-1] - start).max() > 0.1
  np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_seven_are_compared():
  assert set(OPTAX) == set(OPTIMIZERS)
  assert len(OPTAX) == 7


@pytest.mark.parametrize('surface', ['ravine', 'rosenbrock'])
def test_slopes_are_those_of_jax(surface):
  value = getattr(optimizers, surface)
  slope = getattr(optimizers, f'{surface}_slope')
  points = np.random.default_rng(1).normal(size=(5, 2)) * 2
  with jax.enable_x64(True):
    expected = jax.jit(jax.vmap(jax.grad(value)))(points)
  np.testing.assert_allclose([slope(w) for w in points], expected, rtol=1e-12)


def test_surfaces_are_least_where_they_say():
  assert optimizers.ravine(np.zeros(2)) == 0
  assert optimizers.rosenbrock(np.ones(2)) == 0
  assert optimizers.rosenbrock(np.array([-1.0, 2.0])) == 4 + 100
  np.testing.assert_array_equal(optimizers.ravine_slope(np.zeros(2)), 0)
  np.testing.assert_array_equal(optimizers.rosenbrock_slope(np.ones(2)), 0)


def test_rates_of_convergence_in_a_ravine():
  # Curvatures 1 and 25. SGD at lr = 2 / (1 + 25) shrinks both errors by 24 / 26 a step;
  # momentum of mu = (4 / 6)^2 at lr = 4 / 36 by (5 - 1) / (5 + 1), 5 being sqrt(25).
  start = np.array([-8.0, 1.0])
  path = descend(optimizers.sgd, optimizers.ravine_slope, start, 50, lr=2 / 26)
  expected = np.abs(start) * (24 / 26) ** 50
  np.testing.assert_allclose(np.abs(path[-1]), expected, rtol=1e-10)
  ball = dict(lr=4 / 36, mu=(4 / 6) ** 2)
  path = descend(optimizers.momentum, optimizers.ravine_slope, start, 80, **ball)
  norms = np.linalg.norm(path, axis=-1)
  np.testing.assert_allclose((norms[80] / norms[40]) ** (1 / 40), 4 / 6, atol=0.02)


def test_largest_safe_rate_of_sgd():
  # Stable below 2 / curvature.
  start = np.array([1.0, 1.0])
  run = lambda lr: descend(optimizers.sgd, optimizers.ravine_slope, start, 200, lr=lr)
  assert abs(run(0.079)[-1, 1]) < 0.1 < 10 < abs(run(0.081)[-1, 1])


def test_momentum_at_a_constant_gradient():
  # Steps grow to lr / (1 - mu) = 10 lr.
  for name in ('momentum', 'nesterov'):
    path = descend(OPTIMIZERS[name], lambda w: np.ones(1), np.zeros(1), 300, lr=0.1)
    np.testing.assert_allclose(path[-1] - path[-2], -1.0, rtol=1e-9)


@pytest.mark.parametrize('name', ['rmsprop', 'adam', 'adamw', 'lamb'])
def test_scale_of_the_loss_counts_for_nothing(name):
  rates = OPTAX[name][0] | dict(eps=0.0)
  start = np.array([1.0, -2.0])
  paths = [
    descend(OPTIMIZERS[name], lambda w, s=s: s * quartic_slope(w), start, 20, **rates)
    for s in (1.0, 2.0**20)
  ]
  np.testing.assert_array_equal(*paths)


def test_decay_alone():
  # Without a gradient AdamW shrinks by 1 - lr decay a step, and Adam stays.
  still = lambda w: np.zeros_like(w)
  start = np.array([1.0, -2.0])
  path = descend(optimizers.adamw, still, start, 10, lr=0.5, decay=0.1)
  np.testing.assert_allclose(path[-1], start * 0.95**10, rtol=1e-13)
  np.testing.assert_array_equal(
    descend(optimizers.adam, still, start, 10, lr=0.5)[-1], start
  )


def test_lamb_of_parameters_at_zero():
  # Their length is 0: the step is Adam's.
  path = descend(optimizers.lamb, np.ones_like, np.zeros(3), 1, lr=0.1, eps=0.0)
  np.testing.assert_allclose(path[-1], -0.1, rtol=1e-12)
