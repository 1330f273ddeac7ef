"""Graph convolutional network of two layers (Kipf and Welling, arXiv 1609.02907)."""

from typing import Any, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph


class GCN(nn.Module):
  """softmax(A relu(A X W0) W1), with A = D^-1/2 (adjacency + I) D^-1/2.

  Features stay sparse: X is given by its non-zero entries, and dropout falls on those,
  which is dropout on all entries, as 0 stays 0.

  Attributes:
    hidden: width of the hidden layer.
    num_outputs: K.
    dropout: probability that an entry of X, or a hidden unit of a node, is dropped.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  hidden: int = 16
  num_outputs: int = 7
  dropout: float = 0.5
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
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
    num_nodes = graph_fields['label'].shape[0]
    links = graph.symmetric_normalisation(graph_fields['edges'], num_nodes)
    indices_X2 = graph_fields['indices']
    values_X = graph.row_normalise(indices_X2, graph_fields['values'], num_nodes)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    glorot = nn.initializers.glorot_uniform()

    def kernel(name, rows, columns):
      value = self.param(name, glorot, (rows, columns), self.param_dtype)
      return jnp.asarray(value, self.dtype)

    values_X = drop(values_X.astype(self.dtype))
    h_NF = graph.sparse_matmul(
      indices_X2, values_X, kernel('kernel_0', num_features, self.hidden), num_nodes
    )
    bias = lambda name, size: jnp.asarray(
      self.param(name, nn.initializers.zeros, (size,), self.param_dtype), self.dtype
    )
    h_NF = graph.propagate(h_NF, *links) + bias('bias_0', self.hidden)[None]
    h_NF = drop(nn.relu(h_NF))
    h_NK = h_NF @ kernel('kernel_1', self.hidden, self.num_outputs)
    h_NK = graph.propagate(h_NK, *links) + bias('bias_1', self.num_outputs)[None]
    return h_NK.astype(jnp.promote_types(self.dtype, jnp.float32))
