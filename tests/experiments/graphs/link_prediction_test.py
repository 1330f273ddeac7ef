"""Link prediction: no leak, pairs that are drawn, exact figures."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.graph_autoencoder import inner_products
from experiments.graphs import link_prediction


def built(**fields):
  config = link_prediction.Config(hidden=8, features=4, **fields)
  made = link_prediction.build(config)
  arrays = jax.tree.map(jnp.asarray, made.train_data.load().data)
  return made, made.train_data.get(arrays, jnp.int32(0))


class LinkPredictionTest(absltest.TestCase):
  def test_training_depends_on_no_held_out_pair(self):
    made, graph = built()
    held = [k for k in graph if k.endswith(('_pairs', '_truth'))]
    self.assertLen(held, 4)
    step, state = jax.jit(made.train_step), jax.jit(made.init)(jax.random.key(0))
    other = {k: jnp.zeros_like(graph[k]) for k in held}
    one, two = step(state, graph), step(state, {**graph, **other})
    jax.tree.map(np.testing.assert_array_equal, one[0].params, two[0].params)
    # What is evaluated is of the messages and these pairs alone.
    for split in ('validation', 'test'):
      joined = {tuple(e) for e in np.asarray(graph['edges']).tolist()}
      pairs = {tuple(e) for e in np.asarray(graph[f'{split}_pairs']).tolist()}
      self.assertFalse(joined & pairs)

  def test_pairs_are_a_function_of_key_and_edges_of_weight_0(self):
    edges = jnp.array([[0, 1], [2, 1], [0, 2]] * 20, jnp.int32)
    draw = jax.jit(lambda i: link_prediction.other_pairs(jax.random.key(i), edges, 4))
    (pairs, weight), again, other = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(pairs, again[0])
    self.assertTrue((pairs != other[0]).any())
    for (a, b), w in zip(pairs.tolist(), weight.tolist(), strict=True):
      # 3 is joined to nobody; 0, 1 and 2 are all joined.
      self.assertEqual(w, float(a != b and 3 in (a, b)))

  def test_figures_are_those_of_all_scores(self):
    sklearn = pytest.importorskip('sklearn.metrics')
    made, graph = built()
    state = jax.jit(made.init)(jax.random.key(0))
    evaluation = made.evals['test']
    found = jax.jit(
      lambda s, g: evaluation.summarize(evaluation.step(s, g))
    )(state, graph)  # fmt: skip
    score = made.functions['score'].call
    names = made.functions['score'].inputs
    inputs = {**graph, 'pairs': graph['test_pairs']}
    prob = score(state, {k: inputs[k] for k in names})['probability']
    truth = np.asarray(graph['test_truth'])
    self.assertAlmostEqual(
      float(found['roc_auc']), sklearn.roc_auc_score(truth, prob), places=6
    )
    self.assertAlmostEqual(
      float(found['average_precision']),
      sklearn.average_precision_score(truth, prob),
      places=6,
    )

  def test_products_by_hand_and_of_no_node(self):
    z = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    found = inner_products(z, jnp.array([[0, 1], [1, 1], [0, 2], [-1, 0]]))
    np.testing.assert_array_equal(found, [1, 10, np.nan, np.nan])

  def test_refuses_to_hold_all_edges_out(self):
    with pytest.raises(ConfigError, match='test_edges=0.5 .*below 1 together'):
      link_prediction.Config(validation_edges=0.5, test_edges=0.5)


if __name__ == '__main__':
  absltest.main()
