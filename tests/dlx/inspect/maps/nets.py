"""Small nets without a module system, whose maps can be written by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlx.experiment import Field, Function
from dlx.inspect.maps.model import Model

SIZE = 6
IMAGE = Field('image', (SIZE, SIZE, 2), 'float32')
CLASSES = ('dark', 'bright', 'striped')
ODDS = Field('probabilities', (3,), 'float32', names=CLASSES)


def weights(seed: int = 0) -> dict[str, Any]:
  """Of one convolution and a head, float32."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {'params': {'conv': draw(3, 3, 2, 4), 'head': draw(4, 3), 'bias': draw(3)}}


def maps_of(params: Any, image_BHWC: Any) -> Any:
  """ReLU of the convolution."""
  dims = ('NHWC', 'HWIO', 'NHWC')
  return jax.nn.relu(
    jax.lax.conv_general_dilated(
      image_BHWC, params['conv'], (1, 1), 'SAME', dimension_numbers=dims
    )
  )


def logits_of(params: Any, maps_BhwC: Any) -> Any:
  """Of the squares of the maps: not linear in them."""
  mean_BC = jnp.square(maps_BhwC).mean((1, 2))
  return mean_BC @ params['head'] + params['bias'][None]


def call(state: Any, inputs: Any) -> dict[str, Any]:
  with jax.named_scope('Net'), jax.named_scope('conv'):
    maps = maps_of(state['params'], inputs['image'])
  with jax.named_scope('Net'), jax.named_scope('head'):
    logits = logits_of(state['params'], maps)
  return {'probabilities': jax.nn.softmax(logits)}


def predicting(call: Any) -> Function:
  return Function(call, {'image': IMAGE}, {'probabilities': ODDS})


PREDICT = predicting(call)


def model(function: Function = PREDICT, state: Any = None) -> Model:
  return Model(function, weights() if state is None else state)


def images(count: int = 3, seed: int = 1) -> Any:
  """float32 in [0, 1], [count, SIZE, SIZE, 2]."""
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(size=(count, SIZE, SIZE, 2)), jnp.float32)
