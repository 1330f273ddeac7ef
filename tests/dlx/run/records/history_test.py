"""What training has logged, as arrays: gaps, groups, members, and where it ends."""

import numpy as np

from dlx.run.records import history

LINES = (
  {'step': 2, 'split': 'train', 'metrics': {'loss': 3.0}},
  {'step': 2, 'split': 'test', 'metrics': {'loss': 9.0, 'accuracy': 0.5}},
  {
    'step': 4,
    'split': 'train',
    'metrics': {'loss': 2.0, 'penalty': 1.0},
    'groups': {'norms': {'a': 0.5}},
  },
  {
    'step': 5,
    'split': 'train',
    'metrics': {'loss': float('nan')},
    'groups': {'norms': {'a': 0.25, 'b': 7.0}},
  },
)


def test_lines_of_training_alone_with_nan_where_a_number_is_not_there():
  found = history.of_training(LINES)
  np.testing.assert_array_equal(found['step'], [2, 4, 5])
  assert set(found['metrics']) == {'loss', 'penalty'}
  np.testing.assert_array_equal(found['metrics']['loss'], [3, 2, np.nan])
  np.testing.assert_array_equal(found['metrics']['penalty'], [np.nan, 1, np.nan])
  assert set(found['groups']) == {'norms'}
  np.testing.assert_array_equal(found['groups']['norms']['a'], [np.nan, 0.5, 0.25])
  np.testing.assert_array_equal(found['groups']['norms']['b'], [np.nan, np.nan, 7])


def test_until_a_step_and_of_nothing():
  found = history.of_training(LINES, until=4)
  np.testing.assert_array_equal(found['step'], [2, 4])
  assert set(found['groups']['norms']) == {'a'}
  found = history.of_training(LINES[1:2])
  assert found['step'].shape == (0,) and found['metrics'] == found['groups'] == {}


def test_members_have_a_column_each_and_a_gap_is_one_of_all():
  lines = [
    {'step': i, 'split': 'train', 'metrics': {'loss': [i, 2.0 * i]}} for i in (1, 2)
  ]
  lines += [{'step': 3, 'split': 'train', 'metrics': {}}]
  found = history.of_training(lines)['metrics']['loss']
  np.testing.assert_array_equal(found, [[1, 2], [2, 4], [np.nan, np.nan]])
