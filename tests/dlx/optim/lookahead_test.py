"""Look-ahead against its formula, and groups of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.errors import ConfigError

START = {'w': jnp.array([4.0, -2.0]), 'norm': jnp.array([1.0])}
TARGET = {'w': jnp.array([1.0, 3.0]), 'norm': jnp.array([0.5])}


def slope(params):
  return jax.tree.map(lambda p, t: p - t, params, TARGET)


def steps(tx, carry, count):
  """Parameters after each of some steps, and the last carry, in one program."""

  def step(carry, _):
    params, state = carry
    moves, state = tx.update(slope(params), state, params)
    params = optax.apply_updates(params, moves)
    return (params, state), params

  return jax.jit(lambda carry: jax.lax.scan(step, carry, length=count))(carry)


def by_hand(every, share, last, count, rate=0.3, momentum=0.5):
  """In NumPy, of one entry: Nesterov's momentum and Algorithm 1 of the paper."""
  fast = slow = float(START['w'][0])
  v, seen = 0.0, []
  for t in range(1, count + 1):
    g = fast - float(TARGET['w'][0])
    v = momentum * v + g
    fast -= rate * (g + momentum * v)
    if t % every == 0 or t == last:
      slow += share(t) * (fast - slow)
      fast = slow
    seen.append(fast)
  return seen


@pytest.mark.parametrize('last', [None, 7])
def test_equals_the_formula(last):
  share = lambda t: 1 - 0.5 * t / 8
  tx = optim.lookahead(optim.sgd(0.3, 0.5, nesterov=True), 3, share, last)
  _, seen = steps(tx, (START, tx.init(START)), 8)
  np.testing.assert_allclose(seen['w'][:, 0], by_hand(3, share, last, 8), rtol=1e-5)
  rate = optim.learning_rate(tx, tx.init(START), None, jnp.zeros((), jnp.int32))
  assert float(rate) == pytest.approx(0.3)


def test_a_share_of_one_is_the_optimiser_itself():
  plain = optim.sgd(0.3, 0.5)
  ahead = optim.lookahead(plain, 2, 1.0)
  wanted = steps(plain, (START, plain.init(START)), 5)[1]
  found = steps(ahead, (START, ahead.init(START)), 5)[1]
  np.testing.assert_allclose(found['w'], wanted['w'], rtol=1e-6)


def test_a_state_that_was_stored_goes_on_with_equal_bits():
  tx = optim.lookahead(optim.sgd(0.3, 0.5), 3, 0.4, last=7)
  straight, _ = steps(tx, (START, tx.init(START)), 7)
  half, _ = steps(tx, (START, tx.init(START)), 4)  # Between two slow steps.
  stored = jax.tree.map(np.array, half)
  resumed, _ = steps(tx, jax.tree.map(jnp.asarray, stored), 3)
  jax.tree.map(np.testing.assert_array_equal, straight, resumed)


def test_slow_weights_of_bfloat16_are_float32():
  start = {'w': jnp.array([4.0, -2.0], jnp.bfloat16)}
  tx = optim.lookahead(optim.sgd(0.01), 2, 0.01)
  state = jax.eval_shape(tx.init, start)
  slow = state.inner.slow['w']  # Within the float32 copies.
  assert slow.dtype == jnp.float32


def test_refuses_what_is_no_look_ahead():
  with pytest.raises(ConfigError, match='every=0 is not allowed'):
    optim.lookahead(optim.sgd(0.1), 0)
  with pytest.raises(ConfigError, match='share=1.5 is not allowed'):
    optim.lookahead(optim.sgd(0.1), 5, 1.5)


def test_groups_have_their_own_rates():
  tx = optim.grouped({'norm': optim.sgd(0.5)}, rest=optim.sgd(0.1))
  moves = jax.jit(lambda p: tx.update(slope(p), tx.init(p), p)[0])(START)
  np.testing.assert_allclose(moves['w'], [-0.3, 0.5], rtol=1e-6)
  np.testing.assert_allclose(moves['norm'], [-0.25], rtol=1e-6)
  assert float(tx.rate(0)) == pytest.approx(0.1)
  with pytest.raises(ConfigError, match="'b' is not allowed: must match the whole"):
    optim.grouped({'b': optim.sgd(0.5)}, optim.sgd(0.1)).init(START)


def test_the_first_group_that_matches_counts():
  tx = optim.grouped({'w': optim.sgd(0.5), '.*': optim.sgd(0.2)}, rest=optim.sgd(0.1))
  moves = jax.jit(lambda p: tx.update(slope(p), tx.init(p), p)[0])(START)
  np.testing.assert_allclose(moves['w'], [-1.5, 2.5], rtol=1e-6)
  np.testing.assert_allclose(moves['norm'], [-0.1], rtol=1e-6)


def test_triangle_by_hand():
  rate = jax.vmap(
    optim.triangle(2.0, 100, at=0.2, first_fraction=0.5, final_fraction=0.1)
  )
  found = rate(jnp.array([0, 10, 20, 60, 100, 200]))
  np.testing.assert_allclose(found, [1.0, 1.5, 2.0, 1.1, 0.2, 0.2], rtol=1e-6)
