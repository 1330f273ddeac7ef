"""What tests of models count, by shapes alone: nothing is computed or compiled."""

import functools
import math

import jax

from dlx.run import flops
from dlx.state import leaves_by_path


@functools.cache
def shapes_of(model, image):
  """(variables, outputs by layer) of one image [1, *image]."""
  x = jax.ShapeDtypeStruct((1, *image), 'float32')

  def run(x):
    variables = model.init(jax.random.key(0), x, train=False)
    _, seen = model.apply(
      variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    return variables, seen['intermediates']

  return jax.eval_shape(run, x)


def parameters(model, image) -> int:
  return numbers_in(shapes_of(model, image)[0]['params'])


def numbers_in(params) -> int:
  """Of a tree of arrays or shapes."""
  return sum(math.prod(p.shape) for p in jax.tree.leaves(params))


def multiply_adds(model, image) -> int:
  """Kernels times places, products with padding among them, as papers count them."""
  variables, seen = shapes_of(model, image)
  found = leaves_by_path(seen)
  total = 0
  for path, leaf in leaves_by_path(variables['params']).items():
    *layer, name = path.split('/')
    if name == 'kernel':
      out = found['/'.join([*layer, '__call__', '0'])]
      total += math.prod(leaf.shape) * math.prod(out.shape[1:-1])
  return total


def multiply_adds_traced(model, image) -> float:
  """The same of dlx/run/flops.py: without products with padding."""
  variables, _ = shapes_of(model, image)
  x = jax.ShapeDtypeStruct((1, *image), 'float32')
  run = lambda variables, x: model.apply(variables, x, train=False)
  return flops.count(jax.make_jaxpr(run)(variables, x), 'cpu').total / 2
