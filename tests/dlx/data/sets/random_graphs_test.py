"""Random graphs: counts, simple graphs, degrees kept, classes that differ."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.sets import random_graphs
from dlx.errors import ConfigError

MOST = 12


def drawn(task, count=200):
  fields = jax.jit(
    jax.vmap(lambda i: random_graphs.graph(jax.random.key(i), task, MOST))
  )(jnp.arange(count))
  return jax.tree.map(np.asarray, fields)


def pairs(edges_E2):
  return [tuple(sorted(e)) for e in edges_E2.tolist() if e != [-1, -1]]


def parts(num_nodes, edges):
  """Sizes of the parts that hang together."""
  name = list(range(num_nodes))
  for a, b in edges:
    old, new = name[a], name[b]
    name = [new if x == old else x for x in name]
  return sorted(name.count(x) for x in set(name))


def attached(rng, n, links):
  """Barabasi and Albert's graph by a list that has each node once an edge."""
  edges = [(i, links) for i in range(links)]
  ends = [x for edge in edges for x in edge]
  for node in range(links + 1, n):
    chosen = set()
    while len(chosen) < links:
      chosen.add(rng.choice(ends))
    edges += [(x, node) for x in chosen]
    ends += [x for edge in edges[-links:] for x in edge]
  return np.array(edges)


class GraphTest(parameterized.TestCase):
  @parameterized.parameters(*random_graphs.TASKS)
  def test_graphs_are_simple_and_within_their_nodes(self, task):
    found = drawn(task)
    sizes = found['nodes'].sum(1)
    self.assertEqual((sizes.min(), sizes.max()), (8, MOST))
    for nodes, edges, n in zip(found['nodes'], found['edges'], sizes, strict=True):
      np.testing.assert_array_equal(nodes, np.arange(MOST) < n)
      own = pairs(edges)
      self.assertLen(set(own), len(own))
      self.assertTrue(all(0 <= a < b < n for a, b in own))
      self.assertLen(own, n if task == 'cycles' else 2 * (n - 2))
    # 200 fair draws: four deviations of 0.035.
    self.assertAlmostEqual(found['label'].mean(), 0.5, delta=0.14)

  def test_cycles_have_the_parts_that_they_should(self):
    found = drawn('cycles', 40)
    for nodes, edges, label in zip(*(found[k] for k in ('nodes', 'edges', 'label'))):
      own, n = pairs(edges), nodes.sum()
      np.testing.assert_array_equal(np.bincount(np.ravel(own), minlength=n), 2)
      self.assertEqual(parts(n, own), [n // (1 + label)] * (1 + label))

  def test_mixing_keeps_every_degree_and_mixes(self):
    edges = random_graphs.barabasi_albert(jax.random.key(0), MOST, MOST)
    wired = jax.jit(
      lambda alike: random_graphs.rewired(jax.random.key(1), edges, MOST, alike)
    )
    degree = lambda e: np.bincount(np.asarray(e).reshape(-1), minlength=MOST)

    def assortativity(e):
      ends = np.concatenate([e, e[:, ::-1]])
      return np.corrcoef(degree(e)[ends].T)[0, 1]

    for alike in (False, True):
      np.testing.assert_array_equal(degree(wired(alike)), degree(edges))
    low, high = (assortativity(np.asarray(wired(x))) for x in (False, True))
    self.assertLess(low, -0.2)
    self.assertGreater(high, low + 0.3)

  def test_large_degrees_are_those_of_preferential_attachment(self):
    n, links, count = 64, 2, 60
    draw = lambda key: random_graphs.barabasi_albert(key, n, n, links)
    edges = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count))
    most = lambda e: np.bincount(np.asarray(e).reshape(-1)).max()
    found = np.array([most(e) for e in edges])
    rng = np.random.default_rng(0)
    wanted = np.array([most(attached(rng, n, links)) for _ in range(count)])
    # Four standard errors of the difference of two means.
    error = np.sqrt((found.var() + wanted.var()) / count)
    self.assertAlmostEqual(found.mean(), wanted.mean(), delta=4 * error)
    draw = lambda key: random_graphs.erdos_renyi(key, n, 124, (n, 124))
    even = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count))
    self.assertLess(np.mean([most(e) for e in even]), found.mean() - 4)

  def test_unknown_tasks_and_small_graphs_are_refused(self):
    with pytest.raises(ConfigError, match='one of families, mixing, cycles'):
      random_graphs.graph(jax.random.key(0), 'trees', MOST)
    with pytest.raises(ConfigError, match='nodes=7 .*at least 8'):
      random_graphs.graph(jax.random.key(0), 'cycles', 7)


if __name__ == '__main__':
  absltest.main()
