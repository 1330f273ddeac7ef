"""GraphSAGE for nodes (Hamilton et al., arXiv 1706.02216)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph_modules
from dlx.layers.graph import Links
from dlx.precision import at_least_float32


class GraphSage(nn.Module):
  """Layers of `dlx.layers.graph_modules.Sage` with a ReLU and dropout between.

  Of a whole graph, or of a tree of drawn neighbours, which is a graph, too.

  Attributes:
    hidden: width of the hidden layers.
    num_outputs: K.
    depth: layers.
    aggregation: mean or max.
    dropout: probability that an input or a hidden unit is dropped.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  hidden: int
  num_outputs: int
  depth: int = 2
  aggregation: str = 'mean'
  dropout: float = 0.5
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: graph_modules.Rows, links: Links, *, train: bool) -> jax.Array:
    """Logits of every node [N, K], float32 or wider.

    Args:
      x: features of the nodes, dense or sparse.
      links: without self-loops.
      train: drop inputs and units (rng 'dropout').
    """
    drop = nn.Dropout(self.dropout, deterministic=not train)
    for i in range(self.depth):
      last = i == self.depth - 1
      if isinstance(x, jax.Array):
        x = drop(x)
      else:
        x = x._replace(values_X=drop(x.values_X))
      x = graph_modules.Sage(
        self.num_outputs if last else self.hidden,
        aggregation=self.aggregation,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f'layer_{i}',
      )(x, links)
      x = x if last else nn.relu(x)
    return at_least_float32(jnp.asarray(x))
