"""Sharpness-aware minimisation: by hand, then optax's, then through `supervised`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from dlx import optim
from dlx.state import Mean
from dlx.train import sharpness, steps
from tests import turns
from tests.dlx.train.supervised_test import make, run


def loss_fn(params, model_state, batch, rng):
  """Half the weighted squares; counts its calls."""
  value = 0.5 * (batch['x'] * jnp.square(params['w'])[None]).sum()
  count = jnp.float32(batch['x'].shape[0])
  return Mean(value, count), (model_state + 1, {})


def test_by_hand():
  # Of w^2 / 2 the gradient is w, [3, 4]: moved by 0.5 along it, [3.3, 4.4].
  batch, params = {'x': jnp.ones((1, 1))}, {'w': jnp.array([3.0, 4.0])}
  at = loss_fn, params, jnp.int32(0), batch, jax.random.key(0)
  grads, seen, metrics = sharpness.gradients(*at, radius=0.5)
  np.testing.assert_allclose(grads['w'], [3.3, 4.4], rtol=1e-6)
  assert int(seen) == 1 and float(metrics['loss'].total) == 12.5  # Of the pass here.
  grads, _, _ = sharpness.gradients(*at, radius=0.0)
  np.testing.assert_allclose(grads['w'], [3, 4], rtol=1e-6)


def test_no_gradient_moves_nothing():
  batch, params = {'x': jnp.ones((1, 1))}, {'w': jnp.zeros(2)}
  at = loss_fn, params, jnp.int32(0), batch, jax.random.key(0)
  np.testing.assert_array_equal(sharpness.gradients(*at, radius=0.5)[0]['w'], 0)


def test_frozen_parameters_are_not_moved_and_count_in_no_norm():
  def bilinear(params, model_state, batch, rng):
    value = params['a'] * params['b'] ** 2
    return Mean(value, jnp.ones(())), (model_state, {})

  params = {'a': jnp.float32(2.0), 'b': jnp.float32(3.0)}
  at = bilinear, params, (), {'x': jnp.ones(1)}, jax.random.key(0)
  grads, _, _ = sharpness.gradients(*at, radius=1.0, frozen={'a': True, 'b': False})
  np.testing.assert_allclose(grads['b'], 2 * 2 * 4.0)  # b moved by 1, a not at all.


def test_is_optax():
  rng = np.random.default_rng(0)
  scale = jnp.asarray(rng.uniform(0.5, 2, (4, 6)), jnp.float32)
  start = {'w': jnp.asarray(rng.normal(size=6), jnp.float32)}
  mean = lambda p: loss_fn(p, 0, {'x': scale}, None)[0].total / 4
  sam = contrib.sam(
    optax.sgd(0.1, 0.9),
    optax.chain(contrib.normalize(), optax.sgd(0.2)),
    opaque_mode=True,
  )
  tx = optim.sgd(0.1, 0.9)

  @jax.jit
  def theirs(p, state):
    moves, state = sam.update(
      jax.grad(mean)(p), state, p, grad_fn=lambda p, _: jax.grad(mean)(p)
    )
    return optax.apply_updates(p, moves), state

  @jax.jit
  def ours(p, state):
    grads, _, _ = sharpness.gradients(
      loss_fn, p, jnp.int32(0), {'x': scale}, jax.random.key(0), radius=0.2
    )
    return steps.update(tx, grads, state, p)

  a, b = (start, sam.init(start)), (start, tx.init(start))
  for _ in range(20):
    a, b = theirs(*a), ours(*b)
  # Gradients up to 2, some ten roundings a step.
  np.testing.assert_allclose(a[0]['w'], b[0]['w'], atol=20 * 16 * 2**-23)
  plain = (start, tx.init(start))
  assert float(jnp.abs(b[0]['w'] - plain[0]['w']).max()) > 0.1


@turns.seldom(3)
def test_supervised_takes_it_with_micro_batches():
  plain, _ = run(make()[1])
  for radius, same in ((1e-7, True), (0.5, False)):
    whole, _ = run(make(radius=radius)[1])
    parts, _ = run(make(radius=radius, micro_batches=4)[1])
    chex.assert_trees_all_close(whole.params, parts.params, atol=1e-5)
    gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), whole.params, plain.params)
    assert (max(map(float, jax.tree.leaves(gaps))) < 1e-5) == same
