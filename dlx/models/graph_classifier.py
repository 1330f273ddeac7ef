"""Classifier of small graphs: rounds of messages, a readout of each, a linear head."""

from typing import Any, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph, graph_batch, graph_modules
from dlx.layers.matmul import Dense
from dlx.precision import at_least_float32

LAYERS = ('gin', 'sage', 'gcn')


class GraphClassifier(nn.Module):
  """Logits of each graph of a padded batch, by its edges and features of its nodes.

  Nodes without features all begin with the same number, 1. After each layer comes a
  ReLU; what the head reads are the readouts of all layers side by side (arXiv
  1810.00826, section 4.2), here without batch norm. A sum over nodes is divided by the
  places of a graph, N, which all graphs share: it still counts.

  Attributes:
    layer: one of LAYERS.
    aggregation: of gin and sage: sum, mean or max; gcn's is its own mean.
    readout: sum, mean or max over the nodes of a graph.
    depth: layers.
    features: width of each.
    num_outputs: K.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  layer: str
  aggregation: str
  readout: str
  depth: int
  features: int
  num_outputs: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, graphs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
    """[B, K], float32 or wider; nan for a graph with an edge to no node.

    Args:
      graphs: `nodes` int [B, N] and `edges` int [B, E, 2], see
        `dlx.layers.graph_batch.joined`; `features` [B, N, F] where nodes have any.
      train: changes nothing.
    """
    del train
    nodes_BN = graphs['nodes']
    size = nodes_BN.size
    gcn = self.layer == 'gcn'
    batch = graph_batch.joined(nodes_BN, graphs['edges'], self_loops=gcn)
    links = graph.symmetric(batch.links, size) if gcn else batch.links
    common = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    kind = {'gin': graph_modules.GIN, 'sage': graph_modules.Sage}.get(self.layer)
    h_MF, seen = jnp.ones((size, 1), self.dtype), []
    if 'features' in graphs:
      h_MF = graphs['features'].astype(self.dtype).reshape(size, -1)
    for i in range(self.depth):
      name = f'layer_{i}'
      if kind is None:
        layer = graph_modules.GraphConvolution(self.features, name=name, **common)
      else:
        layer = kind(self.features, aggregation=self.aggregation, name=name, **common)
      h_MF = nn.relu(layer(h_MF, links))
      h_BNF = h_MF.reshape(*nodes_BN.shape, -1)
      row_BF = graph_batch.readout(h_BNF, batch.weight_BN, self.readout)
      seen.append(row_BF / nodes_BN.shape[1] if self.readout == 'sum' else row_BF)
    head = Dense(self.num_outputs, name='head', **common)
    return at_least_float32(head(jnp.concatenate(seen, -1)))
