"""What a sum over neighbours sees and a mean does not, exactly and by training."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.sets import random_graphs
from dlx.errors import ConfigError
from dlx.run.loop import fit
from experiments.graphs import graph_classification


def some(state):
  """Weights of which none is 0, as biases are at the beginning."""
  rng = np.random.default_rng(0)
  move = lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype)
  return state._replace(params=jax.tree.map(move, state.params))


def answers(task, **fields):
  """Log of the answers of a net that was not trained, for some graphs, [B, 2]."""
  most = 10 if task == 'families' else 16
  config = graph_classification.Config(task=task, nodes=most, features=8, **fields)
  built = graph_classification.build(config)
  state = jax.jit(built.init)(jax.random.key(0))
  call = built.functions['predict'].call
  batch = jax.vmap(lambda i: random_graphs.graph(jax.random.key(i), task, most))
  graphs = batch(jnp.arange(20))
  graphs.pop('label')
  one = lambda graph: call(some(state), graph)['probabilities']
  return np.log(jax.jit(jax.vmap(one))(graphs))


class ExpressivenessTest(parameterized.TestCase):
  @parameterized.parameters(
    ('families', {'layer': 'gin', 'aggregation': 'mean', 'readout': 'mean'}, True),
    ('families', {'layer': 'sage', 'aggregation': 'max', 'readout': 'max'}, True),
    ('families', {'layer': 'gin', 'readout': 'mean'}, False),
    ('families', {'layer': 'gcn', 'readout': 'mean'}, False),
    # All nodes of all cycles see two neighbours like themselves, at any depth.
    ('cycles', {'layer': 'gin', 'readout': 'mean', 'depth': 4}, True),
    ('cycles', {'layer': 'gin', 'readout': 'sum'}, False),  # It counts the nodes.
  )
  def test_some_nets_give_all_graphs_one_answer(self, task, fields, one):
    found = answers(task, **fields)
    # Nodes without neighbours hear 0 where others hear their like: in a few graphs.
    self.assertGreater(found.min(), -50)  # None is saturated.
    spread = np.abs(found - np.median(found, 0)).max(1)
    same = (spread < 1e-5).mean()
    self.assertEqual(same > 0.6, one, spread)

  def test_one_round_of_messages_sees_degrees_alone(self):
    edges = random_graphs.barabasi_albert(jax.random.key(3), 10, 10)
    wire = lambda alike: random_graphs.rewired(jax.random.key(4), edges, 10, alike)
    graphs = [
      {'nodes': jnp.ones(10, jnp.int32), 'edges': wire(x)} for x in (0 > 1, 1 > 0)
    ]
    for depth, same in ((1, True), (2, False)):
      config = graph_classification.Config(nodes=10, depth=depth, features=8)
      built = graph_classification.build(config)
      # Without biases a net is linear in the one number that all nodes begin with.
      state = some(jax.jit(built.init)(jax.random.key(0)))
      call = jax.jit(built.functions['predict'].call)
      a, b = (np.log(call(state, graph)['probabilities']) for graph in graphs)
      self.assertGreater(a.min(), -50)  # Not saturated.
      self.assertEqual(np.abs(a - b).max() < 1e-5, same)

  def test_an_edge_to_no_node_is_nan(self):
    built = graph_classification.build(graph_classification.SMALL)
    state = jax.jit(built.init)(jax.random.key(0))
    graph = {'nodes': jnp.ones(3, jnp.int32), 'edges': jnp.array([[0, 1], [1, 3]])}
    found = built.functions['predict'].call(state, graph)['probabilities']
    self.assertTrue(np.isnan(found).all())

  def test_gcn_takes_no_aggregation(self):
    with pytest.raises(ConfigError, match='aggregation=mean .*sum: gcn weighs'):
      graph_classification.Config(layer='gcn', aggregation='mean')

  @pytest.mark.slow
  def test_gin_learns_what_a_mean_does_not(self):
    def accuracy(**fields):
      config = graph_classification.Config(eval_every_steps=None, **fields)
      folder = self.create_tempdir().full_path
      return fit(graph_classification.build(config), config, folder).metrics[
        'test/accuracy'
      ]

    self.assertGreater(accuracy(), 0.92)  # 96 % in the README.
    mean = accuracy(aggregation='mean', readout='mean', num_steps=300)
    self.assertLess(mean, 0.75)  # It sees no degrees, only nodes without any.
    self.assertLess(accuracy(task='cycles', num_steps=300), 0.6)


if __name__ == '__main__':
  absltest.main()
