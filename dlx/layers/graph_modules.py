"""Layers of graphs: convolution, attention, GraphSAGE and GIN, from nodes to nodes.

All take what the nodes say, dense [N, F] or `SparseRows`, and `Links`, and give [N, H].
Parameters are named by their roles; sums are those of dlx/layers/graph.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers import graph
from dlx.layers.graph import Links, SparseRows
from dlx.layers.matmul import rows_product
from dlx.precision import at_least_float32, unit

SLOPE = 0.2  # Of the LeakyReLU of attention, as published.
Rows = jax.Array | SparseRows


class _Layer(nn.Module):
  """What all have.

  Attributes:
    features: H, width of the result.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def kernel(self, name: str, rows: int, columns: int | None = None) -> jax.Array:
    """[rows, columns]; None: as many columns as features."""
    shape = (rows, self.features if columns is None else columns)
    return self._param(name, nn.initializers.glorot_uniform(), shape)

  def bias(self, name: str = 'bias') -> jax.Array:
    """[1, H], 0 at the beginning."""
    return self._param(name, nn.initializers.zeros, (1, self.features))

  def _param(self, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array:
    value = self.param(name, init, shape, self.param_dtype)
    return jnp.asarray(value, self.dtype)

  def cast(self, x: Rows) -> Rows:
    """Rows in the dtype of the arithmetic."""
    if isinstance(x, SparseRows):
      return x._replace(values_X=x.values_X.astype(self.dtype))
    return x.astype(self.dtype)


class GraphConvolution(_Layer):
  """A x W + b of arXiv 1609.02907; the weights of the links are A."""

  @nn.compact
  def __call__(self, x: Rows, links: Links) -> jax.Array:
    h_NH = graph.times(self.cast(x), self.kernel('kernel', x.shape[1]))
    return graph.propagate(h_NH, *links) + self.bias()


class GraphAttention(_Layer):
  """Attention over the in-links of a node, arXiv 1710.10903, equations 1 to 6.

  e_ij = LeakyReLU(a_target W x_i + a_source W x_j), shares by softmax over the links to
  i, and the sum of the shares of W x_j plus a bias: for each head, which are joined or
  averaged. Whether a node hears itself is a matter of its links: published with
  self-loops. A node that hears nobody gets the bias.

  Attributes:
    features: H, width of one head.
    heads: K.
    average: the mean of the heads [N, H], in place of all of them [N, K H].
    dropout: probability that a share is dropped (rng 'dropout').
  """

  heads: int = 8
  average: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Rows, links: Links, *, train: bool) -> jax.Array:
    num_nodes, width = x.shape
    shape = (num_nodes, self.heads, self.features)
    kernel = self.kernel('kernel', width, self.heads * self.features)
    h_NKH = graph.times(self.cast(x), kernel).reshape(shape)

    def score(name):
      one = nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
      vector_KH = self._param(name, one, (self.heads, self.features))
      return at_least_float32((h_NKH * vector_KH[None]).sum(-1))

    source_NK, target_NK = score('source'), score('target')
    score_EK = source_NK[links.sender] + target_NK[links.receiver]
    share_EK = graph.segment_softmax(nn.leaky_relu(score_EK, SLOPE), links, num_nodes)
    share_EK = nn.Dropout(self.dropout, deterministic=not train)(share_EK)
    message_EKH = share_EK[:, :, None].astype(self.dtype) * h_NKH[links.sender]
    out_NKH = jax.ops.segment_sum(message_EKH, links.receiver, num_nodes)
    if self.average:
      return out_NKH.mean(1) + self.bias()
    bias = self._param('bias', nn.initializers.zeros, (1, self.heads * self.features))
    return out_NKH.reshape(num_nodes, -1) + bias


class Sage(_Layer):
  """x W_self + agg(x) W_neighbours + b, GraphSAGE of arXiv 1706.02216.

  The published concatenation of a node and its neighbours, times one kernel, is the sum
  of two products. Links are without self-loops.

  Attributes:
    aggregation: mean; or max, over relu(x W_pool + b_pool) as published; or sum.
    normalise: divide each row by its length, as published; one of zeros stays.
  """

  aggregation: str = 'mean'
  normalise: bool = False

  @nn.compact
  def __call__(self, x: Rows, links: Links) -> jax.Array:
    x, width = self.cast(x), x.shape[1]
    own_NH = graph.times(x, self.kernel('kernel_self', width))
    if self.aggregation == 'max':
      pool_NH = graph.times(x, self.kernel('kernel_pool', width))
      pool_NH = nn.relu(pool_NH + self.bias('bias_pool'))
      heard_NH = graph.aggregate(pool_NH, links, 'max')
      neighbours = self.kernel('kernel_neighbours', self.features)
      heard_NH = rows_product(heard_NH, neighbours)
    else:  # A sum or mean and a product change places: the narrower rows are sent.
      said_NH = graph.times(x, self.kernel('kernel_neighbours', width))
      heard_NH = graph.aggregate(said_NH, links, self.aggregation)
    h_NH = own_NH + heard_NH + self.bias()
    return unit(h_NH).astype(h_NH.dtype) if self.normalise else h_NH


class GIN(_Layer):
  """MLP((1 + eps) x + sum of x over in-links), arXiv 1810.00826, equation 4.1.

  Two dense layers with a ReLU between, no norm; eps is learnt from 0. Links are without
  self-loops. As telling as the Weisfeiler-Lehman test by the sum, which mean and max
  are not.

  Attributes:
    aggregation: sum; mean and max are the paper's controls.
  """

  aggregation: str = 'sum'

  @nn.compact
  def __call__(self, x: jax.Array, links: Links) -> jax.Array:
    x_NF = x.astype(self.dtype)
    eps = self._param('eps', nn.initializers.zeros, ())
    h_NF = (1 + eps) * x_NF + graph.aggregate(x_NF, links, self.aggregation)
    h_NH = rows_product(h_NF, self.kernel('kernel_0', x.shape[1]))
    h_NH = nn.relu(h_NH + self.bias('bias_0'))
    h_NH = rows_product(h_NH, self.kernel('kernel_1', self.features))
    return h_NH + self.bias('bias_1')
