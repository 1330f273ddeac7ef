"""Graph layers against dense formulas of NumPy: values, gradients, symmetries."""

from absl.testing import absltest, parameterized
import jax
from jax.experimental import sparse
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import graph, graph_modules

# A path 0 - 1 - 2, a triangle 3 4 5 that hangs on 2, and node 6 that has no links.
EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]], np.int32)
NODES, WIDTH = 7, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NODES, WIDTH)).astype(np.float32)
LAYERS = {
  'convolution': graph_modules.GraphConvolution(4),
  'attention': graph_modules.GraphAttention(4, heads=2),
  'attention_average': graph_modules.GraphAttention(4, heads=2, average=True),
  'sage_mean': graph_modules.Sage(4),
  'sage_max': graph_modules.Sage(4, aggregation='max', normalise=True),
  'gin': graph_modules.GIN(4),
  'gin_mean': graph_modules.GIN(4, aggregation='mean'),
  'gin_max': graph_modules.GIN(4, aggregation='max'),
}


def adjacency(self_loops):
  a = np.eye(NODES) if self_loops else np.zeros((NODES, NODES))
  a[EDGES[:, 0], EDGES[:, 1]] = a[EDGES[:, 1], EDGES[:, 0]] = 1
  return a


def links_for(name, edges=EDGES, num_nodes=NODES, weight=None):
  loops = name.startswith(('attention', 'convolution'))
  weight = None if weight is None else jnp.asarray(weight)
  found = graph.links_of(
    jnp.asarray(edges), num_nodes, self_loops=loops, weight_E=weight
  )
  return graph.symmetric(found, num_nodes) if name == 'convolution' else found


def call(name, params, x, links):
  more = {'train': False} if name.startswith('attention') else {}
  return jnp.asarray(LAYERS[name].apply({'params': params}, x, links, **more))


def parameters(name):
  """All of them random: biases and eps begin at 0, which hides them."""
  more = {'train': False} if name.startswith('attention') else {}
  x, links = jnp.asarray(X), links_for(name)
  shapes = jax.eval_shape(
    lambda: LAYERS[name].init(jax.random.key(0), x, links, **more)
  )
  rng = np.random.default_rng(1)
  one = lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32)
  return jax.tree.map(one, shapes['params'])


def dense(name, p, x):
  """The formula of the paper with matrices [N, N], in float64 or of any jnp."""
  relu = lambda h: jnp.maximum(h, 0)
  if name == 'convolution':
    a = adjacency(True)
    d = a.sum(1)
    return (a / np.sqrt(d[:, None] * d[None])) @ x @ p['kernel'] + p['bias']
  if name.startswith('attention'):
    outs = []
    for k in range(2):
      h = x @ p['kernel'][:, 4 * k : 4 * k + 4]
      e = (h @ p['target'][k])[:, None] + (h @ p['source'][k])[None]
      e = jnp.where(e > 0, e, 0.2 * e)
      e = jnp.where(adjacency(True) > 0, e, -np.inf)
      share = jnp.exp(e) / jnp.exp(e).sum(1, keepdims=True)
      outs.append(share @ h)
    if name == 'attention_average':
      return (outs[0] + outs[1]) / 2 + p['bias']
    return jnp.concatenate(outs, 1) + p['bias']
  a = adjacency(False)
  mean = a / np.maximum(a.sum(1, keepdims=True), 1)

  def largest(h):
    there = (a > 0)[:, :, None]
    most = jnp.where(there, h[None], -np.inf).max(1)
    return jnp.where(there.any(1), most, 0)

  if name == 'sage_mean':
    return x @ p['kernel_self'] + mean @ x @ p['kernel_neighbours'] + p['bias']
  if name == 'sage_max':
    pool = relu(x @ p['kernel_pool'] + p['bias_pool'])
    h = x @ p['kernel_self'] + largest(pool) @ p['kernel_neighbours'] + p['bias']
    return h / jnp.sqrt((h**2).sum(1, keepdims=True))
  heard = {'gin': a @ x, 'gin_mean': mean @ x}.get(name)
  h = (1 + p['eps']) * x + (largest(x) if heard is None else heard)
  return relu(h @ p['kernel_0'] + p['bias_0']) @ p['kernel_1'] + p['bias_1']


def loss_and_grads(f):
  # A fixed weight of each output: no sum hides a wrong one.
  weigh = lambda y: y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
  total = lambda p, x: weigh(f(p, x)).sum()
  return jax.jit(lambda p, x: (f(p, x), jax.grad(total, argnums=(0, 1))(p, x)))


class LayersTest(parameterized.TestCase):
  @parameterized.parameters(*LAYERS)
  def test_values_and_gradients_are_those_of_the_dense_formula(self, name):
    p, x = parameters(name), jnp.asarray(X)
    links = links_for(name)
    found = loss_and_grads(lambda p, x: call(name, p, x, links))(p, x)
    wanted = loss_and_grads(lambda p, x: dense(name, p, x))(p, x)
    # Sums of some ten products of numbers near 1 in float32, and their gradients.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, wanted
    )

  @parameterized.parameters(*LAYERS)
  def test_nodes_in_another_order_give_the_same_rows(self, name):
    p = parameters(name)
    order = np.random.default_rng(2).permutation(NODES)
    place = np.argsort(order)  # Node i of old is node place[i] of new.
    f = jax.jit(lambda x, links: call(name, p, x, links))
    found = f(jnp.asarray(X[order]), links_for(name, place[EDGES].astype(np.int32)))
    np.testing.assert_allclose(
      found, f(jnp.asarray(X), links_for(name))[order], rtol=1e-5, atol=1e-5
    )

  @parameterized.parameters(*LAYERS)
  def test_a_link_of_weight_0_is_not_there(self, name):
    p = parameters(name)
    more = np.concatenate([EDGES, [[0, 6], [2, 5], [6, 6]]]).astype(np.int32)
    weight = np.array([1] * 6 + [0] * 3, np.float32)
    x = jnp.asarray(X).at[6].set(1e30)  # Would be seen by anybody who heard it.
    found = call(name, p, x, links_for(name, more, weight=weight))
    wanted = call(name, p, x, links_for(name))
    np.testing.assert_allclose(found[:6], wanted[:6], rtol=1e-6)

  @parameterized.parameters(*LAYERS)
  def test_an_index_that_is_not_there_gives_nan(self, name):
    p = parameters(name)
    for wrong in (NODES, -1):
      edges = EDGES.copy()
      edges[0, 0] = wrong
      found = call(name, p, jnp.asarray(X), links_for(name, edges))
      self.assertTrue(np.isnan(found[1]).any(), wrong)

  def test_sparse_rows_are_dense_ones(self):
    x = np.where(RNG.random(X.shape) < 0.5, X, 0)
    index = np.argwhere(x).astype(np.int32)
    rows = graph.SparseRows(jnp.asarray(index), jnp.asarray(x[tuple(index.T)]), x.shape)
    for name in ('convolution', 'attention', 'sage_mean', 'sage_max'):
      p, links = parameters(name), links_for(name)
      np.testing.assert_allclose(
        call(name, p, rows, links), call(name, p, jnp.asarray(x), links), atol=1e-5
      )

  def test_attention_drops_shares_in_training_alone(self):
    layer = graph_modules.GraphAttention(4, heads=2, dropout=0.5)
    links, p = links_for('attention'), parameters('attention')
    rngs = lambda i: {'dropout': jax.random.key(i)}
    run = lambda i, train: jnp.asarray(
      layer.apply({'params': p}, jnp.asarray(X), links, train=train, rngs=rngs(i))
    )
    np.testing.assert_array_equal(run(0, False), run(1, False))
    self.assertGreater(float(jnp.abs(run(0, True) - run(1, True)).max()), 0.01)


class AggregateTest(parameterized.TestCase):
  @parameterized.parameters('sum', 'mean')
  def test_three_ways_are_one(self, how):
    links = links_for('gin')
    found = graph.aggregate(jnp.asarray(X), links, how)
    a = adjacency(False)
    degree = np.maximum(a.sum(1, keepdims=True), 1)
    scale = degree if how == 'mean' else 1
    np.testing.assert_allclose(found, a @ X / scale, atol=1e-5)
    index = jnp.stack([links.receiver, links.sender], 1)
    bcoo = sparse.BCOO((links.weight, index), shape=(NODES, NODES))
    np.testing.assert_allclose(found, (bcoo @ jnp.asarray(X)) / scale, atol=1e-5)

  @parameterized.parameters('sum', 'mean', 'max')
  def test_a_link_of_weight_2_is_two_links(self, how):
    twice = np.concatenate([EDGES, EDGES[:2]])
    weight = np.array([2, 2, 1, 1, 1, 1], np.float32)
    found = graph.aggregate(jnp.asarray(X), links_for('gin', weight=weight), how)
    wanted = graph.aggregate(jnp.asarray(X), links_for('gin', twice), how)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)

  def test_equal_largest_ones_share_the_gradient(self):
    links = graph.links_of(jnp.array([[0, 1], [0, 2]]), 3, self_loops=False)
    grad = jax.grad(lambda x: graph.aggregate(x, links, 'max')[0, 0])(jnp.ones((3, 1)))
    np.testing.assert_array_equal(grad[:, 0], [0, 0.5, 0.5])

  def test_an_unknown_name_is_refused(self):
    with pytest.raises(ConfigError, match='one of sum, mean, max'):
      graph.aggregate(jnp.asarray(X), links_for('gin'), 'median')


class SoftmaxTest(absltest.TestCase):
  def test_by_hand(self):
    # Node 0 hears 1 and 2 with scores log 1 and log 3, node 1 hears 0, node 2 nobody.
    links = graph.Links(jnp.array([1, 2, 0]), jnp.array([0, 0, 1]), jnp.ones(3))
    found = graph.segment_softmax(jnp.log(jnp.array([[1.0], [3.0], [9.0]])), links, 3)
    np.testing.assert_allclose(found[:, 0], [0.25, 0.75, 1], rtol=1e-6)

  def test_scores_of_any_size(self):
    links = graph.Links(
      jnp.array([1, 2, 0, 2]), jnp.array([0, 0, 1, 1]), jnp.array([1.0, 1, 1, 0])
    )
    total = lambda s: graph.segment_softmax(s, links, 3)[0, 0]
    for scores in ([1e30, 1e30, -1e30, 1e30], [-1e30, 1e30, 3e4, -3e4]):
      score = jnp.array(scores)[:, None]
      found = np.asarray(graph.segment_softmax(score, links, 3))[:, 0]
      np.testing.assert_allclose(found[:2].sum(), 1, rtol=1e-6)
      np.testing.assert_array_equal(found[2:], [1, 0])
      self.assertTrue(np.isfinite(jax.grad(total)(score)).all())


if __name__ == '__main__':
  absltest.main()
