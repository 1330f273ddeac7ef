"""Batches of small graphs, padded to one shape: as one large graph, and back.

B graphs of at most N nodes and E edges each. Nothing passes between graphs, nor from
what only fills up, so that a graph gets the result that it has alone. A graph with an
edge to a node that is not there gets nan, and the others what is theirs.
"""

from typing import NamedTuple

import jax.numpy as jnp

from dlx.config import check_choice
from dlx.layers import graph
from dlx.state import Array

READOUTS = ('sum', 'mean', 'max')


class GraphBatch(NamedTuple):
  """B graphs as one.

  Attributes:
    links: of all B N nodes; node i of graph b is b N + i.
    weight_BN: 1 for a node, 0 for none, nan in a graph with a wrong edge.
  """

  links: graph.Links
  weight_BN: Array


def joined(nodes_BN: Array, edges_BE2: Array, *, self_loops: bool) -> GraphBatch:
  """The graphs as one large graph.

  Args:
    nodes_BN: int, 0 where there is no node.
    edges_BE2: int, the ends in [0, N), each undirected edge once; -1 and -1 for none.
    self_loops: whether nodes hear themselves.
  """
  graphs, size = nodes_BN.shape
  there_BN = nodes_BN != 0
  none_BE = (edges_BE2 == -1).all(-1)
  inside_BE2 = (edges_BE2 >= 0) & (edges_BE2 < size)
  index_BE2 = jnp.where(inside_BE2, edges_BE2, 0)
  ends = jnp.take_along_axis(there_BN, index_BE2.reshape(graphs, -1), 1)
  right_BE = (inside_BE2 & ends.reshape(index_BE2.shape)).all(-1)
  wrong_B = (~right_BE & ~none_BE).any(1)
  start_B = size * jnp.arange(graphs, dtype=index_BE2.dtype)
  edges = (index_BE2 + start_B[:, None, None]).reshape(-1, 2)
  weight = right_BE.astype(jnp.float32).reshape(-1)
  links = graph.links_of(edges, graphs * size, self_loops=self_loops, weight_E=weight)
  fault_B1 = jnp.where(wrong_B, jnp.nan, 1.0).astype(jnp.float32)[:, None]
  return GraphBatch(links, there_BN * fault_B1)


def readout(h_BNF: Array, weight_BN: Array, how: str) -> Array:
  """One row a graph of the rows of its nodes, [B, F]; 0 of a graph without nodes.

  Args:
    h_BNF: rows of the nodes.
    weight_BN: see `GraphBatch`.
    how: one of READOUTS.

  Raises:
    ConfigError: another name.
  """
  check_choice('readout', how, READOUTS)
  weight_BN1 = weight_BN[:, :, None].astype(h_BNF.dtype)
  if how == 'max':
    most_BF = jnp.where(weight_BN1 == 0, -jnp.inf, h_BNF).max(1)
    count_B1 = weight_BN1.sum(1)
    return jnp.where(count_B1 == 0, 0, most_BF + 0 * count_B1)
  # Not through rows that only fill up, which may be anything.
  sums_BF = (weight_BN1 * jnp.where(weight_BN1 == 0, 0, h_BNF)).sum(1)
  if how == 'sum':
    return sums_BF
  count_B1 = weight_BN1.sum(1)
  return sums_BF / jnp.where(count_B1 == 0, 1, count_B1)
