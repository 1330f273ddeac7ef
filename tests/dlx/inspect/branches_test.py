"""Tests for dlx/inspect/branches.py, through what looks inside branches and loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Field, Function
from dlx.inspect import inside
from dlx.inspect.maps.filters import filters
from dlx.inspect.maps.model import Model

SIZE = 3
IMAGE = Field('image', (SIZE, SIZE, 1), 'float32')
ODDS = Field('probabilities', (2,), 'float32')


class Block(nn.Module):
  """Twice what it reads: its kernel is 2 times the identity."""

  @nn.compact
  def __call__(self, x_BHWC):
    init = lambda key, shape, dtype: 2 * jnp.ones(shape, dtype)
    return nn.Conv(1, (1, 1), use_bias=False, kernel_init=init, name='twice')(x_BHWC)


class Net(nn.Module):
  """A block in a branch that `go` takes, or `go` times in a loop; then a head."""

  kind: str

  @nn.compact
  def __call__(self, x_BHWC, go):
    block = Block(name='block')
    if self.is_initializing():
      block(x_BHWC)
    elif self.kind == 'cond':
      once, still = lambda m, x: m(x), lambda m, x: x
      x_BHWC = nn.cond(go > 0, once, still, block, x_BHWC)
    elif self.kind == 'switch':  # One module in two branches that follow each other.
      once, twice = lambda m, x: m(x), lambda m, x: m(m(x))
      x_BHWC = nn.switch(go, [once, twice], block, x_BHWC)
    else:
      start = jnp.zeros((), jnp.int32), x_BHWC
      turn = lambda m, carry: (carry[0] + 1, m(carry[1]))
      x_BHWC = nn.while_loop(lambda m, carry: carry[0] < go, turn, block, start)[1]
    with jax.named_scope('pool'):
      x_BHWC = x_BHWC * 1
    return nn.Dense(2, name='head')(x_BHWC.reshape(len(x_BHWC), -1))


def opened(kind, go):
  """(model, state) whose state says which branch is taken, or how many turns."""
  net = Net(kind)
  params = net.init(jax.random.key(0), jnp.ones((1, SIZE, SIZE, 1)), 1)['params']
  state = {'params': params, 'go': jnp.asarray(go, jnp.int32)}

  def call(state, inputs):
    logits = net.apply({'params': state['params']}, inputs['image'], state['go'])
    return {'probabilities': jax.nn.softmax(logits)}

  return Model(Function(call, {'image': IMAGE}, {'probabilities': ODDS}), state), state


IMAGES = jnp.arange(2.0 * SIZE * SIZE).reshape(2, SIZE, SIZE, 1) + 1


def value(model, state, name):
  layer = model.layer(name)
  return jax.jit(lambda s, x: model.value(layer, s, x))(state, IMAGES)


def test_a_branch_that_is_taken_gives_its_layers():
  model, state = opened('cond', 1)
  assert {'block', 'block/twice', 'head'} <= set(model.layers)
  np.testing.assert_array_equal(value(model, state, 'block'), 2 * IMAGES)
  model.check_ran(model.layer('block'), state, IMAGES)
  found = filters(model, state, 'block/twice')
  np.testing.assert_array_equal(found.weights_NhwC, [[[[2.0]]]])


def test_a_branch_that_is_not_taken_gives_nothing_and_says_so():
  model, state = opened('cond', 0)
  assert np.isnan(value(model, state, 'block')).all()
  with pytest.raises(ConfigError, match='a branch that is not taken'):
    model.check_ran(model.layer('block'), state, IMAGES)
  with pytest.raises(ConfigError, match='--layer=block/twice is not allowed'):
    filters(model, state, 'block/twice')


def test_the_gradient_by_a_layer_in_a_branch():
  """It is that by what the branch gives: the kernel of the head."""
  kernels = lambda state: np.asarray(state['params']['head']['kernel'])
  for go in (1, 0):
    model, state = opened('cond', go)
    args = (model.layer('block'), state, IMAGES, jnp.array([0, 1]))
    _, slope = jax.jit(model.layer_gradient, static_argnums=0)(*args)
    wanted = go * kernels(state).T.reshape(2, SIZE, SIZE, 1)
    np.testing.assert_allclose(slope, wanted, rtol=1e-6)


def test_one_module_in_two_branches_is_two_layers():
  model, state = opened('switch', 1)
  names = [name for name in model.layers if name.startswith('block/twice')]
  values = [value(model, state, name) for name in names]
  assert np.isnan(values[0]).all()
  np.testing.assert_array_equal(values[-1], 4 * IMAGES)


def test_a_loop_shows_its_last_turn():
  model, state = opened('while', 3)
  np.testing.assert_array_equal(value(model, state, 'block [last]'), 8 * IMAGES)
  state['go'] = jnp.asarray(0, jnp.int32)
  assert np.isnan(value(model, state, 'block [last]')).all()


def test_no_gradient_passes_a_loop_that_counts_as_it_runs():
  model, state = opened('while', 3)
  chosen = jnp.array([0, 1])
  with pytest.raises(ConfigError, match='block .last. is not allowed: no gradient'):
    model.layer_gradient(model.layer('block [last]'), state, IMAGES, chosen)
  with pytest.raises(
    ConfigError, match='not differentiable: no gradient passes a loop'
  ):
    model.image_gradient(state, IMAGES, chosen)
  # Behind the loop there is one.
  pool = model.layer('pool')
  _, slope = jax.jit(model.layer_gradient, static_argnums=0)(
    pool, state, IMAGES, chosen
  )
  kernel = np.asarray(state['params']['head']['kernel'])
  np.testing.assert_allclose(slope, kernel.T.reshape(2, SIZE, SIZE, 1), rtol=1e-6)


@pytest.mark.parametrize(
  ('kind', 'go', 'most'), [('cond', 1, 36), ('cond', 0, 18), ('while', 2, 72)]
)
def test_activations_inside(kind, go, most):
  model, state = opened(kind, go)
  compute = jax.jit(inside.histograms(model.answers))
  found = inside.named(compute(state, None, IMAGES))
  ran = {key: x for key, x in found.items() if not np.isnan(x.zero)}
  assert (set(found) == set(ran)) == (go > 0)
  largest = [float(x.high) for x in ran.values()]
  assert most in largest, (list(ran), largest)
