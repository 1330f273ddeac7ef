"""Tests for dlx/inspect/maps/patches.py."""

import jax
import jax.numpy as jnp
import numpy as np

from dlx.experiment import Field, Function
from dlx.inspect.maps.model import Model
from dlx.inspect.maps.patches import GREY, patches, reach
from dlx.inspect.sizes import Reach
from tests.dlx.inspect.maps import nets

SIZE = 8
IMAGE = Field('image', (SIZE, SIZE, 1), 'float32')


def made():
  """(model, state): 3x3 convolutions of stride 2 that read the middle, a mean."""
  middle = jnp.zeros((3, 3, 1, 2)).at[1, 1, 0].set(jnp.array([1.0, -1.0]))

  def call(state, inputs):
    with jax.named_scope('Net'), jax.named_scope('conv'):
      maps = jax.lax.conv_general_dilated(
        inputs['image'], state['params']['conv'], (2, 2), ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )  # fmt: skip
    with jax.named_scope('Net'), jax.named_scope('pooled'):
      pooled = maps.mean((1, 2)) @ state['params']['head']
    return {'probabilities': jax.nn.softmax(pooled)}

  state = {'params': {'conv': middle, 'head': jnp.ones((2, 3))}}
  function = Function(call, {'image': IMAGE}, {'probabilities': nets.ODDS})
  return Model(function, state), state


def test_the_field_of_a_unit():
  model, state = made()
  see = Reach(low=-1, high=1, stride=2)
  assert reach(model, model.layer('conv'), state) == (see, see)


def test_the_strongest_places():
  model, state = made()
  image = np.full((5, SIZE, SIZE, 1), 0.1, np.float32)
  image[3, 4, 6] = 0.9  # Unit (2, 3).
  image[1, 0, 2] = 0.7  # Unit (0, 1), at the edge.
  image[4, 1, 1] = 1.0  # In the middle of no unit.
  image[0] = 0.0
  layer = model.layer('conv')
  found = patches(model, layer, state, image, [0, 1], most=2, rows=2)
  assert found.image_NK[0].tolist() == [3, 1]
  assert found.place_NK2[0].tolist() == [[2, 3], [0, 1]]
  np.testing.assert_allclose(found.value_NK[0], [0.9, 0.7])
  first, second = found.patch_NKHWC[0, :, :, :, 0]
  np.testing.assert_allclose(first, [[0.1, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.1]])
  out = [GREY] * 3
  np.testing.assert_allclose(second, [out, [0.1, 0.7, 0.1], [0.1, 0.1, 0.1]])
  # The second channel is largest where the first is least.
  assert found.image_NK[1, 0] == 0 and found.value_NK[1, 0] == 0
  # A unit without a place sees all.
  whole = patches(model, model.layer('pooled'), state, image, [2], most=1)
  np.testing.assert_array_equal(whole.patch_NKHWC[0, 0], image[whole.image_NK[0, 0]])
