"""Neighbour sampling: a step sees a few nodes of a graph and a few neighbours of each.

For graphs whose whole does not fit in a step (GraphSAGE, arXiv 1706.02216, section
3.1). Every node has the same number of draws, so that shapes do not depend on the
graph; what is drawn is a function of a key.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx import labels
from dlx.errors import DataError
from dlx.state import Array, Key


class Neighbourhoods(NamedTuple):
  """Who hears whom, one row after the other.

  Attributes:
    start: int32 [N + 1]; node i hears `neighbour[start[i] : start[i + 1]]`.
    neighbour: int32 [2 E].
  """

  start: Array | np.ndarray
  neighbour: Array | np.ndarray


class Sampled(NamedTuple):
  """Nodes that are drawn, layer by layer of a tree.

  Attributes:
    nodes: int32, of each round: [B], [B, k1], [B, k1, k2] and so on.
    weight: f32 of each round but the first, the same shapes: 1, or 0 below a node that
      hears nobody, which stands there itself.
  """

  nodes: tuple[Array, ...]
  weight: tuple[Array, ...]


def neighbourhoods(edges_E2: np.ndarray, num_nodes: int) -> Neighbourhoods:
  """Rows of neighbours of undirected edges; host.

  Raises:
    DataError: an edge to a node that is not there.
  """
  edges_E2 = np.asarray(edges_E2)
  if edges_E2.size and (edges_E2.min() < 0 or edges_E2.max() >= num_nodes):
    raise DataError(
      f'edges: nodes {edges_E2.min()} to {edges_E2.max()} are not allowed: must be in '
      f'[0, {num_nodes - 1}].'
    )
  sender = np.concatenate([edges_E2[:, 1], edges_E2[:, 0]])
  receiver = np.concatenate([edges_E2[:, 0], edges_E2[:, 1]])
  order = np.lexsort((sender, receiver))
  counts = np.bincount(receiver, minlength=num_nodes)
  start = np.concatenate([[0], np.cumsum(counts)])
  return Neighbourhoods(start.astype(np.int32), sender[order].astype(np.int32))


def draw(
  key: Key, graph: Neighbourhoods, nodes: Array, count: int
) -> tuple[Array, Array]:
  """`count` neighbours of each node, drawn evenly with replacement.

  The mean of any f over them has the mean of f over all neighbours as its expectation.

  Args:
    key: of the draw; a node's draws depend on its place in `nodes`, too.
    graph: of N nodes.
    nodes: int [...], in [0, N).
    count: k.

  Returns:
    int32 [..., k], and weight f32 [..., k]: 1, 0 where a node hears nobody, and nan for
    a node that is not there.
  """
  graph = Neighbourhoods(*map(jnp.asarray, graph))  # No traced index reads NumPy.
  known = labels.is_index(nodes, graph.start.shape[0] - 1)
  nodes = jnp.where(known, nodes, 0).astype(jnp.int32)
  first, last = graph.start[nodes], graph.start[nodes + 1]
  degree = (last - first)[..., None]
  # Whole numbers, not products of a float: in float32 these end at 16777216.
  shape = (*nodes.shape, count)
  place = jax.random.randint(key, shape, 0, jnp.maximum(degree, 1), jnp.int32)
  most = max(graph.neighbour.shape[0] - 1, 0)
  index = jnp.minimum(first[..., None] + place, most)
  alone = degree == 0
  found = nodes[..., None] + jnp.zeros(shape, jnp.int32)
  if graph.neighbour.shape[0]:
    found = jnp.where(alone, found, graph.neighbour[index])
  weight = jnp.broadcast_to(jnp.where(alone, 0.0, 1.0), shape)
  return found, jnp.where(known[..., None], weight, jnp.nan)


def sample(
  key: Key, graph: Neighbourhoods, nodes_B: Array, fan_out: tuple[int, ...]
) -> Sampled:
  """The tree of neighbours of neighbours of a batch of nodes.

  Args:
    key: of the step: `jax.random.fold_in(rng, step)`.
    graph: of N nodes.
    nodes_B: int [B], whose rows are wanted.
    fan_out: draws of each node, from these nodes outwards; as many as a net has layers.
  """
  nodes, weight = [nodes_B], []
  for i, count in enumerate(fan_out):
    found, own = draw(jax.random.fold_in(key, i), graph, nodes[-1], count)
    nodes.append(found)
    weight.append(own)
  return Sampled(tuple(nodes), tuple(weight))


def mean(x: Array, weight: Array) -> Array:
  """The mean over the draws of each node: [..., k, F] and [..., k] to [..., F].

  0 for a node that hears nobody, as `dlx.layers.graph.aggregate` has it.
  """
  count = weight.sum(-1, keepdims=True)
  return (x * weight[..., None]).sum(-2) / jnp.where(count == 0, 1, count)


def as_links(tree: Sampled) -> tuple[Array, tuple[Array, Array, Array]]:
  """The tree as a graph of its own: what stands at each place, and who hears whom.

  Places are those of the wanted nodes, then of their neighbours, and so on, M in all. A
  net of as many layers as the tree has rounds gives the wanted rows as its first B.

  Returns:
    int32 [M], the node at each place; sender, receiver and weight of M - B links from a
    place to that above it, the fields of `dlx.layers.graph.Links`.
  """
  sizes = [x.size for x in tree.nodes]
  first = np.cumsum([0, *sizes])
  receiver = [
    first[i] + np.repeat(np.arange(sizes[i]), sizes[i + 1] // sizes[i])
    for i in range(len(sizes) - 1)
  ]
  links = (
    jnp.arange(sizes[0], first[-1], dtype=jnp.int32),
    jnp.asarray(np.concatenate(receiver), jnp.int32),
    jnp.concatenate([x.reshape(-1) for x in tree.weight]),
  )
  return jnp.concatenate([x.reshape(-1) for x in tree.nodes]), links
