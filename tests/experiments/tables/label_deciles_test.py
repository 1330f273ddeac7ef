"""Bins of a target: of the training rows alone, the baseline, what predict tells."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from dlx.data import quantiles
from dlx.data.prepare import table
from dlx.data.sets import columns
from dlx.errors import ConfigError
from experiments.tables import label_deciles


def small(**fields):
  return label_deciles.Config.small(**{'features': (8,), **fields})


def fitted(**fields):
  """The experiment and its state before step 0."""
  built = label_deciles.build(small(**fields))
  state = jax.jit(built.init)(jax.random.key(0))
  assert built.warm_start is not None
  state, origin = built.warm_start(state)
  return built, state, origin


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A function that writes a table of 40 training and 10 test rows; price = 10 size."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  monkeypatch.setattr(table.rows, 'divided', lambda n, *_: np.arange(n) >= 40)

  def write(name, prices):
    rows = [f'{p / 10},{"ab"[i % 2]},{p}' for i, p in enumerate(prices)]
    (tmp_path / f'{name}.csv').write_text('\n'.join(['size,kind,price', *rows]) + '\n')
    table.prepare(tmp_path / f'{name}.csv', name, target='price', repeats='keep')

  return write


def test_no_edge_depends_on_the_test_targets(own):
  train = np.random.default_rng(0).permutation(40)
  own('one', [*train, *range(10)])
  own('other', [*train, *range(5000, 5010)])
  one, other = (fitted(dataset=name)[1].model_state for name in ('one', 'other'))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  # They do depend on those of training, in the unit of the target: by hand.
  assert fitted(dataset='one', bins=4)[2]['edges'] == pytest.approx([9, 19, 29])


def test_no_edge_depends_on_the_rows_that_are_held_out(own):
  own('one', range(50))
  config = small(dataset='one', validation=0.25, bins=4)
  built, state, origin = fitted(dataset='one', validation=0.25, bins=4)
  assert origin['examples'] == 30 and set(built.evals) == {'validation', 'test'}
  rows, _ = label_deciles.parts(columns.table('one').train, config)
  want = quantiles.fit(rows.read(None).data['target'], 4)
  found = state.model_state['fitted']
  np.testing.assert_array_equal(found['edges'], want.edges)
  assert found['counts'].max() - found['counts'].min() <= 1


def test_equal_targets_leave_bins_empty(own):
  own('one', [*range(20), *[20] * 20, *range(10)])
  assert fitted(dataset='one', bins=10)[2]['filled'] == 6


@pytest.fixture(scope='module')
def diabetes():
  return fitted(bins=10)


def rows_of(split):
  data = getattr(columns.table('diabetes'), split).read(None).data
  return {**data, 'weight': np.ones(len(data['target']), np.float32)}


def reported(built, state):
  found = jax.jit(built.evals['test'].step)(state, rows_of('test'))
  return jax.tree.map(np.asarray, jax.jit(built.evals['test'].summarize)(found))


def test_the_baseline_is_that_of_scikit_learn(diabetes):
  built, state, _ = diabetes
  train, test = rows_of('train'), rows_of('test')
  hot = lambda rows: np.concatenate([rows['number'], rows['code']], 1)
  guess = LinearRegression().fit(hot(train), train['target']).predict(hot(test))
  edges = quantiles.fit(train['target'], 10).edges
  guessed, true = (np.searchsorted(edges, x) for x in (guess, test['target']))
  found = reported(built, state)
  assert found['linear_accuracy'] == pytest.approx((guessed == true).mean(), abs=1e-6)
  want = np.abs(guessed - true).mean()
  assert found['linear_distance'] == pytest.approx(want, rel=1e-5)
  known = columns.table('diabetes').baseline['rmse']
  assert found['linear_rmse'] == pytest.approx(known, rel=1e-5)
  assert found['filled'] == 10


def test_figures_of_a_net_by_numpy(diabetes):
  built, state, _ = diabetes
  test, fit = rows_of('test'), jax.tree.map(np.asarray, state.model_state['fitted'])
  data = columns.table('diabetes')
  row = {'sex': test['code'][:, 0]}
  for i, c in enumerate(data.numbers):
    row[c.name] = (test['number'][:, i] * c.std + c.mean).astype(np.float32)
  found = jax.jit(built.functions['predict'].call)(state, row)
  share, told = np.asarray(found['probabilities']), reported(built, state)
  true = np.searchsorted(fit['edges'], test['target'])
  best = share.argmax(1)
  assert told['accuracy'] == pytest.approx((best == true).mean(), abs=1e-6)
  assert told['distance'] == pytest.approx(np.abs(best - true).mean(), rel=1e-5)
  among = (np.argsort(-share, 1)[:, :3] == true[:, None]).any(1)
  assert told['top_k'] == pytest.approx(among.mean(), abs=1e-6)
  unit = lambda x: np.asarray(x) * data.target_std + data.target_mean
  np.testing.assert_allclose(found['target'], unit(share @ fit['middle']), rtol=1e-4)
  np.testing.assert_allclose(found['low'], unit(fit['low'])[best], rtol=1e-5)
  np.testing.assert_allclose(found['high'], unit(fit['high'])[best], rtol=1e-5)
  error = np.asarray(found['target']) - unit(test['target'])
  assert told['rmse'] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
  # Of the training rows as they are published.
  assert unit(fit['low'])[0] == pytest.approx(25, abs=1e-3)
  assert unit(fit['high'])[-1] == pytest.approx(346, abs=1e-3)


def test_a_wrong_code_has_no_interval(diabetes):
  built, state, _ = diabetes
  row = {c.name: np.float32([c.mean]) for c in columns.table('diabetes').numbers}
  found = built.functions['predict'].call(state, {**row, 'sex': np.int32([9])})
  assert all(np.isnan(x).all() for x in found.values())


def test_no_step_changes_what_is_fitted():
  built, state, _ = fitted(ordered=True, model='ft_transformer', bins=5)
  batch = {k: x[:16] for k, x in rows_of('train').items()}
  new, sums = jax.jit(built.train_step)(state, batch)
  jax.tree.map(np.testing.assert_array_equal, state.model_state, new.model_state)
  assert np.isfinite(sums['loss'].total)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, new.params)
  assert moved['ordinal']['first'] and moved['net']['start']


@pytest.mark.parametrize(
  'fields, says',
  (
    ({'bins': 1}, '--config.bins=1 is not allowed: must be in'),
    ({'bins': 3}, '--config.top=3 is not allowed: must be below bins=3'),
    ({'bins': 354}, '--config.bins=354 is not allowed: must be at most the 353'),
    ({'dataset': 'wine'}, '--config.dataset=wine is not allowed: must be a table'),
    ({'model': 'forest'}, '--config.model=forest is not allowed: must be one of mlp'),
  ),
)
def test_refused_in_one_line(fields, says):
  with pytest.raises(ConfigError, match=says) as found:
    label_deciles.build(label_deciles.Config(**fields))
  assert '\n' not in str(found.value)
