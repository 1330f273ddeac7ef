"""A CSV with missing values and categories, to a model, to a table of predictions."""

import csv
import io
import pathlib

import jax
import numpy as np
import pytest

import dlx
from dlx import runs
from dlx.data.prepare import table
from dlx.errors import ConfigError
from dlx.run import given
from experiments.tables import tabular
from launch import call
from tests.every_experiment.metrics_test import numbers

TOWNS = ('Bern', 'Basel', 'Chur')


@pytest.fixture
def flats(tmp_path, monkeypatch):
  """rent = 100 rooms + 500 in Basel; every fifth row lacks its rooms."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  rows = []
  for i in range(60):
    rooms, town = i % 7 + 1, TOWNS[i % 3]
    rent = 100 * rooms + 500 * (town == 'Basel')
    rows.append((town, '' if i % 5 == 4 else rooms, rent))
  text = 'town,rooms,rent\n' + ''.join(f'{a},{b},{c}\n' for a, b, c in rows)
  pathlib.Path('flats.csv').write_text(text)
  return tmp_path


def small(**fields):
  return tabular.Config.small(**{'features': (8,), 'log_every_steps': 6, **fields})


@pytest.mark.slow  # Two starts of a run, 15 s.
def test_from_a_csv_to_a_table_of_predictions(flats, capfd, caplog):
  table.prepare('flats.csv', 'flats', target='rent')
  config = small(dataset='flats', eval_every_steps=6)
  built = tabular.build(config)._replace(figures={})
  found = runs.fit(built, config, 'run', terminal=False)
  assert {'test/rmse', 'test/r2', 'test/mae', 'test/linear_rmse'} <= set(found.metrics)
  (flats / 'data').rename(flats / 'away')
  (flats / 'run').rename(flats / 'moved')
  run = dlx.open('moved')
  assert list(run.function('predict').inputs) == ['rooms', 'town']
  one = run.predict(rooms=3, town='Basel')
  many = run.predict(rooms=[3, np.nan, 3], town=['Basel', 'Bern', 'Zug'])
  assert np.shape(one) == () and one == pytest.approx(many[0], rel=1e-6)
  assert "town: training had no 'Zug' (1 row(s))" in caplog.text
  assert many[2] == run.predict(rooms=3, town='') != many[0]
  with pytest.raises(ConfigError, match='rooms is missing: give rooms .column, float'):
    run.predict(town='Bern')
  pathlib.Path('new.csv').write_text('id,town,rooms\n7,Basel,3\n8,Bern,NA\n')
  words = ['call', '--workdir=moved', 'predict', 'new.csv', '--out=table.csv']
  assert call.main(words) == 0
  rows = list(csv.DictReader(io.StringIO(pathlib.Path('table.csv').read_text())))
  assert [row['input'] for row in rows] == ['new.csv:1', 'new.csv:2']
  np.testing.assert_allclose([float(row['target']) for row in rows], many[:2], 1e-6)
  pathlib.Path('new.csv').write_text('town,rooms\nBasel,three\n')
  assert call.main(words) == 2
  assert (
    "new.csv: line 2, column 'rooms': 'three' is no number" in capfd.readouterr().err
  )


def test_what_is_predicted_is_what_is_evaluated(flats):
  table.prepare('flats.csv', 'flats', target='rent')
  built = tabular.build(small(dataset='flats'))
  state = jax.jit(built.init)(jax.random.key(0))
  data = tabular.columns.table('flats')
  test = data.test.read(None).data
  raw = (
    tabular.columns.cards.source(tabular.columns.cards.find('flats'), 'test')
    .read(None)
    .data
  )
  names = data.categories[0].values
  assert names == ('Basel', 'Bern', 'Chur')
  row = {'rooms': np.float32(raw['features'][:, 3]), 'town': test['code'][:, 0]}
  guess = jax.jit(built.functions['predict'].call)(state, row)['target']
  weight = np.ones(len(guess), np.float32)
  sums = jax.jit(built.evals['test'].step)(state, {**test, 'weight': weight})
  rmse = jax.jit(built.evals['test'].summarize)(sums)['rmse']
  want = np.sqrt(((guess - raw['target']) ** 2).mean())
  np.testing.assert_allclose(rmse, want, rtol=1e-5)


@pytest.fixture
def sales(tmp_path, monkeypatch):
  """Sold within an hour, for ten more each minute; every fifth time is unknown."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  at = lambda i: '' if i % 5 == 4 else f'2026-11-30T12:{i:02}+01:00'
  text = 'size,sold,price\n' + ''.join(f'{i % 7},{at(i)},{10 * i}\n' for i in range(60))
  pathlib.Path('sales.csv').write_text(text)
  table.prepare('sales.csv', 'sales', target='price')


def test_dates_from_a_csv_to_a_table_of_predictions(sales, capfd):
  config = small(dataset='sales')
  runs.fit(tabular.build(config)._replace(figures={}), config, 'run', terminal=False)
  run = dlx.open('run')
  texts = ['2026-11-30T11:05', '1969-12-31', 'NA']
  many = run.predict(size=[3, 3, 3], sold=texts)
  assert len(set(many.tolist())) == 3
  one = run.predict(size=3, sold=20787 + (11 * 60 + 5) / 1440)  # The first, in days.
  assert one == pytest.approx(many[0], rel=1e-6)
  text = 'sold,size\n' + ''.join(f'{sold},3\n' for sold in texts)
  pathlib.Path('new.csv').write_text(text)
  words = ['call', '--workdir=run', 'predict']
  assert call.main([*words, 'new.csv', '--out=table.csv']) == 0
  rows = list(csv.DictReader(io.StringIO(pathlib.Path('table.csv').read_text())))
  np.testing.assert_allclose([float(row['target']) for row in rows], many, 1e-6)
  assert call.main([*words, 'size=3', f'sold={texts[0]}', '--out=one.csv']) == 0
  rows = list(csv.DictReader(io.StringIO(pathlib.Path('one.csv').read_text())))
  assert float(rows[0]['target']) == pytest.approx(many[0], rel=1e-6)
  assert call.main([*words, '--dataset=sales', '--out=all.csv']) == 0
  rows = list(csv.DictReader(io.StringIO(pathlib.Path('all.csv').read_text())))
  error = [float(row['target']) - float(row['true_target']) for row in rows]
  assert np.sqrt(np.mean(np.square(error))) == pytest.approx(
    run.metrics['test/rmse'], rel=1e-4
  )
  for words_of, says in (
    (['size=3', 'sold=soon'], "sold='soon' is not allowed: must be a date, e.g. 2026"),
    (['size=2026-11-30', 'sold=NA'], 'size=2026-11-30 is not allowed: must be numbers'),
  ):
    assert call.main([*words, *words_of]) == 2
    assert says in capfd.readouterr().err
  pathlib.Path('new.csv').write_text('sold,size\n2026-11-31,3\n')
  assert call.main([*words, 'new.csv']) == 2
  told = capfd.readouterr().err
  assert "new.csv: line 2, column 'sold': '2026-11-31' is no date, e.g. 2026-" in told


def test_dates_that_are_predicted_are_those_that_are_evaluated(sales):
  """Minutes of one hour: what `predict` reads of a text is what the source has."""
  built, data = tabular.build(small(dataset='sales')), tabular.columns.table('sales')
  fields = built.functions['predict'].inputs
  assert fields['size'].since is None and fields['sold'].since == 20787
  source = tabular.columns.as_measured('sales')['test']
  assert source is not None
  measured = source.read(None).data
  row = {k: given.read(k, f, measured[f'column {k}']).rows for k, f in fields.items()}
  found, want = data.fields(row), data.test.read(None).data
  assert set(found) == {'number', 'missing'}
  # float32 of a part of a day, over a deviation of 17 minutes.
  for field, x in found.items():
    np.testing.assert_allclose(x, want[field], rtol=1e-4, atol=1e-4)


def test_the_target_decides_what_is_reported():
  built = tabular.build(small(dataset='wine'))
  reported = numbers(built)
  assert {'accuracy', 'f1', 'ece', 'linear_accuracy', 'loss'} <= set(reported['test'])
  assert set(reported['test']) <= set(built.metrics)
  field = built.functions['predict'].outputs['probabilities']
  assert field.names == ('0', '1', '2') and set(built.figures) == {
    'confusion', 'reliability'
  }  # fmt: skip
  reported = numbers(tabular.build(small(validation=0.2)))
  assert (
    'linear_rmse' in reported['test'] and 'linear_rmse' not in reported['validation']
  )


def kernels(config):
  """Shapes of all kernels and tables."""
  built = tabular.build(config)
  params = jax.eval_shape(lambda: built.init(jax.random.key(0))).params
  return [x.shape for x in jax.tree.leaves(params) if len(x.shape) > 1]


def test_sizes_by_hand():
  """diabetes: nine numbers, and a category of two values that may lack."""
  assert kernels(small()) == [(3, 2), (8, 1), (9 + 2, 8)]
  assert kernels(small(embedding=5)) == [(3, 5), (8, 1), (9 + 5, 8)]
  assert kernels(small(embedding=0)) == [(8, 1), (9 + 3, 8)]
  assert kernels(small(model='linear')) == [(9 + 3, 1)]


def test_a_column_called_like_an_argument(flats):
  text = pathlib.Path('flats.csv').read_text().replace('rooms', 'resize', 1)
  pathlib.Path('flats.csv').write_text(text)
  table.prepare('flats.csv', 'flats', target='rent')
  with pytest.raises(ConfigError, match="has a column 'resize': rename it"):
    tabular.build(small(dataset='flats'))


@pytest.mark.parametrize(
  ('fields', 'says'),
  (
    (
      {'model': 'tree'},
      'model=tree is not allowed: must be one of mlp, linear, ft_tra',
    ),
    ({'numbers': 'sines'}, 'numbers=sines is not allowed: must be plain or periodic'),
    (
      {'model': 'linear', 'numbers': 'periodic'},
      'numbers=periodic is not allowed: must be plain: a linear model takes',
    ),
    ({'missing': 'drop'}, 'missing=drop is not .* one of indicator, median, refuse'),
    ({'features': ()}, 'features'),
    ({'embedding': -1}, 'embedding=-1'),
  ),
)
def test_refused(fields, says):
  with pytest.raises(ConfigError, match=says):
    tabular.Config(**fields)


@pytest.mark.parametrize('model', ('mlp', 'ft_transformer'))
def test_a_net_of_periodic_numbers_answers_row_by_row(flats, model):
  """Each row of the table counts for itself; a town that is unknown has an answer."""
  table.prepare('flats.csv', 'flats', target='rent')
  built = tabular.build(small(dataset='flats', model=model, numbers='periodic'))
  state = jax.jit(built.init)(jax.random.key(0))
  row = {'rooms': np.float32([3, np.nan, 3]), 'town': np.int32([1, 2, 0])}
  predict = jax.jit(built.functions['predict'].call)
  many = predict(state, row)['target']
  assert np.isfinite(many).all() and len(set(np.asarray(many).tolist())) == 3
  turned = predict(state, {k: x[::-1] for k, x in row.items()})['target']
  np.testing.assert_allclose(turned[::-1], many, rtol=1e-5)
