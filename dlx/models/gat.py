"""Graph attention network (Velickovic et al., arXiv 1710.10903)."""

from typing import Any, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph
from dlx.layers.graph_modules import GraphAttention
from dlx.precision import at_least_float32


class GAT(nn.Module):
  """Two layers of attention: heads of the first are joined, of the last averaged.

  Features stay sparse, as in `dlx.models.gcn`. One mask of dropout falls on all heads,
  and none on what they send, which the authors' code has beside it.

  Attributes:
    hidden: width of a head of the first layer.
    heads: of the first layer.
    num_outputs: K.
    output_heads: of the last layer; published: 1, on PubMed 8.
    dropout: probability that an entry of X or of the hidden layer is dropped, and that
      a share of attention is.
    dtype: of the arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  hidden: int = 8
  heads: int = 8
  num_outputs: int = 7
  output_heads: int = 1
  dropout: float = 0.6
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, graph_fields: Mapping[str, jax.Array], num_features: int, *, train: bool
  ) -> jax.Array:
    """Logits of every node [N, K], float32 or wider; arguments as of `GCN`."""
    num_nodes = graph_fields['label'].shape[0]
    links = graph.links_of(graph_fields['edges'], num_nodes)
    x = graph.normalised_rows(graph_fields, num_features)
    drop = nn.Dropout(self.dropout, deterministic=not train)

    def attention(name, features, heads, average):
      return GraphAttention(
        features,
        heads=heads,
        average=average,
        dropout=self.dropout,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )

    x = x._replace(values_X=drop(x.values_X.astype(self.dtype)))
    h_NF = attention('attention_0', self.hidden, self.heads, False)(
      x, links, train=train
    )
    h_NF = drop(nn.elu(h_NF))
    h_NK = attention('attention_1', self.num_outputs, self.output_heads, True)(
      h_NF, links, train=train
    )
    return at_least_float32(h_NK)
