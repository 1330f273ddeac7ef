"""Parameters, multiply-adds and maps of an image model, by shapes: nothing is compiled.

A multiply-add with padding counts, as in the tables of papers.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlx.run import flops
from dlx.state import leaves_by_path


class Layer(NamedTuple):
  """One module.

  Attributes:
    output: shape of what it gives for one image, without the batch axis.
    params: numbers in its own parameters and those below it.
    weights: likewise, without vectors: biases, scales.
    multiply_adds: of its products and those below it, for one image.
  """

  output: tuple[int, ...]
  params: int
  weights: int
  multiply_adds: int


def layers(model: Any, image: tuple[int, ...]) -> dict[str, Layer]:
  """By path of the module; '' is the whole model.

  Args:
    model: a Flax module, called as `model(x_BHWC, train=...)`.
    image: H, W, C.
  """

  def run(key):
    x = jnp.zeros((1, *image))
    variables = model.init(key, x, train=False)
    _, seen = model.apply(
      variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    return variables['params'], seen['intermediates']

  params, seen = jax.eval_shape(run, jax.random.key(0))
  shapes = {path: x.shape for path, x in leaves_by_path(params).items()}
  outputs = {
    path.removesuffix('__call__/0').rstrip('/'): x.shape[1:]
    for path, x in leaves_by_path(seen).items()
    if path.endswith('__call__/0')
  }

  def products(path: str) -> int:
    """Of one parameter: a kernel meets every position of what its layer gives."""
    layer, _, name = path.rpartition('/')
    if name != 'kernel':
      return 0
    return math.prod(shapes[path]) * math.prod(outputs[layer][:-1])

  found = {}
  for name in {'', *outputs}:
    inside = [path for path in shapes if not name or path.startswith(f'{name}/')]
    found[name] = Layer(
      outputs.get(name, ()),
      sum(math.prod(shapes[path]) for path in inside),
      sum(math.prod(shapes[path]) for path in inside if len(shapes[path]) > 1),
      sum(map(products, inside)),
    )
  return found


def parameters(model: Any, image: tuple[int, ...]) -> int:
  """Numbers in `params`."""
  return layers(model, image)[''].params


def multiply_adds(model: Any, image: tuple[int, ...]) -> int:
  """Of one image in all layers that have a `kernel`."""
  return layers(model, image)[''].multiply_adds


def maps(model: Any, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
  """Output of each layer, without the batch axis, by its path."""
  return {path: layer.output for path, layer in layers(model, image).items() if path}


def multiply_adds_traced(model: Any, image: tuple[int, ...]) -> float:
  """The same by dlx/run/flops.py: without products with padding."""
  x = jax.ShapeDtypeStruct((1, *image), 'float32')
  zeros = lambda: jnp.zeros((1, *image))
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), zeros(), train=False)
  )
  run = lambda variables, x: model.apply(variables, x, train=False)
  return flops.count(jax.make_jaxpr(run)(variables, x), 'cpu').total / 2


def numbers_in(params: Any) -> int:
  """Of a tree of arrays or shapes."""
  return sum(math.prod(p.shape) for p in jax.tree.leaves(params))
