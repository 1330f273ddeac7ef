"""classical: the answers of the arrays are scikit-learn's own, of every model."""

import json
import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.base
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from dlx.data.sources import of_arrays, remembered
from dlx.errors import ConfigError, DataError
from dlx.models import estimators, trees
from dlx.run.loop import fit
from experiments.foundations import classical

MEAN, STD = 0.30538339422407795, 0.37611916809001955
OWN = {
  'logistic': LogisticRegression(max_iter=200),
  'tree': DecisionTreeClassifier(max_leaf_nodes=20, random_state=3),
  'forest': RandomForestClassifier(5, max_leaf_nodes=20, random_state=3),
  'boosting': HistGradientBoostingClassifier(
    max_iter=5, max_leaf_nodes=20, early_stopping=False, random_state=3
  ),
  'mlp': MLPClassifier(
    (16,),
    alpha=0,
    batch_size=128,
    learning_rate_init=0.01,
    max_iter=10,
    n_iter_no_change=10,
    random_state=3,
  ),  # fmt: skip
}


class ClassicalTest(parameterized.TestCase):
  @parameterized.parameters(*OWN)
  @pytest.mark.filterwarnings('ignore::sklearn.exceptions.ConvergenceWarning')
  def test_answers_are_those_of_scikit_learn(self, model):
    passes = 10 if model == 'mlp' else 200
    config = classical.Config(
      model=model, trees=5, max_leaves=20, features=(16,), passes=passes, seed=3,
      num_steps=1, validation=0.7, lr=0.01,
    ).resolved()  # fmt: skip
    built, workdir = classical.build(config), self.create_tempdir().full_path
    outcome = fit(built._replace(figures={}), config, workdir)
    train = built.train_data.load().data
    test = built.evals['test'].data.load().data
    self.assertEqual(len(train['label']), 431)

    def rows(data):
      x = np.float32(data['image']).reshape(len(data['label']), -1)
      return (x / 16 - MEAN) / STD if model in ('logistic', 'mlp') else x

    reference = OWN[model].fit(rows(train), train['label'])
    wanted = reference.predict_proba(rows(test))
    images = {'image': jnp.asarray(test['image'])}
    predict = jax.jit(built.functions['predict'].call)
    found = predict(outcome.state, images)['probabilities']
    # float32 against float64: sums of 64 products. Least probabilities are bounded.
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    accuracy = reference.score(rows(test), test['label'])
    self.assertAlmostEqual(outcome.metrics['test/accuracy'], accuracy, places=6)
    self.assertGreater(accuracy, 0.6)
    record = json.loads((pathlib.Path(workdir) / 'config.json').read_text())
    origin = record['warm_start']
    self.assertEqual(origin['estimator'], type(reference).__name__)
    self.assertEqual(origin['examples'], 431)
    if model == 'logistic':
      self.assertEqual(outcome.metrics['test/fitted'], 65 * 10)
    if model == 'tree':  # 19 inner nodes, 20 leaves of ten shares.
      self.assertEqual(outcome.metrics['test/fitted'], 19 * 2 + 20 * 10)
    importance_F = built.figures['importance'].compute(
      outcome.state, jax.random.key(0), images
    )
    self.assertGreater(float(importance_F.sum()), 0)

  @parameterized.parameters('logistic', 'boosting', 'forest', 'mlp')
  @pytest.mark.filterwarnings('ignore::sklearn.exceptions.ConvergenceWarning')
  def test_of_two_classes_that_were_seen_others_are_never_chosen(self, model):
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(80, 3)).astype(np.float32)
    label_N = np.where(x_NF[:, 0] > 0, 3, 1)
    own = {'batch_size': 80} if model == 'mlp' else {}
    reference = sklearn.base.clone(OWN[model]).set_params(**own).fit(x_NF, label_N)
    if model in ('logistic', 'mlp'):
      x_BF = x_NF
      *hidden, last = estimators.layers(reference, 5)
      for layer in hidden:
        x_BF = np.maximum(x_BF @ layer['kernel'] + layer['bias'], 0)
      p_BK = np.asarray(jax.nn.softmax(x_BF @ last['kernel'] + last['bias']))
    else:
      of = estimators.boosting if model == 'boosting' else estimators.forest
      grown = of(reference, 5)
      most = max(len(tree.leaf_N) for tree in grown.nodes)
      packed = trees.pack(grown.nodes, len(grown.nodes), most)
      leaf_BT = np.asarray(trees.leaves(packed, jnp.asarray(x_NF)))
      found = np.stack([v[leaf_BT[:, i]] for i, v in enumerate(grown.values)], 1)
      if model == 'boosting':
        logits = found.reshape(80, -1, 5).sum(1) + grown.base_K
        p_BK = np.asarray(jax.nn.softmax(logits))
      else:
        p_BK = found.mean(1)
    np.testing.assert_allclose(p_BK[:, [0, 2, 4]], 0)
    np.testing.assert_allclose(
      p_BK[:, [1, 3]], reference.predict_proba(x_NF), atol=2e-5
    )

  def test_one_class_is_refused_in_one_line(self):
    image = np.zeros((20, 8, 8, 1), np.uint8)
    one = of_arrays({'image': image, 'label': np.zeros(20, np.int32)})
    source, recall = remembered(one)
    loaded = source.read(None)
    self.assertIs(recall(), loaded.data)
    with self.assertRaisesRegex(DataError, 'all examples are of one class') as caught:
      classical.checked(one, loaded.data)
    self.assertNotIn('\n', str(caught.exception))

  def test_leaves_are_bounded_by_the_examples(self):
    shapes = lambda **fields: jax.eval_shape(
      classical.build(classical.Config(**fields).resolved()).init, jax.random.key(0)
    ).params['model']
    self.assertEqual(shapes(trees=2)['value'].shape, (2, 2 * 1437 - 1, 10))
    self.assertEqual(shapes(trees=2, max_leaves=4)['value'].shape, (2, 7, 10))
    self.assertEqual(shapes(trees=2, model='boosting')['value'].shape, (20, 61, 1))
    # How many examples there are is known on load alone.
    several = shapes(trees=2, dataset='fashion_mnist')['value'].shape
    self.assertEqual(several, (2, 2 * 8192 - 1, 10))

  @parameterized.parameters(
    (dict(model='svm'), 'model=svm .* one of logistic, tree, forest, boosting, mlp'),
    (dict(max_leaves=1), 'max_leaves=1 .* at least 2, or None'),
    (dict(l2=0), 'l2=0 .* above 0'),
    (dict(ema_decay=0.9), 'ema_decay=0.9 .* scikit-learn fits'),
    (dict(stream=True), 'stream=True .* all examples at once'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      classical.Config(**fields)


if __name__ == '__main__':
  absltest.main()
