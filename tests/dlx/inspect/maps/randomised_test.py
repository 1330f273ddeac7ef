"""Tests for dlx/inspect/maps/randomised.py."""

import jax
import jax.numpy as jnp
import numpy as np

from dlx.experiment import Field, Function
from dlx.inspect.maps import gradients
from dlx.inspect.maps.model import Model
from dlx.inspect.maps.randomised import cascade, randomised, rank_correlation
from tests.dlx.inspect.maps import nets


def test_rank_correlation_is_spearmans():
  from scipy.stats import spearmanr

  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 5, (2, 3, 4, 4)).astype(float)  # With ties.
  wanted = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b)]
  np.testing.assert_allclose(rank_correlation(a, b), wanted, rtol=1e-12)
  # Of squares: an order is all that counts.
  np.testing.assert_allclose(rank_correlation(a, a**2), 1, rtol=1e-12)
  np.testing.assert_array_equal(rank_correlation(a, np.ones_like(a)), 0)


def test_weights_are_shuffled_from_the_end():
  model, state = nets.model(), nets.weights()
  told = list(cascade(model, state, jax.random.key(0)))
  assert [layer for layer, _ in told] == ['head', 'conv']
  head, both = (changed['params'] for _, changed in told)
  np.testing.assert_array_equal(head['conv'], state['params']['conv'])
  for name in ('head', 'bias'):
    assert (head[name] != state['params'][name]).any()
    np.testing.assert_array_equal(head[name], both[name])
  assert (both['conv'] != state['params']['conv']).mean() > 0.9
  np.testing.assert_array_equal(
    *(np.sort(p['conv'], None) for p in (both, state['params']))
  )


def bars():
  """(model, state, images): what is upright, found by a filter of upright edges."""
  image = Field('image', (12, 12, 1), 'float32')
  edge = jnp.array([[-1.0, 2, -1]] * 3)
  filters = jnp.stack([edge, edge.T], -1)[:, :, None] / 6  # [3, 3, 1, 2]
  head = jnp.array([[4.0, -4.0], [-4.0, 4.0]])

  def call(state, inputs):
    with jax.named_scope('Net'), jax.named_scope('conv'):
      maps = nets.maps_of({'conv': state['params']['conv']}, inputs['image'])
    with jax.named_scope('Net'), jax.named_scope('head'):
      logits = maps.mean((1, 2)) @ state['params']['head']
    return {'probabilities': jax.nn.softmax(logits)}

  odds = Field('probabilities', (2,), 'float32', names=('upright', 'lying'))
  function = Function(call, {'image': image}, {'probabilities': odds})
  state = {'params': {'conv': filters, 'head': head}}
  rng = np.random.default_rng(0)
  rows = rng.uniform(0, 0.2, (8, 12, 12, 1)).astype(np.float32)
  for i, x in enumerate(rows):
    x[2:9, 1 + i] = 1
  return Model(function, state), state, jnp.asarray(rows)


def test_shuffled_weights_destroy_a_map():
  model, state, image = bars()
  layer, upright = model.layer('conv'), jnp.zeros(8, jnp.int32)
  explain = jax.jit(
    lambda state: gradients.grad_cam(model, layer, state, image, upright)
  )
  first = np.asarray(explain(state))
  at = first.reshape(8, -1).argmax(1) % 12
  np.testing.assert_array_equal(at, 1 + np.arange(8))  # On the bar.
  over = np.mean(
    [
      [x.correlation_B.mean() for x in randomised(model, state, explain, key)]
      for key in jax.random.split(jax.random.key(0), 8)
    ],
    0,
  )
  assert len(over) == 2
  assert over[-1] < 0.5, over
  # What does not read the weights stays as it is.
  same = list(randomised(model, state, lambda s: image[..., 0], jax.random.key(0)))
  np.testing.assert_allclose(same[-1].correlation_B, 1, rtol=1e-12)
