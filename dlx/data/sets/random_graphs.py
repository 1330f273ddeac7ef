"""Small random graphs, drawn by a key inside jit, and tasks of two classes of them.

A graph is `nodes` int32 [N], 1 for a node and 0 for none, which stand last, and `edges`
int32 [E, 2], each undirected edge once, -1 and -1 for none: sizes are those of the
largest graph, so that all have one shape.

  families  Erdos-Renyi against Barabasi-Albert graphs of as many nodes and edges: told
            apart by their degrees, after one round of messages
  mixing    graphs of one degree sequence whose large degrees are joined to large ones,
            or to small ones: told apart after two rounds
  cycles    one cycle, or two of half the length: all nodes see the same at any depth,
            and no net of this kind tells them apart (1-WL, arXiv 1810.00826)
"""

from typing import Any

import jax
import jax.numpy as jnp

from dlx.config import check_bounds, check_choice
from dlx.state import Array, Key, streams

TASKS = ('families', 'mixing', 'cycles')
LINKS = 2  # Edges that a new node of a Barabasi-Albert graph brings.
SWAPS = 6  # Tries to swap ends, for each edge.
LEAST = 8  # Nodes of the smallest graph.


def erdos_renyi(
  key: Key, num_nodes: Any, num_edges: Any, sizes: tuple[int, int]
) -> Array:
  """A graph of n nodes drawn evenly from all those of m edges: [E, 2].

  Args:
    num_nodes: n, at most N; may be traced.
    num_edges: m, at most E and at most n (n - 1) / 2; may be traced.
    sizes: N and E.
  """
  most_nodes, most_edges = sizes
  a_P, b_P = jnp.triu_indices(most_nodes, 1)
  score_P = jax.random.uniform(key, a_P.shape)
  chosen_E = jax.lax.top_k(jnp.where(b_P < num_nodes, score_P, -1.0), most_edges)[1]
  edges_E2 = jnp.stack([a_P[chosen_E], b_P[chosen_E]], 1).astype(jnp.int32)
  return _only(edges_E2, num_edges)


def barabasi_albert(
  key: Key, num_nodes: Any, most_nodes: int, links: int = LINKS
) -> Array:
  """Preferential attachment: edges [links (N - links), 2], of which n nodes have some.

  It begins with a star of links + 1 nodes; each further node is joined to so many that
  are there, drawn without replacement by their degrees (Barabasi and Albert 1999).

  Args:
    num_nodes: n, in (links, N]; may be traced. links (n - links) edges are there.
    most_nodes: N.
    links: edges that each node brings.
  """
  nodes_N = jnp.arange(most_nodes)
  star = jnp.where(nodes_N < links, 1.0, 0.0).at[links].set(links)
  first_L2 = jnp.stack([jnp.arange(links), jnp.full(links, links)], 1)

  def add(degree_N, node):
    noise_N = jax.random.gumbel(jax.random.fold_in(key, node), (most_nodes,))
    # The largest of log p plus Gumbel noise are a draw without replacement.
    to_L = jax.lax.top_k(jnp.log(degree_N) + noise_N, links)[1]
    degree_N = degree_N.at[to_L].add(1.0).at[node].add(links)
    return degree_N, jnp.stack([to_L, jnp.full(links, node)], 1)

  _, more = jax.lax.scan(add, star, jnp.arange(links + 1, most_nodes))
  edges_E2 = jnp.concatenate([first_L2, more.reshape(-1, 2)]).astype(jnp.int32)
  return _only(edges_E2, links * (num_nodes - links))


def rewired(key: Key, edges_E2: Array, most_nodes: int, alike: Any) -> Array:
  """Ends of pairs of edges are swapped: every node keeps its degree (edges [E, 2]).

  Of two edges with four ends the largest and second largest degree are joined, and the
  two others; or the largest and the smallest (Xulvi-Brunet and Sokolov 2004). A swap
  that would give an edge twice is left out.

  Args:
    edges_E2: -1 and -1 where there is none; these stand last.
    most_nodes: N.
    alike: bool; may be traced.
  """
  count = (edges_E2[:, 0] >= 0).sum()
  ends = jnp.where(edges_E2 >= 0, edges_E2, most_nodes).reshape(-1)
  degree_N = jnp.zeros(most_nodes + 1).at[ends].add(1.0)

  def one(edges_E2, key):
    which, noise = jax.random.split(key)
    i, j = jax.random.randint(which, (2,), 0, count)
    four = jnp.concatenate([edges_E2[i], edges_E2[j]])
    # Equal degrees in random order.
    order = jnp.argsort(degree_N[four] + 0.5 * jax.random.uniform(noise, (4,)))
    low, second, third, high = four[order]
    mate, rest = jnp.where(alike, third, low), jnp.where(alike, low, third)
    new_22 = jnp.sort(jnp.stack([jnp.stack([high, mate]), jnp.stack([second, rest])]))
    distinct = (four[:, None] != four[None]).sum() == 12
    known_E2 = jnp.sort(edges_E2)
    twice = (known_E2[:, None] == new_22[None]).all(-1).any()
    swapped_E2 = edges_E2.at[jnp.stack([i, j])].set(new_22)
    return jnp.where(distinct & ~twice, swapped_E2, edges_E2), None

  return jax.lax.scan(one, edges_E2, jax.random.split(key, SWAPS * len(edges_E2)))[0]


def cycles(num_nodes: Any, most_nodes: int, two: Any) -> Array:
  """One cycle of n nodes, or two of n / 2: edges [N, 2].

  Args:
    num_nodes: n, even, at least 6; may be traced.
    most_nodes: N.
    two: bool; may be traced.
  """
  node_N = jnp.arange(most_nodes)
  size = jnp.where(two, num_nodes // 2, num_nodes)
  next_N = jnp.where((node_N + 1) % size == 0, node_N + 1 - size, node_N + 1)
  edges_N2 = jnp.stack([jnp.minimum(node_N, next_N), jnp.maximum(node_N, next_N)], 1)
  return _only(edges_N2.astype(jnp.int32), num_nodes)


def graph(key: Key, task: str, most_nodes: int) -> dict[str, Array]:
  """A graph of a task: `nodes`, `edges`, and `label`, 0 or 1 alike likely.

  Args:
    task: one of TASKS.
    most_nodes: N; a graph has LEAST to N nodes, drawn evenly.

  Raises:
    ConfigError: another task, or N below LEAST.
  """
  check_choice('task', task, TASKS)
  check_bounds('nodes', most_nodes, LEAST)
  which, size, first, second = streams(key, 'label', 'size', 'graph', 'other')
  label = jax.random.randint(which, (), 0, 2, jnp.int32)
  num_nodes = jax.random.randint(size, (), LEAST, most_nodes + 1, jnp.int32)
  if task == 'cycles':
    num_nodes -= num_nodes % 2
    edges_E2 = cycles(num_nodes, most_nodes, label == 1)
  else:
    edges_E2 = barabasi_albert(first, num_nodes, most_nodes)
    if task == 'mixing':
      edges_E2 = rewired(second, edges_E2, most_nodes, label == 1)
    else:
      num_edges, sizes = LINKS * (num_nodes - LINKS), (most_nodes, len(edges_E2))
      other_E2 = erdos_renyi(second, num_nodes, num_edges, sizes)
      edges_E2 = jnp.where(label == 1, edges_E2, other_E2)
  there_N = (jnp.arange(most_nodes) < num_nodes).astype(jnp.int32)
  return {'nodes': there_N, 'edges': edges_E2, 'label': label}


def _only(edges_E2: Array, count: Any) -> Array:
  """The first edges; -1 and -1 in place of the others."""
  return jnp.where((jnp.arange(len(edges_E2)) < count)[:, None], edges_E2, -1)
