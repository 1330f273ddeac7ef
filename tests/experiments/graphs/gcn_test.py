"""The graph experiment: masks, members, and a graph of Citeseer's shape."""

import os
import pathlib

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.sets import graphs, karate
from dlx.run.loop import fit
from dlx.run.reopen import draw, evaluate
from dlx.train.members import vectorize
from experiments.graphs import gcn


class KarateTest(absltest.TestCase):
  def test_is_the_published_graph(self):
    networkx = pytest.importorskip('networkx', reason='networkx is not installed')
    graph, found = networkx.karate_club_graph(), karate.fields()
    edges = sorted(tuple(sorted(e)) for e in graph.edges())
    self.assertEqual(edges, [tuple(e) for e in found['edges']])
    clubs = [graph.nodes[i]['club'] for i in range(34)]
    np.testing.assert_array_equal(found['label'], [c == 'Officer' for c in clubs])

  def test_every_node_is_in_one_mask(self):
    found = karate.fields()
    total = sum(found[m].astype(int) for m in ('train', 'validation', 'test'))
    np.testing.assert_array_equal(total, 1)
    for mask in ('train', 'validation', 'test'):
      self.assertEqual(set(found['label'][found[mask]]), {0, 1}, mask)


def built(**fields):
  config = gcn.Config(**fields)
  made = gcn.build(config)
  graph = jax.tree.map(jnp.asarray, made.train_data.load().data)
  return made, made.train_data.get(graph, jnp.int32(0))


class GcnTest(absltest.TestCase):
  def test_only_the_nodes_of_the_mask_count(self):
    made, graph = built(dropout=0.0, weight_decay=0.0)
    state = made.init(jax.random.key(0))
    one, _ = made.train_step(state, graph)
    label = jnp.where(graph['train'], graph['label'], 1 - graph['label'])
    other, _ = made.train_step(state, {**graph, 'label': label})
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    flipped = {**graph, 'label': jnp.where(graph['train'], 1 - graph['label'], 0)}
    third, _ = made.train_step(state, flipped)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), one.params, third.params)
    self.assertGreater(max(map(float, jax.tree.leaves(moved))), 0)

  def test_nodes_without_a_label_count_nothing(self):
    made, graph = built()
    state = made.init(jax.random.key(0))
    test = np.array(graph['test']).nonzero()[0]
    label = graph['label'].at[test[:15]].set(-1)
    found = made.evals['test'].step(state, {**graph, 'label': label})
    self.assertEqual(float(found['accuracy'].count), len(test) - 15)
    self.assertTrue(np.isfinite(float(found['loss'].total)))

  def test_members_in_chunks_are_members_at_once_and_alone(self):
    made, graph = built(members=4)
    chunked, _ = built(members=4, chunk=2)
    uneven, _ = built(members=4, chunk=3)
    alone, _ = built()
    key = jax.random.key(0)
    states = [e.init(key) for e in (made, chunked, uneven)]
    single = alone.init(jax.random.fold_in(key, 2))
    steps = [jax.jit(e.train_step) for e in (made, chunked, uneven)]
    lone = jax.jit(alone.train_step)
    for _ in range(5):
      states = [step(s, graph)[0] for step, s in zip(steps, states, strict=True)]
      single = lone(single, graph)[0]
    for state in states:
      self.assertEqual(int(state.step), 5)
      # Five steps of Adam at 1e-2: rounding in the order of sums, 1e-5 of it.
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[2], b, rtol=1e-4, atol=1e-6),
        state.params,
        single.params,
      )
    sums = chunked.evals['test'].step(states[1], graph)
    self.assertEqual(sums['accuracy'].total.shape, (4,))

  def test_the_factions_are_found_and_wrong_nodes_are_told(self):
    config = gcn.Config(num_steps=100)
    folder = self.create_tempdir().full_path
    found = fit(gcn.build(config), config, folder).metrics
    self.assertGreater(found['test/accuracy'], 0.85)
    text = (pathlib.Path(folder) / 'figures' / 'wrong_nodes.txt').read_text()
    self.assertEqual(text, draw(gcn.build(config), config, folder, 'wrong_nodes'))
    wrong = round((1 - found['test/accuracy']) * 28)
    self.assertStartsWith(text, f'{wrong} of 28 test nodes are wrong.\n')
    self.assertLen(text.splitlines(), wrong + 1)
    again = evaluate(gcn.build(config), config, folder)
    for name, value in again.items():
      self.assertAlmostEqual(value, found[name], places=6)

  def test_cora_for_a_few_epochs(self):
    folder = os.environ.get('DLX_DATA_DIR')
    if not folder or not (pathlib.Path(folder) / 'cora').exists():
      self.skipTest('DLX_DATA_DIR is not set or has no cora')
    config = gcn.Config(dataset='cora', num_steps=60)
    found = fit(
      gcn.build(config), config, self.create_tempdir().full_path, data_dir=folder
    ).metrics
    # 81.4 after 200 epochs; 7 classes.
    self.assertGreater(found['test/accuracy'], 0.7)


class VectorizeTest(absltest.TestCase):
  def test_refuses_a_chunk_of_none(self):
    with self.assertRaisesRegex(Exception, 'chunk=0 is not allowed'):
      vectorize(gcn.build(gcn.Config()), 2, chunk=0)

  def test_unknown_graphs_are_refused_with_the_names(self):
    with self.assertRaisesRegex(Exception, 'karate_club, cora, citeseer, pubmed'):
      gcn.build(gcn.Config(dataset='karate'))
    self.assertEqual(graphs.graph('citeseer', sparse=True).num_classes, 6)


if __name__ == '__main__':
  absltest.main()
