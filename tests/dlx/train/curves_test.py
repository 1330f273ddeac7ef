"""Tests for dlx/train/curves.py and the learning rate of dlx/optim."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.state import create
from dlx.train import curves, steps

ON = SimpleNamespace(curves=True)
PARAMS = {'w': jnp.array([3.0, 0.0]), 'b': jnp.array([4.0])}  # Of norm 5.
GRADS = {'w': jnp.array([6.0, 0.0]), 'b': jnp.array([8.0])}  # Of norm 10.


def measured(tx, params=PARAMS, grads=GRADS, updates=1):
  """Values and counts of the last of several updates."""
  old = new = create(params, tx.init(params), jax.random.key(0))
  for _ in range(updates):
    old, new = new, steps.apply(tx, new, grads)
  found = curves.of(ON, tx, old, new, grads)
  return {k: (float(x.total), float(x.count)) for k, x in found.items()}


def halved(count):
  return 0.1 * 0.5**count


def test_of_a_step_of_gradient_descent():
  found = measured(optim.sgd(0.1))
  # 10; the step is 0.1 * 10, the parameters were 5.
  assert found['gradient_norm'] == (10, 1)
  assert found['update_ratio'] == pytest.approx((0.2, 1))
  assert found['learning_rate'] == pytest.approx((0.1, 1))
  assert set(found) == set(curves.CURVES)


def test_the_norm_is_of_before_clipping():
  found = measured(optim.clip(optim.sgd(0.1), norm=1.0))
  assert found['gradient_norm'] == (10, 1)
  assert found['update_ratio'] == pytest.approx((0.02, 1))
  assert found['learning_rate'] == pytest.approx((0.1, 1))


@pytest.mark.parametrize(
  'tx',
  [
    optim.sgd(halved),
    optim.adam(halved),
    optim.adamw(halved),
    optim.freeze(optim.clip(optim.adam(halved), norm=1.0), {'w': False, 'b': True}),
    optax.inject_hyperparams(optax.adam)(learning_rate=halved),
  ],
)
def test_a_schedule_is_that_of_the_update(tx):
  found = [measured(tx, updates=n)['learning_rate'][0] for n in (1, 2, 3)]
  np.testing.assert_allclose(found, [0.1, 0.05, 0.025], rtol=1e-6)


def test_parameters_that_are_called_as_what_is_looked_for():
  params = {'count': jnp.array([3.0]), 'learning_rate': jnp.array([4.0])}
  found = measured(optim.sgd(halved, momentum=0.9), params, params, updates=2)
  assert found['learning_rate'] == pytest.approx((0.05, 1))
  assert 'learning_rate' not in measured(optax.adam(0.1), params, params)


def test_another_optimiser_has_no_known_rate():
  assert set(measured(optax.adam(0.1))) == {'gradient_norm', 'update_ratio'}


def test_a_player_by_name():
  tx, ones = optim.sgd(0.1), {'w': jnp.ones(4)}
  old = {'w': jnp.full(4, 4.0)}, tx.init(ones)
  new = steps.update(tx, ones, *reversed(old))
  found = curves.between(ON, tx, jnp.zeros((), jnp.int32), old, new, ones, 'd')
  # 2; the step is 0.1 * 2, the parameters were 8.
  assert {k: float(x.total) for k, x in found.items()} == {
    'd_learning_rate': pytest.approx(0.1),
    'd_gradient_norm': 2,
    'd_update_ratio': pytest.approx(0.025),
  }
  assert curves.between(SimpleNamespace(curves=False), tx, 0, old, new, ones) == {}


def test_declarations_are_of_what_is_reported():
  found = curves.declared(
    ['loss', 'gradient_norm', 'd_gradient_norm', 'g_update_ratio']
  )
  assert found == {
    'gradient_norm': curves.CURVES['gradient_norm'],
    'd_gradient_norm': curves.CURVES['gradient_norm']._replace(
      title='Gradient norm, d'
    ),
    'g_update_ratio': curves.CURVES['update_ratio']._replace(title='Update ratio, g'),
  }
  # Marks of an exploding gradient are looked for by the group.
  assert found['d_gradient_norm'].group == 'gradient norm'
  assert curves.declared(['my_gradient_norm_2', 'learning_rates']) == {}


def test_no_ratio_to_parameters_that_are_zero():
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  assert measured(optim.sgd(0.1), zeros)['update_ratio'] == (0, 0)
  assert measured(optim.sgd(0.1), zeros)['gradient_norm'] == (10, 1)


def test_a_huge_gradient_leaves_the_sums_of_a_window_finite():
  grads = jax.tree.map(lambda x: x * 1e37, GRADS)
  found = measured(optim.clip(optim.sgd(0.1), norm=1.0), grads=grads)
  assert found['gradient_norm'] == pytest.approx((1e30, 1))
  lost = jax.tree.map(lambda x: x * jnp.nan, GRADS)
  assert np.isnan(measured(optim.sgd(0.1), grads=lost)['gradient_norm'][0])


def test_nothing_where_the_flag_is_off():
  state = create(PARAMS, (), jax.random.key(0))
  off = SimpleNamespace(curves=False)
  assert curves.of(off, optim.sgd(0.1), state, state, GRADS) == {}


def test_a_rate_changes_no_bit():
  plain, rated = optax.adam(halved), optim.adam(halved)
  states = [tx.init(PARAMS) for tx in (plain, rated)]
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
  for a, b in zip(
    *(
      jax.tree.leaves(tx.update(GRADS, s, PARAMS))
      for tx, s in zip((plain, rated), states)
    )
  ):
    np.testing.assert_array_equal(a, b)
