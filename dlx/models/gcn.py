"""Graph convolutional network (Kipf and Welling, arXiv 1609.02907)."""

from typing import Any, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph
from dlx.precision import at_least_float32


class GCN(nn.Module):
  """A relu(A X W0) W1 and deeper, with A = D^-1/2 (adjacency + I) D^-1/2.

  Features stay sparse: X is given by its non-zero entries, and dropout falls on those,
  which is dropout on all entries, as 0 stays 0.

  Attributes:
    hidden: width of the hidden layers.
    num_outputs: K.
    dropout: probability that an entry of X, or a hidden unit of a node, is dropped.
    depth: layers, at least 2; published: 2.
    residual: whether what enters a hidden layer of equal width is added to what leaves
      it, as in the paper's appendix B.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  hidden: int = 16
  num_outputs: int = 7
  dropout: float = 0.5
  depth: int = 2
  residual: bool = False
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def features(
    self, graph_fields: Mapping[str, jax.Array], num_features: int, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """What the last hidden layer gives [N, H], and the logits [N, K] of `__call__`."""
    num_nodes = graph_fields['label'].shape[0]
    links = graph.symmetric_normalisation(graph_fields['edges'], num_nodes)
    x = graph.normalised_rows(graph_fields, num_features)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    glorot = nn.initializers.glorot_uniform()

    def kernel(name, rows, columns):
      value = self.param(name, glorot, (rows, columns), self.param_dtype)
      return jnp.asarray(value, self.dtype)

    def bias(name, size):
      value = self.param(name, nn.initializers.zeros, (size,), self.param_dtype)
      return jnp.asarray(value, self.dtype)[None]

    x = x._replace(values_X=drop(x.values_X.astype(self.dtype)))
    h_NF = graph.times(x, kernel('kernel_0', num_features, self.hidden))
    h_NF = nn.relu(graph.propagate(h_NF, *links) + bias('bias_0', self.hidden))
    for i in range(1, self.depth - 1):
      inner = kernel(f'kernel_{i}', self.hidden, self.hidden)
      next_NF = graph.times(drop(h_NF), inner)
      next_NF = graph.propagate(next_NF, *links) + bias(f'bias_{i}', self.hidden)
      h_NF = nn.relu(next_NF) + h_NF if self.residual else nn.relu(next_NF)
    last = self.depth - 1
    outer = kernel(f'kernel_{last}', self.hidden, self.num_outputs)
    h_NK = graph.times(drop(h_NF), outer)
    h_NK = graph.propagate(h_NK, *links) + bias(f'bias_{last}', self.num_outputs)
    return h_NF, at_least_float32(h_NK)

  def __call__(
    self, graph_fields: Mapping[str, jax.Array], num_features: int, *, train: bool
  ) -> jax.Array:
    """Logits of every node [N, K], float32 or wider.

    Args:
      graph_fields: `indices` int [X, 2] (node, feature), `values` [X], `edges` int
        [E, 2], and `label` [N], of which only the length is read.
      num_features: width of X.
      train: drop entries and units (rng 'dropout').
    """
    return self.features(graph_fields, num_features, train=train)[1]
