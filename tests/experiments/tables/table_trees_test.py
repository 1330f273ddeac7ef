"""Trees on tables answer as scikit-learn's own, numbers and classes."""

import jax
import numpy as np
import pytest
from sklearn import ensemble

from dlx.data.sets import columns, tables
from dlx.errors import ConfigError
from dlx.models import trees
from experiments.tables import table_trees

OWN = {
  ('forest', 'diabetes'): ensemble.RandomForestRegressor(
    5, max_leaf_nodes=12, random_state=1
  ),
  ('boosting', 'diabetes'): ensemble.HistGradientBoostingRegressor(
    max_iter=5, max_leaf_nodes=12, random_state=1
  ),
  ('forest', 'wine'): ensemble.RandomForestClassifier(
    5, max_leaf_nodes=12, random_state=1
  ),
  ('boosting', 'wine'): ensemble.HistGradientBoostingClassifier(
    max_iter=5, max_leaf_nodes=12, random_state=1
  ),
}


def split(dataset, part):
  """Inputs as measured [N, F], and the fields of batches."""
  rows = getattr(columns.table(dataset), part).read(None).data
  plain = getattr(tables.tabular(dataset, standardize=False), part).read(None).data
  x_NF = plain['features']
  if 'code' in rows:  # The second of diabetes, behind the numbers as one-hot.
    x_NF = np.concatenate([np.delete(x_NF, 1, 1), np.eye(3)[rows['code'][:, 0]]], 1)
  return x_NF.astype(np.float32), rows


@pytest.mark.parametrize('model, dataset', OWN)
def test_figures_are_those_of_scikit_learn(model, dataset):
  config = table_trees.Config(
    model=model, dataset=dataset, trees=5, max_leaves=12, seed=1
  )
  built = table_trees.build(config)
  assert built.warm_start is not None
  state, origin = built.warm_start(built.init(jax.random.key(0)))
  x_NF, train = split(dataset, 'train')
  x_BF, test = split(dataset, 'test')
  field = 'label' if dataset == 'wine' else 'target'
  data = columns.table(dataset)
  own = OWN[model, dataset].fit(x_NF, train[field])
  assert origin['examples'] == len(x_NF)
  assert origin['estimator'] == type(own).__name__
  weighted = {**test, 'weight': np.ones(len(x_BF), np.float32)}
  found = jax.jit(built.evals['test'].step)(state, weighted)
  found = jax.jit(built.evals['test'].summarize)(found)
  row = {c.name: x_BF[:, i] for i, c in enumerate(data.numbers)}
  if dataset == 'wine':
    assert found['accuracy'] == pytest.approx(own.score(x_BF, test['label']), abs=1e-6)
    assert found['linear_accuracy'] == 1
  else:
    row['sex'] = test['code'][:, 0]
    error = (own.predict(x_BF) - test['target']) * data.target_std
    assert found['rmse'] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
  assert found['fitted'] > 0
  answers = jax.jit(built.functions['predict'].call)(state, row)
  # Of rows as measured, in which numbers are equal to thresholds.
  if dataset == 'wine':
    np.testing.assert_allclose(
      answers['probabilities'], own.predict_proba(x_BF), atol=2e-5
    )
  else:
    want = own.predict(x_BF) * data.target_std + data.target_mean
    np.testing.assert_allclose(answers['target'], want, rtol=1e-5)


def test_a_number_equal_to_a_threshold_goes_left_in_any_rounding():
  """3 may come back as 3 (1 + 2^-22) from deviations of 2 around 10."""
  leaf = np.array([False, True, True])
  to = np.array([1, 0, 0]), np.array([2, 0, 0])
  threshold = np.array([3.0, 0, 0])
  tree = trees.Nodes(np.array([0, -2, -2]), threshold, *to, leaf)
  wide = table_trees.widened(tree, np.float32([2.0]), np.float32([10.0]))
  packed = trees.pack([wide], 1, 3)
  x_B1 = np.float32([[3 * (1 - 2**-22)], [3], [3 * (1 + 2**-22)], [3.0001]])
  np.testing.assert_array_equal(trees.leaves(packed, x_B1)[:, 0], [1, 1, 1, 2])


def test_a_wrong_code_has_no_answer():
  built = table_trees.build(table_trees.SMALL)
  state = built.init(jax.random.key(0))
  row = {c.name: np.float32([c.mean] * 2) for c in columns.table('diabetes').numbers}
  found = built.functions['predict'].call(state, {**row, 'sex': np.int32([9, 0])})
  np.testing.assert_array_equal(np.isnan(found['target']), [True, False])


@pytest.mark.parametrize(
  'fields, says',
  (
    ({'model': 'tree'}, 'model=tree is not allowed: must be forest or boosting'),
    ({'least_rows': 0}, 'least_rows=0 is not allowed: must be at least 1'),
    ({'ema_decay': 0.9}, 'ema_decay=0.9 .* scikit-learn fits'),
  ),
)
def test_refused(fields, says):
  with pytest.raises(ConfigError, match=says):
    table_trees.Config(**fields)
