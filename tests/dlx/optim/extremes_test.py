"""Every optimiser of gradients that are 0, nan, inf, or too large to be squared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.train.steps import all_finite

PARAMS = {'kernel': np.float32([[0.5, -1.0], [2.0, 0.25]]), 'bias': np.ones(2, 'f4')}
# A gradient of 1e30 has no square: the state is then not finite, unless it is clipped.
SQUARES = {'adagrad', 'adam', 'adamw', 'lamb', 'muon', 'rmsprop'}


def of_size(size):
  return jax.tree.map(lambda p: jnp.full(p.shape, size, p.dtype), PARAMS)


def two_steps(tx, size):
  """(parameters, state) after a step of these gradients and one of zeros."""

  def step(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(lambda p, u: p + u, params, updates), state

  state = tx.init(PARAMS)
  params, state = step(PARAMS, state, of_size(size))
  return step(params, state, of_size(0.0))


@pytest.fixture(scope='module')
def after():
  """By optimiser, then by the size of the gradients; also clipped ones."""

  def run(sizes):
    found = {}
    for name in optim.OPTIMIZERS:
      tx = optim.named_optimizer(name, 0.1)
      found[name] = {key: two_steps(tx, size) for key, size in sizes.items()}
      clipped = optim.clip(tx, norm=1.0)
      found[name]['clipped'] = two_steps(clipped, sizes['huge'])
    return found

  sizes = {'zero': 0.0, 'nan': np.nan, 'inf': np.inf, 'huge': 1e30}
  return jax.jit(run)({k: jnp.float32(v) for k, v in sizes.items()})


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_no_gradient_moves_nothing_that_does_not_decay(name, after):
  params, state = after[name]['zero']
  np.testing.assert_array_equal(params['bias'], PARAMS['bias'])
  decays = name in ('adamw', 'lamb')
  moved = np.abs(params['kernel']) < np.abs(PARAMS['kernel'])
  np.testing.assert_array_equal(moved, decays)
  assert all_finite((params, state))


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_what_is_not_finite_is_not_hidden(name, after):
  for size in ('nan', 'inf'):
    assert not all_finite(after[name][size]), size
  assert bool(all_finite(after[name]['huge'])) == (name not in SQUARES)


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_clipping_takes_a_gradient_that_has_no_square(name, after):
  params, state = after[name]['clipped']
  assert all_finite((params, state))
  moved = {k: params[k] - PARAMS[k] for k in PARAMS}
  assert all((x != 0).all() for x in moved.values())
