"""Graph autoencoder: GCN, then inner products of nodes (arXiv 1611.07308)."""

from typing import Any, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.layers import graph
from dlx.layers.graph_modules import GraphConvolution
from dlx.precision import at_least_float32


class GraphEncoder(nn.Module):
  """Z = A relu(A X W0) W1, without dropout by default as published.

  Attributes:
    hidden: width of the hidden layer.
    features: width of Z.
    dropout: probability that an entry of X or a hidden unit is dropped.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  hidden: int = 32
  features: int = 16
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, graph_fields: Mapping[str, jax.Array], num_features: int, *, train: bool
  ) -> jax.Array:
    """Z [N, F], float32 or wider; arguments as of `dlx.models.gcn.GCN`."""
    num_nodes = graph_fields['label'].shape[0]
    links = graph.symmetric_normalisation(graph_fields['edges'], num_nodes)
    x = graph.normalised_rows(graph_fields, num_features)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    common = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = x._replace(values_X=drop(x.values_X.astype(self.dtype)))
    h_NF = nn.relu(GraphConvolution(self.hidden, name='layer_0', **common)(x, links))
    z_NF = GraphConvolution(self.features, name='layer_1', **common)(drop(h_NF), links)
    return at_least_float32(z_NF)


def inner_products(z_NF: jax.Array, pairs_P2: jax.Array) -> jax.Array:
  """Logits [P] that two nodes are joined: z_i z_j; nan for a node that is not there."""
  a_PF, b_PF = (labels.rows(z_NF, pairs_P2[:, i]) for i in range(2))
  return (a_PF * b_PF).sum(-1)
