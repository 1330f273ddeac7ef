"""max_norm: units that are too long are shortened, the others move as without it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.errors import ConfigError


def test_by_hand():
  # Weights into two outputs: (3, 4), of norm 5, and (1, 0).
  params = {'head': {'kernel': jnp.array([[3.0, 1], [4, 0]]), 'bias': jnp.full(2, 9.0)}}
  grads = jax.tree.map(jnp.zeros_like, params)
  grads['head']['kernel'] = jnp.array([[-3.0, -1], [-4, 0]])
  tx = optim.max_norm(optim.sgd(1.0), 5.0)
  moves, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  moved = optax.apply_updates(params, moves)
  # (6, 8) is 10 long and becomes (3, 4); (2, 0) stays, and so does a bias.
  np.testing.assert_allclose(moved['head']['kernel'], [[3, 2], [4, 0]], rtol=1e-6)
  np.testing.assert_array_equal(moved['head']['bias'], [9, 9])


def test_units_of_a_convolution_and_of_zeros():
  params = {'kernel': jnp.stack([jnp.full((3, 4), 2.0), jnp.zeros((3, 4))], -1)}
  tx = optim.max_norm(optim.sgd(0.1), 1.0)
  grads = jax.tree.map(jnp.zeros_like, params)
  moves, _ = tx.update(grads, tx.init(params), params)
  moved = optax.apply_updates(params, moves)['kernel']
  np.testing.assert_allclose(np.linalg.norm(moved[..., 0]), 1, rtol=1e-6)
  np.testing.assert_array_equal(moved[..., 1], 0)


def test_leaves_that_are_not_chosen_and_the_rate_stay():
  params = {
    'a': {'kernel': jnp.full((2, 2), 5.0)},
    'b': {'kernel': jnp.full((2, 2), 5.0)},
  }
  tx = optim.max_norm(optim.adam(0.1), 1.0, optim.by_path('b/kernel'))
  grads = jax.tree.map(jnp.ones_like, params)
  plain = optim.adam(0.1)
  wanted, _ = plain.update(grads, plain.init(params), params)
  state = tx.init(params)
  moves, after = tx.update(grads, state, params)
  np.testing.assert_array_equal(moves['a']['kernel'], wanted['a']['kernel'])
  assert float(optax.apply_updates(params, moves)['b']['kernel'].max()) < 1
  rate = optim.learning_rate(tx, state, after, jnp.zeros((), jnp.int32))
  assert rate is not None
  np.testing.assert_allclose(rate, 0.1, rtol=1e-6)


@pytest.mark.parametrize('limit', [0.0, -1.0])
def test_refuses_a_limit_of_nothing(limit):
  with pytest.raises(ConfigError, match='max_norm=.* must be above 0'):
    optim.max_norm(optim.sgd(0.1), limit)
