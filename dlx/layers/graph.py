"""Message passing as pure functions of edges, node features and weights.

Edges are undirected pairs [E, 2] without self-loops; `links_of` makes directed links of
them. Messages are sums over links, so that nothing of size N x N exists. A link of
weight 0 is not there, which is how batches of graphs are padded. An index of a node or
feature that is not there makes every sum nan. Where kernels/onednn is built, a CPU sums
in float32 by one call of C++, without the messages in memory; then in reverse mode
only.

Letters: N nodes, E edges or links, X non-zero features, F and H widths, G graphs.
"""

from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp

from dlx import labels
from dlx.config import check_choice
from dlx.layers.matmul import rows_product
from dlx.precision import at_least_float32
from dlx.state import Array
from kernels.onednn import library, sparse

AGGREGATIONS = ('sum', 'mean', 'max')


class Links(NamedTuple):
  """Directed links: `receiver` hears `sender`.

  Attributes:
    sender: int32 [E], in [0, N).
    receiver: int32 [E], in [0, N).
    weight: float [E]; 0: the link is not there.
  """

  sender: Array
  receiver: Array
  weight: Array


class SparseRows(NamedTuple):
  """A matrix [N, F] as the list of its non-zero entries.

  Attributes:
    indices_X2: int, (row, column) of each.
    values_X: float.
    shape: (N, F).
  """

  indices_X2: Array
  values_X: Array
  shape: tuple[int, int]


def links_of(
  edges_E2: Array,
  num_nodes: int,
  *,
  self_loops: bool = True,
  weight_E: Array | None = None,
) -> Links:
  """Both directions of each edge, then a self-loop of weight 1 a node.

  Args:
    edges_E2: int, each undirected edge once, no self-loops.
    num_nodes: N.
    self_loops: whether nodes hear themselves.
    weight_E: of the edges; None: all ones.

  Returns:
    2 E + N links, 2 E without self-loops.
  """
  a_E, b_E = edges_E2[:, 0].astype(jnp.int32), edges_E2[:, 1].astype(jnp.int32)
  weight_E = jnp.ones(edges_E2.shape[0]) if weight_E is None else weight_E
  nodes_N = jnp.arange(num_nodes if self_loops else 0, dtype=jnp.int32)
  return Links(
    jnp.concatenate([a_E, b_E, nodes_N]),
    jnp.concatenate([b_E, a_E, nodes_N]),
    jnp.concatenate([weight_E, weight_E, jnp.ones(len(nodes_N), weight_E.dtype)]),
  )


def symmetric(links: Links, num_nodes: int) -> Links:
  """D^-1/2 A D^-1/2 of links that hold A, with the degrees D by their receivers."""
  degree_N = jnp.zeros(num_nodes, links.weight.dtype)
  degree_N = degree_N.at[links.receiver].add(links.weight)
  scale_N = jnp.where(degree_N == 0, 0, jax.lax.rsqrt(degree_N))
  between_E = scale_N[links.sender] * scale_N[links.receiver]
  return links._replace(weight=links.weight * between_E)


def symmetric_normalisation(edges_E2: Array, num_nodes: int) -> Links:
  """D^-1/2 (A + I) D^-1/2 of arXiv 1609.02907 as a list of its non-zero entries.

  Args:
    edges_E2: int, each undirected edge once, no self-loops.
    num_nodes: N. A node without edges keeps its self-loop, of weight 1.
  """
  return symmetric(links_of(edges_E2, num_nodes), num_nodes)


def propagate(x_NF: Array, sender: Array, receiver: Array, weight: Array) -> Array:
  """The sum over in-links of `weight * x[sender]`, for every node: [N, F]."""
  return _product(receiver, sender, weight, x_NF, x_NF.shape[0])


def aggregate(x_NF: Array, links: Links, how: str) -> Array:
  """What each node hears of its neighbours, [N, F]; 0 for a node that hears nobody.

  Args:
    x_NF: what the nodes say.
    links: of weights w. sum: of w x; mean: that over the sum of w; max: the largest x
      over links that are there, by feature, whose gradient equal ones share.
    how: one of AGGREGATIONS.

  Raises:
    ConfigError: another name.
  """
  check_choice('aggregation', how, AGGREGATIONS)
  num_nodes = x_NF.shape[0]
  if how == 'max':
    return _largest(x_NF[links.sender], links, num_nodes)
  sums_NF = propagate(x_NF, *links)
  if how == 'sum':
    return sums_NF
  weight_N = jax.ops.segment_sum(links.weight, links.receiver, num_nodes)
  return sums_NF / jnp.where(weight_N == 0, 1, weight_N)[:, None].astype(sums_NF.dtype)


def _largest(message_EF: Array, links: Links, num_nodes: int) -> Array:
  weight_E = jnp.where(_known(links, num_nodes), links.weight, jnp.nan)
  there_E1 = (weight_E != 0)[:, None]
  message_EF += (0 * weight_E)[:, None].astype(message_EF.dtype)  # nan stays.
  low = jnp.asarray(-jnp.inf, message_EF.dtype)
  shown_EF = jnp.where(there_E1, message_EF, low)
  most_NF = jax.ops.segment_max(
    jax.lax.stop_gradient(shown_EF), links.receiver, num_nodes
  )
  # A nan equals nothing, so that it is kept by itself.
  largest_EF = most_NF[links.receiver]
  picked_EF = there_E1 & ((message_EF == largest_EF) | jnp.isnan(message_EF))
  total = lambda x_EF: jax.ops.segment_sum(x_EF, links.receiver, num_nodes)
  count_NF = total(picked_EF.astype(message_EF.dtype))
  sums_NF = total(jnp.where(picked_EF, message_EF, 0))
  return sums_NF / jnp.maximum(count_NF, 1)


def segment_softmax(score_EH: Array, links: Links, num_nodes: int) -> Array:
  """Shares of each receiver's in-links, [E, H], float32 at least.

  w exp(score), over its sum over the links of the same receiver: they sum to 1, or to
  nothing where a node hears nobody. Finite whatever the finite scores are.

  Args:
    score_EH: of each link and head.
    links: of weights w, at least 0.
    num_nodes: N.
  """
  score_EH = at_least_float32(score_EH)
  weight_E1 = links.weight[:, None].astype(score_EH.dtype)
  weight_E1 = jnp.where(_known(links, num_nodes), weight_E1, jnp.nan)
  seen_EH = jnp.where(weight_E1 == 0, -jnp.inf, score_EH)
  most_NH = jax.ops.segment_max(
    jax.lax.stop_gradient(seen_EH), links.receiver, num_nodes
  )
  # Of a link that is not there not even the exponential is taken: inf times 0 is nan.
  below_EH = jnp.where(weight_E1 == 0, 0, score_EH - most_NH[links.receiver])
  part_EH = weight_E1 * jnp.exp(below_EH)
  total_NH = jax.ops.segment_sum(part_EH, links.receiver, num_nodes)
  return part_EH / jnp.where(total_NH == 0, 1, total_NH)[links.receiver]


def times(x: Array | SparseRows, kernel_FH: Array) -> Array:
  """x @ kernel [N, H], of dense or sparse rows."""
  if isinstance(x, SparseRows):
    return sparse_matmul(x.indices_X2, x.values_X, kernel_FH, x.shape[0])
  return rows_product(x, kernel_FH)


def sparse_matmul(
  indices_X2: Array, values_X: Array, kernel_FH: Array, num_rows: int
) -> Array:
  """X @ kernel [N, H], of a sparse X given by its non-zero entries.

  Cora's features hold 49216 of 3880564 entries: a dense product and, before it,
  dropout on all entries are most of a dense GCN's time.
  """
  return _product(indices_X2[:, 0], indices_X2[:, 1], values_X, kernel_FH, num_rows)


def _known(links: Links, num_nodes: int) -> Array:
  """Whether all ends of links are nodes."""
  ends = jnp.stack([links.sender, links.receiver])
  return labels.is_index(ends, num_nodes).all()


def _product(rows_X, columns_X, values_X, x_MF, num_rows) -> Any:
  # An entry elsewhere would be left out or moved: no sum then means what it says.
  known = labels.is_index(rows_X, num_rows).all()
  known &= labels.is_index(columns_X, x_MF.shape[0]).all()
  values_X = jnp.where(known, values_X, jnp.nan)
  args = (rows_X, columns_X, values_X, x_MF, num_rows)
  fits = values_X.dtype == x_MF.dtype == jnp.float32 and x_MF.size and values_X.size
  if not (fits and library.usable()):
    return sparse.plain_product(*args)
  rows_X, columns_X = rows_X.astype(jnp.int32), columns_X.astype(jnp.int32)
  return sparse.product(rows_X, columns_X, *args[2:])


def row_normalise(indices_X2: Array, values_X: Array, num_rows: int) -> Array:
  """Values divided by the sum of their row [X]; rows without entries stay empty."""
  sums_N = jax.ops.segment_sum(values_X, indices_X2[:, 0], num_rows)
  return values_X / jnp.where(sums_N == 0, 1, sums_N)[indices_X2[:, 0]]


def normalised_rows(fields: Mapping[str, Array], num_features: int) -> SparseRows:
  """The features of a graph, each row divided by its sum.

  Args:
    fields: `indices` int [X, 2] (node, feature), `values` [X], and `label` [N], of
      which only the length is read.
    num_features: width of the rows.
  """
  num_nodes = fields['label'].shape[0]
  values_X = row_normalise(fields['indices'], fields['values'], num_nodes)
  return SparseRows(fields['indices'], values_X, (num_nodes, num_features))
