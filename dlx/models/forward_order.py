"""The layers of a module in the order of its forward pass, by tracing it."""

from typing import Any

import flax.linen as nn
import jax


def forward_order(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[str, ...]:
  """Paths of the layers that have parameters of their own, the first called first.

  A layer is what holds arrays itself: a convolution, a norm, a Dense, an embedding. Of
  a block its layers count, the block does not; dropout and pools do not. The path, such
  as `stage1_block1/conv1`, is where they lie in `params`. JAX sorts the names of a
  tree, so that its order tells nothing: `head` lies there before `stem`.

  Args:
    module: nothing is computed.
    args, kwargs: as of a call of it; arrays may be ShapeDtypeStructs.
  """
  called: dict[str, None] = {}

  def note(next_method, args, kwargs, context):
    path = '/'.join(context.module.path)
    called.setdefault(path)
    return next_method(*args, **kwargs)

  def init(*args):
    with nn.intercept_methods(note):
      return module.init(jax.random.key(0), *args, **kwargs)

  params = jax.eval_shape(init, *args)['params']
  holders = set()
  for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]:
    holders.add(jax.tree_util.keystr(path[:-1], simple=True, separator='/'))
  return tuple(path for path in called if path in holders)
