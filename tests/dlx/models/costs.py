"""What tables of papers say of a classifier: parameters, multiply-adds, sizes of maps.

From shapes alone; nothing is compiled.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def parameters(model: Any, image: tuple[int, ...]) -> int:
  """Numbers in `params`, for images [height, width, channels]."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(_shapes(model, image)[0]))


def maps(model: Any, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
  """Output of each layer without the batch axis, by its name."""
  return _shapes(model, image)[1]


def multiply_adds(model: Any, image: tuple[int, ...]) -> int:
  """Of one image in all layers that have a `kernel`; products with padding count."""
  params, outputs = _shapes(model, image)
  return sum(
    int(np.prod(outputs[name][:-1])) * int(np.prod(layer['kernel'].shape))
    for name, layer in params.items()
    if 'kernel' in layer
  )


def _shapes(model, image):
  def run():
    x = jnp.zeros((1, *image))
    variables = model.init(jax.random.key(0), x, train=False)
    _, seen = model.apply(
      variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    return variables['params'], seen['intermediates']

  params, seen = jax.eval_shape(run)
  outputs = {
    name: layer['__call__'][0].shape[1:]
    for name, layer in seen.items()
    if isinstance(layer, dict)
  }
  return params, outputs
