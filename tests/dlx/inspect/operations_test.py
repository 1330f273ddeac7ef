"""Tests for dlx/inspect/operations.py and units.py: exact counts of dead units."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.inspect import operations, units

# Unit 0 is on for x > 0, unit 1 for x < 0, unit 2 never, unit 3 at x = 3 alone.
KERNEL = np.array([[1.0, -1.0, 0.0, 1.0]], np.float32)
BIAS = np.array([0.0, 0.0, -1.0, -2.5], np.float32)
STATE = {'kernel': KERNEL, 'bias': BIAS, 'head': np.ones((4, 1), np.float32)}


def net(state, batch):
  hidden = jax.nn.relu(batch['x'] @ state['kernel'] + state['bias'][None])
  return hidden @ state['head']


def batches(*rows):
  return [{'x': np.array(x, np.float32)[:, None]} for x in rows]


def counted(step, *rows, state=STATE):
  return units.layers(step, state, batches(*rows))


def test_dead_units_are_exact_over_a_data_set():
  (layer,) = counted(net, [1, 2], [-1, 1], [3, 2])
  np.testing.assert_array_equal(layer.on, [True, True, False, True])
  assert layer.dead == 1
  # The first batch alone would call three of four dead.
  (layer,) = counted(net, [1, 2])
  assert layer.dead == 3
  assert layer.where.startswith('operations_test.py:')


def test_a_formula_of_a_loss_is_no_layer():
  def loss(state, batch):
    logits = batch['x'] @ state['kernel']
    # Binary cross-entropy, and its mean as a product with a constant.
    return jnp.maximum(logits, 0) @ jnp.full((4,), 0.25)

  assert counted(loss, [1, 2]) == []
  # What does not depend on the batch: an initialisation on zeros.
  assert counted(lambda s, b: net(s, {'x': jnp.zeros((2, 1))}), [1, 2]) == []
  # Units that cannot die.
  gelu = lambda s, b: jax.nn.gelu(b['x'] @ s['kernel']) @ s['head']
  assert counted(gelu, [1, 2]) == []


def test_layers_of_a_scan_are_apart_and_parts_of_a_batch_are_not():
  stack = {'w': np.array([[[1.0]], [[-1.0]]], np.float32)}

  def layered(state, batch):
    body = lambda x, w: (jax.nn.relu(x @ w), None)
    return jax.lax.scan(body, batch['x'], state['w'])[0]

  (layer,) = counted(layered, [1, 2], state=stack)
  np.testing.assert_array_equal(layer.on, [[True], [False]])

  def in_parts(state, batch):
    body = lambda _, x: (None, net(state, {'x': x}))
    return jax.lax.scan(body, None, batch['x'].reshape(2, 1, 1))[1]

  (layer,) = counted(in_parts, [1, -1])
  np.testing.assert_array_equal(layer.on, [True, True, False, False])


def test_layers_have_the_names_that_flax_gives_them():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(1, name='head')(nn.relu(nn.Dense(3, name='hidden')(x)))

  model = Net()
  params = model.init(jax.random.key(0), jnp.zeros((1, 1)))
  step = lambda params, batch: model.apply(params, batch['x'])
  (layer,) = counted(step, [1, 2], state=params)
  assert (layer.name, layer.on.shape) == ('hidden', (3,))


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit, jax.checkpoint])
def test_moments_of_what_the_first_layer_reads(wrap):
  def step(state, batch):
    scaled = (batch['x'].astype(jnp.float32) - 1) / 2
    return wrap(net)(state, {'x': scaled})

  batch = {'x': np.array([[1], [3], [5]], np.uint8)}
  taps = operations.Taps('input', step, STATE, batch)
  ((mean, square, largest),) = taps.values(STATE, batch)
  # 0, 1 and 2, with sums 3 and 5.
  np.testing.assert_allclose([mean, square, largest], [1, 5 / 3, 2], rtol=1e-6)
  assert len(taps.places) == 1
