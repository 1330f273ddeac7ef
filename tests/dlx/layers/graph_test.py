"""Graph convolution: by hand, dense, by BCOO, and with nodes that have nothing."""

from absl.testing import absltest
import jax
from jax.experimental import sparse
import jax.numpy as jnp
import numpy as np

from dlx.layers import graph
from dlx.models.gcn import GCN

# A path 0 - 1 - 2 and a node without links.
EDGES = jnp.array([[0, 1], [1, 2]])


def dense_adjacency(edges, n):
  a = np.eye(n)
  for i, j in np.asarray(edges):
    a[i, j] = a[j, i] = 1
  d = a.sum(1)
  return a / np.sqrt(d[:, None] * d[None])


def random_graph(n=30, edges=60, features=12, seed=0):
  rng = np.random.default_rng(seed)
  pairs = {tuple(sorted(p)) for p in rng.integers(0, n - 3, (edges, 2)) if p[0] != p[1]}
  x = (rng.random((n, features)) < 0.2) * rng.random((n, features))
  x[-2:] = 0  # Two nodes without words, and three without links.
  return np.array(sorted(pairs)), x.astype(np.float32)


class NormalisationTest(absltest.TestCase):
  def test_by_hand(self):
    sender, receiver, weight = graph.symmetric_normalisation(EDGES, 4)
    a = np.zeros((4, 4))
    np.add.at(a, (receiver, sender), weight)
    # Degrees with self-loops: 2, 3, 2, 1.
    s = 1 / np.sqrt(6)
    expected = [[0.5, s, 0, 0], [s, 1 / 3, s, 0], [0, s, 0.5, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(a, expected, rtol=1e-6)
    np.testing.assert_allclose(a, dense_adjacency(EDGES, 4), rtol=1e-6)

  def test_three_ways_are_one(self):
    edges, x = random_graph()
    n = len(x)
    links = graph.symmetric_normalisation(jnp.asarray(edges), n)
    found = graph.propagate(jnp.asarray(x), *links)
    dense = dense_adjacency(edges, n)
    # Sums of at most 20 numbers below 1 in float32.
    np.testing.assert_allclose(found, dense @ x, atol=1e-5)
    index = jnp.stack([links[1], links[0]], 1)
    bcoo = sparse.BCOO((links[2], index), shape=(n, n))
    np.testing.assert_allclose(found, bcoo @ jnp.asarray(x), atol=1e-5)

  def test_sparse_features_are_the_dense_product(self):
    _, x = random_graph()
    index = np.argwhere(x)
    kernel = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    found = graph.sparse_matmul(
      jnp.asarray(index), jnp.asarray(x[tuple(index.T)]), jnp.asarray(kernel), len(x)
    )
    np.testing.assert_allclose(found, x @ kernel, atol=1e-5)
    rows = graph.row_normalise(jnp.asarray(index), jnp.asarray(x[tuple(index.T)]), 30)
    sums = np.zeros(30)
    np.add.at(sums, index[:, 0], rows)
    has = x.sum(1) > 0
    np.testing.assert_allclose(sums[has], 1, rtol=1e-5)
    self.assertFalse(np.isnan(rows).any())


class GcnTest(absltest.TestCase):
  def fields(self):
    edges, x = random_graph()
    index = np.argwhere(x).astype(np.int32)
    return {
      'indices': jnp.asarray(index),
      'values': jnp.asarray(x[tuple(index.T)]),
      'edges': jnp.asarray(edges, jnp.int32),
      'label': jnp.zeros(30, jnp.int32),
    }, x

  def test_equals_the_formula(self):
    fields, x = self.fields()
    model = GCN(hidden=4, num_outputs=3)
    variables = model.init(jax.random.key(0), fields, 12, train=False)
    p = jax.tree.map(np.array, variables['params'])
    a = dense_adjacency(fields['edges'], 30)
    x = x / np.maximum(x.sum(1, keepdims=True), 1e-12)
    h = np.maximum(a @ x @ p['kernel_0'] + p['bias_0'], 0)
    expected = a @ h @ p['kernel_1'] + p['bias_1']
    found = model.apply(variables, fields, 12, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)

  def test_deeper_with_residuals_equals_the_formula(self):
    fields, x = self.fields()
    model = GCN(hidden=4, num_outputs=3, depth=4, residual=True)
    variables = model.init(jax.random.key(0), fields, 12, train=False)
    p = jax.tree.map(np.array, variables['params'])
    a = dense_adjacency(fields['edges'], 30)
    h = x / np.maximum(x.sum(1, keepdims=True), 1e-12)
    for i in range(3):
      next_h = np.maximum(a @ h @ p[f'kernel_{i}'] + p[f'bias_{i}'], 0)
      h = next_h + h if i else next_h
    hidden, logits = model.apply(variables, fields, 12, train=False, method='features')
    np.testing.assert_allclose(hidden, h, atol=1e-5)
    np.testing.assert_allclose(logits, a @ h @ p['kernel_3'] + p['bias_3'], atol=1e-5)

  def test_a_node_sees_two_steps_far(self):
    n = 5
    fields = {
      'indices': jnp.stack([jnp.arange(n)] * 2, 1),
      'values': jnp.ones(n),
      'edges': jnp.array([[0, 1], [1, 2], [2, 3], [3, 4]]),
      'label': jnp.zeros(n, jnp.int32),
    }
    model = GCN(hidden=8, num_outputs=2)
    variables = model.init(jax.random.key(0), fields, n, train=False)
    # Row-normalised single features do not change with their value: the kernel does.
    grads = jax.grad(
      lambda p: (
        model.apply({'params': {**variables['params'], **p}}, fields, n, train=False)
      )[0].sum()
    )({'kernel_0': variables['params']['kernel_0']})['kernel_0']
    reached = np.abs(grads).sum(1) > 0
    np.testing.assert_array_equal(reached[3:], [False, False])
    self.assertTrue(reached[:3].any())

  def test_dropout_needs_a_key_and_is_off_in_evaluation(self):
    fields, _ = self.fields()
    model = GCN(hidden=4, num_outputs=3)
    variables = model.init(jax.random.key(0), fields, 12, train=False)
    run = lambda i: jnp.asarray(
      model.apply(
        variables, fields, 12, train=True, rngs={'dropout': jax.random.key(i)}
      )
    )
    self.assertGreater(float(jnp.abs(run(0) - run(1)).max()), 0)


if __name__ == '__main__':
  absltest.main()
