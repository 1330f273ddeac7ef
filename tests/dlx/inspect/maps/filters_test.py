"""Tests for dlx/inspect/maps/filters.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Field, Function
from dlx.inspect.maps.filters import filters
from dlx.inspect.maps.model import Model
from tests.dlx.inspect.maps import nets
from tests.dlx.inspect.maps.model_test import opened


def test_of_the_first_convolution():
  model, state = opened('cnn', features=(4, 8), dense=16)
  found = filters(model, state)
  kernel = state.params['conv_0']['kernel']
  assert found.layer == 'conv_0'
  np.testing.assert_array_equal(found.weights_NhwC, kernel.transpose(3, 0, 1, 2))
  second = filters(model, state, 'conv_1').weights_NhwC
  kernel = state.params['conv_1']['kernel']
  np.testing.assert_array_equal(second, kernel.transpose(3, 0, 1, 2))
  with pytest.raises(ConfigError, match='norm_1 has no weights .* conv_0, conv_1'):
    filters(model, state, 'norm_1')
  with pytest.raises(ConfigError, match='are no windows'):
    filters(model, state, 'hidden')


def test_of_a_depthwise_convolution():
  """A filter a channel, also where it is computed tap by tap."""
  model, state = opened('convnext', blocks=(1,), features=(4,), patch=4)
  found = filters(model, state, 'stage1_block1/depthwise')
  kernel = state.params['stage1_block1']['depthwise']['kernel']
  assert kernel.shape == (7, 7, 1, 4)
  np.testing.assert_array_equal(found.weights_NhwC, kernel.transpose(3, 0, 1, 2))


def test_of_a_raw_convolution_in_another_order():
  def call(state, inputs):
    x = inputs['image'].transpose(0, 3, 1, 2)
    dims = ('NCHW', 'OIHW', 'NCHW')
    x = jax.lax.conv_general_dilated(
      x, state['params'], (1, 1), 'SAME', dimension_numbers=dims
    )
    return {'probabilities': jax.nn.softmax(x.mean((2, 3)))}

  function = nets.predicting(call)
  kernel = jnp.arange(3.0 * 2 * 5 * 4).reshape(3, 2, 5, 4)
  found = filters(Model(function, {'params': kernel}), {'params': kernel})
  np.testing.assert_array_equal(found.weights_NhwC, kernel.transpose(0, 2, 3, 1))


def test_templates_and_patches_of_dense_layers():
  image = Field('image', (4, 4, 2), 'float32')

  def call(state, inputs):
    x = inputs['image'].reshape(-1, 2, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, 8) @ state['params']
    return {'probabilities': jax.nn.softmax(x.reshape(-1, 4, 3).mean(1))}

  function = Function(call, {'image': image}, {'probabilities': nets.ODDS})
  kernel = jnp.arange(24.0).reshape(8, 3)
  found = filters(Model(function, {'params': kernel}), {'params': kernel})
  np.testing.assert_array_equal(found.weights_NhwC, kernel.T.reshape(3, 2, 2, 2))


def test_of_a_block_in_a_loop():
  model, state = opened('vit', width=8, num_heads=2, num_layers=2)
  with pytest.raises(ConfigError, match='shape .8, 32. and are no windows'):
    filters(model, state, 'transformer/blocks/mlp/in [1]')
