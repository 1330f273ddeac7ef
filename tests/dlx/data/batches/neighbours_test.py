"""Neighbour sampling: neighbours alone, a function of the key, the mean unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.batches import neighbours
from dlx.errors import DataError
from dlx.layers import graph
from dlx.models.sage import GraphSage

# Node 0 hears 1, 2, 3; 1 hears 0 and 2; 2 hears 0 and 1; 3 hears 0; 4 hears nobody.
EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2]])
HEARD = {0: {1, 2, 3}, 1: {0, 2}, 2: {0, 1}, 3: {0}, 4: {4}}
GRAPH = neighbours.neighbourhoods(EDGES, 5)


def test_rows_are_the_neighbours():
  for node in range(4):
    row = GRAPH.neighbour[GRAPH.start[node] : GRAPH.start[node + 1]]
    assert set(row.tolist()) == HEARD[node] and len(row) == len(HEARD[node])
  assert GRAPH.start[4] == GRAPH.start[5] == 8


@pytest.mark.parametrize('edge', [[0, 5], [-1, 0]])
def test_an_edge_to_no_node_is_refused(edge):
  with pytest.raises(DataError, match=r'must be in \[0, 4\]'):
    neighbours.neighbourhoods(np.array([*EDGES, edge]), 5)


def test_a_tree_of_neighbours_is_a_function_of_the_key():
  nodes = jnp.array([0, 4, 2])
  of = jax.jit(lambda i: neighbours.sample(jax.random.key(i), GRAPH, nodes, (3, 2)))
  found, again, other = of(0), of(0), of(1)
  jax.tree.map(np.testing.assert_array_equal, found, again)
  assert (found.nodes[1] != other.nodes[1]).any()
  assert [x.shape for x in found.nodes] == [(3,), (3, 3), (3, 3, 2)]
  for above, below in zip(found.nodes, found.nodes[1:], strict=False):
    for node, drawn in zip(
      np.ravel(above), np.reshape(below, (-1, below.shape[-1])), strict=True
    ):
      assert set(drawn.tolist()) <= HEARD[int(node)]
  np.testing.assert_array_equal(found.weight[0], [[1] * 3, [0] * 3, [1] * 3])


def test_the_mean_of_draws_is_that_of_all_neighbours():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
  nodes = jnp.arange(5)

  def estimate(key):
    found, weight = neighbours.draw(key, GRAPH, nodes, 2)
    return neighbours.mean(x[found], weight)

  count = 4000
  many = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), count))
  links = graph.links_of(jnp.asarray(EDGES), 5, self_loops=False)
  wanted = graph.aggregate(x, links, 'mean')
  error = np.asarray(many).std(0) / np.sqrt(count)
  # Five standard errors of each of 20 numbers; of one neighbour, or none, no error.
  assert (np.abs(many.mean(0) - wanted) <= 5 * error + 1e-6).all()
  np.testing.assert_allclose(many.mean(0)[3:], wanted[3:], atol=1e-6)
  assert (error[:3] > 0).all()


def test_a_node_that_is_not_there_is_nan():
  _, weight = neighbours.draw(jax.random.key(0), GRAPH, jnp.array([0, 5, -1]), 2)
  np.testing.assert_array_equal(np.isnan(weight).all(1), [False, True, True])


def test_a_graph_without_edges():
  lone = neighbours.neighbourhoods(np.zeros((0, 2), np.int32), 3)
  found, weight = neighbours.draw(jax.random.key(0), lone, jnp.arange(3), 2)
  np.testing.assert_array_equal(found, [[0, 0], [1, 1], [2, 2]])
  np.testing.assert_array_equal(weight, 0)


def test_a_net_of_the_tree_is_the_recursion_by_hand():
  x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
  model = GraphSage(4, 2, depth=2, dropout=0.0)
  tree = neighbours.sample(jax.random.key(3), GRAPH, jnp.array([0, 4, 2]), (3, 2))
  places, links = neighbours.as_links(tree)
  assert places.shape == (3 + 9 + 18,)
  links = graph.Links(*links)
  rows = jnp.asarray(x)[places]
  params = model.init(jax.random.key(0), rows, links, train=False)['params']
  found = model.apply({'params': params}, rows, links, train=False)
  one, two = (jax.tree.map(np.asarray, params[f'layer_{i}']) for i in range(2))

  def layer(p, own, heard):
    return own @ p['kernel_self'] + heard @ p['kernel_neighbours'] + p['bias'][0]

  for b in range(3):
    roots, hidden = int(tree.nodes[0][b]), []
    for k in range(3):
      below = x[np.asarray(tree.nodes[2][b, k])].mean(0) * tree.weight[1][b, k, 0]
      hidden.append(np.maximum(layer(one, x[int(tree.nodes[1][b, k])], below), 0))
    seen = tree.weight[0][b, 0]  # 0 of the node that hears nobody.
    heard = x[np.asarray(tree.nodes[1][b])].mean(0) * seen
    own = np.maximum(layer(one, x[roots], heard), 0)
    wanted = layer(two, own, np.mean(hidden, 0) * seen)
    np.testing.assert_allclose(found[b], wanted, rtol=1e-5, atol=1e-5)
