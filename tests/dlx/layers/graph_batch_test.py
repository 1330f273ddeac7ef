"""Padded batches of graphs: each graph has what it has alone."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import graph_batch
from dlx.models.graph_classifier import LAYERS, GraphClassifier

# A triangle with a tail, one edge, a node alone, and no node at all.
GRAPHS = [(4, [[0, 1], [1, 2], [0, 2], [2, 3]]), (2, [[0, 1]]), (1, []), (0, [])]


def padded(graphs, nodes, edges):
  """`nodes` [B, N] and `edges` [B, E, 2] of these sizes."""
  nodes_BN = np.zeros((len(graphs), nodes), np.int32)
  edges_BE2 = np.full((len(graphs), edges, 2), -1, np.int32)
  for b, (n, pairs) in enumerate(graphs):
    nodes_BN[b, :n] = 1
    edges_BE2[b, : len(pairs)] = np.array(pairs).reshape(-1, 2)
  return {'nodes': jnp.asarray(nodes_BN), 'edges': jnp.asarray(edges_BE2)}


class ReadoutTest(parameterized.TestCase):
  @parameterized.parameters(
    ('sum', [[3, 30], [0, 0]]),
    ('mean', [[1.5, 15], [0, 0]]),
    ('max', [[2, 20], [0, 0]]),
  )
  def test_by_hand(self, how, wanted):
    h = jnp.array([[[1, 10], [2, 20], [9, 90]], [[5, 5], [6, 6], [7, 7]]], jnp.float32)
    weight = jnp.array([[1, 1, 0], [0, 0, 0]], jnp.float32)
    found = graph_batch.readout(h, weight, how)
    np.testing.assert_array_equal(found, wanted)
    grad = jax.grad(lambda h: graph_batch.readout(h, weight, how).sum())(h)
    np.testing.assert_array_equal(grad[:, 2], 0)  # What fills up has no part in it.

  def test_an_unknown_name_is_refused(self):
    with pytest.raises(ConfigError, match='one of sum, mean, max'):
      graph_batch.readout(jnp.ones((1, 2, 3)), jnp.ones((1, 2)), 'last')


class BatchTest(parameterized.TestCase):
  @parameterized.product(layer=LAYERS, readout=graph_batch.READOUTS)
  def test_a_graph_has_the_result_that_it_has_alone(self, layer, readout):
    # max over neighbours with max over nodes, mean with mean: all are seen.
    model = GraphClassifier(layer, readout, readout, 2, 5, 3)
    batch = padded(GRAPHS, 6, 7)
    variables = jax.jit(lambda b: model.init(jax.random.key(0), b, train=False))(batch)
    variables = jax.tree.map(lambda x: x + 0.1, variables)  # Biases begin at 0.
    call = jax.jit(lambda b: model.apply(variables, b, train=False))
    together = call(batch)
    self.assertEqual(together.shape, (4, 3))
    self.assertTrue(np.isfinite(together).all())
    # A sum is divided by the places of a graph, so the head's part of it is scaled.
    scale = 6 / 4 if readout == 'sum' else 1
    head = variables['params']['head']
    own = {'kernel': head['kernel'] / scale, 'bias': head['bias']}
    alone = {'params': {**variables['params'], 'head': own}}
    one = padded(GRAPHS[:1], 4, 4)
    found = jax.jit(lambda b: model.apply(alone, b, train=False))(one)
    # Sums of at most 30 products in float32.
    np.testing.assert_allclose(together[:1], found, rtol=2e-6, atol=2e-6)
    # Other graphs beside it.
    swapped = call(jax.tree.map(lambda x: x[::-1], batch))
    np.testing.assert_allclose(swapped[::-1], together, rtol=2e-6, atol=2e-6)

  @parameterized.parameters(([0, 4],), ([-1, 0],), ([0, 99],), ([-2, -2],))
  def test_an_edge_to_no_node_is_nan_for_its_graph_alone(self, edge):
    batch = padded(GRAPHS, 6, 7)
    batch['edges'] = batch['edges'].at[0, 6].set(jnp.array(edge))
    for how in graph_batch.READOUTS:
      found = graph_batch.joined(batch['nodes'], batch['edges'], self_loops=False)
      row = graph_batch.readout(jnp.ones((4, 6, 2)), found.weight_BN, how)
      self.assertTrue(np.isnan(row[0]).all(), how)
      self.assertTrue(np.isfinite(row[1:]).all(), how)


if __name__ == '__main__':
  absltest.main()
