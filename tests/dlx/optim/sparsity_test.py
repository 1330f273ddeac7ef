"""L1 and L2: values, exact zeros, and when a penalty is a weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import losses, optim
from dlx.errors import ConfigError

EPS = float(np.finfo(np.float32).eps)


def params():
  return {'kernel': jnp.array([[3.0, -4.0]]), 'bias': jnp.array([5.0])}


def test_penalties_by_hand():
  assert float(losses.l1(params())) == 7
  assert float(losses.l2(params())) == 12.5
  everything = lambda p: jax.tree.map(lambda _: True, p)
  assert float(losses.l1(params(), everything)) == 12
  grads = jax.grad(losses.l1)({'kernel': jnp.array([[2.0, 0.0, -3.0]])})
  np.testing.assert_array_equal(grads['kernel'], [[1, 0, -1]])
  half = {'kernel': jnp.full((2, 300), 16.0, jnp.float16)}
  assert float(losses.l2(half)) == 0.5 * 600 * 256  # No float16 holds it.
  assert float(losses.l1({'bias': jnp.ones(2)})) == 0
  assert float(losses.l1({'convolution': jnp.ones((3, 3, 2, 4))})) == 72


def trained(tx, start, gradient, steps):
  """After some steps along the gradient of a loss, in one program."""

  def step(carry, _):
    p, state = carry
    moves, state = tx.update(gradient(p), state, p)
    return (optax.apply_updates(p, moves), state), None

  run = lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps)[0][0]
  return jax.jit(run)(start)


def quadratic(p):
  """Gradient of a loss whose least lies elsewhere."""
  return jax.tree.map(lambda w: 0.3 * (w - 2.0) + 0.1 * jnp.sin(3 * w), p)


@pytest.mark.parametrize(
  ('name', 'same'),
  [
    *[(name, True) for name in ('sgd', 'momentum', 'nesterov')],
    *[(name, False) for name in ('adam', 'rmsprop')],
  ],
)
def test_an_l2_penalty_is_a_weight_decay_for_sgd_and_not_for_adam(name, same):
  decay, rate = 0.2, 0.05
  penalised = lambda p: jax.tree.map(
    jnp.add, quadratic(p), jax.grad(lambda p: decay * losses.l2(p))(p)
  )
  a = trained(optim.named_optimizer(name, rate), params(), penalised, 20)
  if name in ('adam', 'rmsprop'):  # Decoupled, as that of adamw.
    decoupled = optax.chain(
      optax.scale_by_adam() if name == 'adam' else optax.scale_by_rms(0.99),
      optax.add_decayed_weights(decay, optim.decay_mask),
      optax.scale(-rate),
    )
  else:
    options = {'weight_decay': decay}
    decoupled = optim.named_optimizer(name, rate, **options)
  b = trained(decoupled, params(), quadratic, 20)
  np.testing.assert_allclose(a['bias'], b['bias'], rtol=1e-5)  # Not penalised.
  gap = float(jnp.abs(a['kernel'] - b['kernel']).max())
  # Numbers up to 4, some ten roundings in each of 20 steps.
  assert gap < 4 * 200 * EPS if same else gap > 0.05, gap


def test_adamw_is_the_decay_of_that_test():
  a = trained(optim.adamw(0.05, 0.2), params(), quadratic, 20)
  chain = optax.chain(
    optax.scale_by_adam(),
    optax.add_decayed_weights(0.2, optim.decay_mask),
    optax.scale(-0.05),
  )
  b = trained(chain, params(), quadratic, 20)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_proximal_step_by_hand():
  tx, p = optim.proximal_l1(optim.sgd(0.5), 0.2), params()
  zero = jax.tree.map(jnp.zeros_like, p)
  moves, _ = tx.update({**zero, 'kernel': jnp.array([[5.9, 0.0]])}, tx.init(p), p)
  after = optax.apply_updates(p, moves)
  # 3 - 0.5 * 5.9 = 0.05, within 0.5 * 0.2 of 0; -4 goes 0.1 towards it.
  np.testing.assert_allclose(after['kernel'], [[0.0, -3.9]], rtol=1e-6)
  assert float(after['kernel'][0, 0]) == 0
  np.testing.assert_array_equal(after['bias'], p['bias'])


def test_proximal_gradient_solves_the_lasso():
  """A known minimum: soft thresholding, where features are orthonormal."""
  target = jnp.array([[1.0, -0.5, 0.15, -0.05]])
  gradient = lambda p: {'w': p['w'] - target}
  tx = optim.proximal_l1(optim.sgd(0.5), 0.2)
  after = trained(tx, {'w': jnp.zeros((1, 4))}, gradient, 60)
  np.testing.assert_allclose(after['w'], [[0.8, -0.3, 0.0, 0.0]], atol=1e-6)
  found = optim.zero_weights(after)
  assert (float(found.total), float(found.count)) == (2, 4)
  # By the gradient of the penalty no weight is 0 (Adam, a rate that stays).
  swung = lambda p: {'w': p['w'] - target + 0.2 * jnp.sign(p['w'])}
  after = trained(optim.adam(0.01), {'w': jnp.full((1, 4), 0.3)}, swung, 200)
  assert float(optim.zero_weights(after).total) == 0
  assert float(optim.zero_weights(after, 0.02).total) == 2


@pytest.mark.parametrize('name', ['momentum', 'adam', 'lamb'])
def test_a_schedule_a_clip_and_narrow_parameters(name):
  """The bound of a step is that of its own rate; off it is the optimiser itself."""
  schedule = optim.step_decay(0.1, 2, 0.1)
  plain = optim.named_optimizer(name, schedule)
  tx = optim.clip(optim.proximal_l1(plain, 0.5), norm=1.0)
  p, zero = {'w': jnp.ones((2, 2))}, {'w': jnp.zeros((2, 2))}
  state, seen = tx.init(p), []
  for _ in range(3):
    moves, new = tx.update(zero, state, p)
    p, seen = optax.apply_updates(p, moves), [*seen, float(p['w'][0, 0])]
    np.testing.assert_allclose(
      optim.learning_rate(tx, state, new, jnp.int32(0)), schedule(len(seen) - 1)
    )
    state = new
  decay = 0.01 if name == 'lamb' else 0.0
  if not decay:
    np.testing.assert_allclose(
      [*seen, float(p['w'][0, 0])], [1, 0.95, 0.9, 0.895], rtol=1e-5
    )
  narrow = {'w': jnp.ones((2, 2), jnp.bfloat16)}
  state = optim.proximal_l1(optim.sgd(0.01), 0.1)
  _, after = state.update(
    jax.tree.map(jnp.zeros_like, narrow), state.init(narrow), narrow
  )
  np.testing.assert_allclose(after.params['w'], 0.999, rtol=1e-6)


def test_refuses():
  with pytest.raises(ConfigError, match='l1=-1.0 is not allowed: must be at least 0'):
    optim.proximal_l1(optim.sgd(0.1), -1.0)
  with pytest.raises(ConfigError, match='without a known learning rate'):
    optim.proximal_l1(optax.sgd(0.1), 0.1)


def test_counts_by_mask():
  tree = {'a': jnp.array([[0.0, 1.0]]), 'b': jnp.zeros(3)}
  found = optim.zero_weights(tree)
  assert (float(found.total), float(found.count)) == (1, 2)
  found = optim.zero_weights(tree, mask=lambda p: jax.tree.map(lambda _: True, p))
  assert (float(found.total), float(found.count)) == (4, 5)
  assert float(optim.zero_weights({'b': jnp.zeros(3)}).count) == 0
