"""Tests for dlx/inspect/maps/model.py and traced.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Experiment, Field, Function
from dlx.inspect.maps.model import Model, as_map, function_of_images, places
from tests.dlx.inspect.maps import nets
from tests.every_experiment import contract_test


def opened(name, **fields):
  """(model, state) of an experiment."""
  module = contract_test.load(name)
  experiment = module.build(module.Config.small(**fields) if fields else module.SMALL)
  state = jax.jit(experiment.init)(jax.random.key(0))
  return Model(function_of_images(experiment)[1], state), state


def test_layers_by_path():
  model, _ = opened('cnn', features=(4, 8), dense=16)
  shapes = {name: x.shape for name, x in model.layers.items()}
  assert shapes == {
    'conv_0': (1, 8, 8, 4),
    'norm_0': (1, 8, 8, 4),
    'conv_1': (1, 4, 4, 8),
    'norm_1': (1, 4, 4, 8),
    'hidden': (1, 16),
    'head': (1, 10),
  }
  assert model.score_kind == 'logit'


def test_a_loop_over_layers_has_its_turns_in_their_order():
  model, _ = opened('vit', width=8, num_heads=2, num_layers=2)
  names = list(model.layers)
  path = 'transformer/blocks/mlp'
  assert names.index(f'{path}/out [0]') < names.index(f'{path} [0]')
  assert names.index(f'{path} [0]') < names.index(f'{path}/in [1]')
  assert names.index(f'{path} [1]') < names.index('transformer') < names.index('norm')


def test_values_are_those_of_the_net():
  model, state, image = nets.model(), nets.weights(), nets.images()
  value = jax.jit(lambda s, x: model.value(model.layer('conv'), s, x))(state, image)
  wanted = jax.jit(nets.maps_of)(state['params'], image)
  np.testing.assert_array_equal(value, wanted)


def test_scores_are_logits():
  state, image = nets.weights(), nets.images()
  params = state['params']
  logits = jax.jit(lambda p, x: nets.logits_of(p, nets.maps_of(p, x)))(params, image)
  model, chosen = nets.model(), jnp.array([0, 2, 1])
  found = jax.jit(lambda s, x, c: model.scores(s, x, c)[0])(state, image, chosen)
  np.testing.assert_allclose(found, logits[jnp.arange(3), chosen], rtol=1e-6)


def test_a_score_without_a_softmax_is_a_log_probability():
  def call(state, inputs):
    found = nets.call(state, inputs)['probabilities']
    return {'probabilities': (found + 1) / 4}  # No softmax any more.

  function = nets.predicting(call)
  model, state = nets.model(function), nets.weights()
  assert model.score_kind == 'log-probability'
  chosen = jnp.array([2, 2, 2])
  score = model.scores(state, nets.images(), chosen)[0]
  wanted = np.log(call(state, {'image': nets.images()})['probabilities'][:, 2])
  np.testing.assert_allclose(score, wanted, rtol=1e-5)


def test_gradients_by_a_turn_of_a_loop():
  """Those of x -> 2 x, three times: 4 by what the first turn gives."""

  def call(state, inputs):
    x = inputs['image'].reshape(len(inputs['image']), -1)[:, :3]

    def turn(x, weight):
      with jax.named_scope('twice'):
        return x * weight[None], None

    with jax.named_scope('Net'), jax.named_scope('loop'):
      x, _ = jax.lax.scan(turn, x, state['params'])
    return {'probabilities': jax.nn.softmax(x)}

  function = nets.predicting(call)
  state = {'params': jnp.full((3, 3), 2.0)}
  model, image = Model(function, state), nets.images(2)
  pixels = np.asarray(image).reshape(2, -1)[:, :3]
  for turn, (times, slope) in enumerate([(2, 4), (4, 2), (8, 1)]):
    layer = model.layer(f'loop/twice [{turn}]')
    value, found = model.layer_gradient(layer, state, image, jnp.array([0, 2]))
    np.testing.assert_allclose(value, times * pixels, rtol=1e-6)
    np.testing.assert_array_equal(found, slope * np.eye(3)[[0, 2]])


def test_a_net_without_names_has_its_products():
  def call(state, inputs):
    maps = nets.maps_of(state['params'], inputs['image'])
    logits = nets.logits_of(state['params'], maps)
    return {'probabilities': jax.nn.softmax(logits)}

  function = nets.predicting(call)
  assert list(nets.model(function).layers) == ['conv_general_dilated', 'dot_general']


def test_the_last_map_is_one_that_the_score_reads():
  model, state = opened('vit', width=8, num_heads=2, num_layers=2, pool='token')
  head = state.params['head']['kernel']  # 0 at first: no score changes.
  state.params['head']['kernel'] = jax.random.normal(jax.random.key(1), head.shape)
  image, chosen = jnp.ones((1, 8, 8, 1)), jnp.array([3])
  # Behind the last attention patches are read by nobody.
  found = model.last_map(state, image, chosen)
  assert found.name == 'transformer/blocks/norm_attention [1]'


@pytest.mark.parametrize(
  ('shape', 'grid'),
  [
    ((1, 8, 8, 3), (8, 8)),
    ((1, 2, 2, 3), (2, 2)),
    ((1, 1, 1, 3), None),
    ((1, 16, 5), (4, 4)),
    ((1, 17, 5), (4, 4)),
    ((1, 15, 5), None),
    ((1, 17, 4, 4), None),
    ((1, 8), None),
  ],
)
def test_places(shape, grid):
  assert places(shape, (8, 8)) == grid


def test_tokens_as_a_map():
  tokens = jnp.arange(17.0).reshape(1, 17, 1)
  found = as_map(tokens, (8, 8))
  assert found[0, :, :, 0].tolist() == np.arange(1.0, 17).reshape(4, 4).tolist()
  with pytest.raises(ConfigError, match='no map of places'):
    as_map(jnp.zeros((1, 7)), (8, 8))


def test_errors():
  with pytest.raises(ConfigError, match='must be one of conv, head'):
    nets.model().layer('convolution')
  number = Field('row', (2,), 'float32')
  sums = Function(lambda s, x: x, {'row': number}, {'row': number})
  made = Experiment(None, None, None, functions={'sum': sums})  # type: ignore
  with pytest.raises(ConfigError, match='gives no pictures to look at'):
    function_of_images(made)
  with pytest.raises(ConfigError, match='--function=max is not allowed'):
    function_of_images(made, 'max')
  image = nets.IMAGE._replace(dtype='uint8')

  def looked_up(state, inputs):
    table = jnp.arange(256.0)
    score = table[inputs['image'][:, :3, 0, 0]]
    return {'probabilities': jax.nn.softmax(score)}

  function = Function(looked_up, {'image': image}, {'probabilities': nets.ODDS})
  with pytest.raises(ConfigError, match='between two whole numbers'):
    nets.model(function)

  def stepped(state, inputs):
    bright = jnp.floor(inputs['image'].astype(jnp.float32) / 255 + 0.5)
    whole = inputs['image'].dtype == jnp.uint8
    score = bright[:, :3, 0, 0] * (10.0 if whole else 0.0)
    return {'probabilities': jax.nn.softmax(score)}

  function = Function(stepped, {'image': image}, {'probabilities': nets.ODDS})
  rows = np.full((1, nets.SIZE, nets.SIZE, 2), 255, np.uint8)
  rows[:, 0] = 0
  with pytest.raises(ConfigError, match='no gradient of a function of whole numbers'):
    nets.model(function).check_floats(nets.weights(), rows)
