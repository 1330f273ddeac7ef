"""Tables by columns, by hand: numbers, marks of what is missing, codes, batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.streamed import ShuffledStream
from dlx.data.prepare import dates, table
from dlx.data.sets import columns, facts, registry, tables
from dlx.errors import DataError

# Of the numbers 1, 1, 3 and 7 the median is 2, and 1, 1, 3, 7, 2, 2 have the mean 8/3.
A = ('1', '1', '3', '7', '', '?')
TOWN = ('Bern', 'Basel', 'Bern', 'Basel', 'NA', 'Bern')


def written(tmp_path, more='', **options):
  """A set whose training rows are those above, and whose test rows are `more`."""
  rows = [f'{a},{town},{i},{i}' for i, (a, town) in enumerate(zip(A, TOWN))]
  text = '\n'.join(['a,town,b,y', *rows, *more.split()]) + '\n'
  (tmp_path / 'own.csv').write_text(text)
  return table.prepare(tmp_path / 'own.csv', 'own', target='y', **options)


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Six training rows in their order, and two test rows: one of an unknown town."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))

  def chosen(size, *args):
    return np.arange(size) >= 6

  monkeypatch.setattr(table.rows, 'divided', chosen)
  return written(tmp_path, '5,Chur,9,6 ,Bern,,7').card


def test_the_card_says_which_columns_there_are(own):
  assert own.facts['feature_names'] == ['a', 'town=Basel', 'town=Bern', 'b']
  assert facts.columns(own.facts) == [
    ('a', ()), ('town', ('Basel', 'Bern')), ('b', ())
  ]  # fmt: skip
  assert own.facts['missing'] == [2, 0, 0, 0]
  old = {k: x for k, x in own.facts.items() if k not in ('columns', 'missing')}
  assert facts.columns(old) == [(name, ()) for name in own.facts['feature_names']]


def test_numbers_marks_and_codes_by_hand(own):
  data = columns.table('own')
  assert [c.name for c in data.numbers] == ['a', 'b']
  assert data.categories == (columns.Category('town', ('Basel', 'Bern')),)
  train, test = (s.read(None).data for s in (data.train, data.test))
  np.testing.assert_array_equal(train['code'][:, 0], [2, 1, 2, 1, 0, 2])
  np.testing.assert_array_equal(test['code'][:, 0], [0, 2])  # Chur is unknown.
  # `b` lacks no number in training: no mark, though the test does.
  np.testing.assert_array_equal(train['missing'][:, 0], [0, 0, 0, 0, 1, 1])
  np.testing.assert_array_equal(test['missing'][:, 0], [0, 1])
  a = np.array([1, 1, 3, 7, 2, 2.0])
  want = (a - 8 / 3) / np.sqrt(((a - 8 / 3) ** 2).mean())
  np.testing.assert_allclose(train['number'][:, 0], want, rtol=1e-6)
  mean, std = 2.5, np.sqrt(35 / 12)  # Of 0 to 5.
  np.testing.assert_allclose(
    test['number'][:, 1], [(9 - mean) / std, 0], rtol=1e-6, atol=1e-7
  )
  np.testing.assert_allclose(train['target'], (np.arange(6) - mean) / std, rtol=1e-6)
  assert (data.target_mean, data.target_std) == pytest.approx((mean, std))


def test_rows_as_a_person_has_them(own):
  made = columns.as_measured('own')
  parts = {k: source.read(None).data for k, source in made.items() if source}
  assert set(parts) == {'train', 'test'}
  found = parts['train']
  assert set(found) == {'features', 'target', 'column a', 'column town', 'column b'}
  np.testing.assert_array_equal(found['column a'], [1, 1, 3, 7, np.nan, np.nan])
  assert list(found['column town']) == ['Bern', 'Basel', 'Bern', 'Basel', '', 'Bern']
  np.testing.assert_array_equal(found['features'][:, 0], [1, 1, 3, 7, 2, 2])
  assert list(parts['test']['column town']) == ['', 'Bern']  # Chur is unknown.
  np.testing.assert_array_equal(parts['test']['column b'], [9, np.nan])
  np.testing.assert_array_equal(parts['test']['target'], [6, 7])
  for part, source in made.items():
    assert source is not None and {k: x.dtype for k, x in source.shapes.items()} == {
      k: x.dtype for k, x in parts[part].items()
    }


def test_without_a_mark_or_refused(own):
  data = columns.table('own', 'median')
  assert set(data.train.shapes) == {'number', 'code', 'target'}
  np.testing.assert_array_equal(
    data.train.read(None).data['number'],
    columns.table('own').train.read(None).data['number'],
  )
  data = columns.table('own', 'refuse')
  with pytest.raises(DataError, match=r"own/train: row 4 .from 0., column 'a': the"):
    data.train.read(None)
  with pytest.raises(DataError, match="own/test: row 1 .from 0., column 'a'"):
    data.test.read(None)


def test_a_row_as_measured_has_the_fields_of_the_source(own):
  data = columns.table('own')
  raw = {
    'a': jnp.array([5, np.nan], jnp.float32),
    'b': jnp.array([9, np.nan], jnp.float32),
    'town': jnp.array([0, 2]),
  }
  found, want = data.fields(raw), data.test.read(None).data
  assert set(found) == {'number', 'missing', 'code'}
  for field, x in found.items():
    np.testing.assert_allclose(x, want[field], rtol=1e-6, atol=1e-7)


def test_rows_are_converted_by_parts(own, monkeypatch):
  whole = columns.table('own').train.read(None).data
  monkeypatch.setattr(columns, '_CHUNK', 4)
  for field, x in columns.table('own').train.read(None).data.items():
    np.testing.assert_array_equal(x, whole[field])


def test_batches_are_of_seed_and_step_and_processes_read_their_rows(own):
  """Six rows by fours: after three batches each was there twice."""
  source = columns.table('own').train
  resident = Shuffled(source, 4, seed=3)
  stream = ShuffledStream(source, 4, seed=3)
  arrays = resident.load().data
  seen = []
  for step in range(3):
    batch = {k: np.asarray(x) for k, x in resident.get(arrays, step).items()}
    parts = [stream.get(arrays, step, slice(i, i + 2)) for i in (0, 2)]
    for field, x in batch.items():
      np.testing.assert_array_equal(x, np.concatenate([p[field] for p in parts]))
    seen += batch['target'].tolist()
  assert sorted(seen[:6]) == sorted(seen[6:]) == sorted(arrays['target'].tolist())
  assert seen[:6] != seen[6:] and seen[:6] != arrays['target'].tolist()
  other = Shuffled(source, 4, seed=4).get(arrays, 0)
  assert np.asarray(other['target']).tolist() != seen[:4]
  last = InOrder(source, 4).get(arrays, 1)
  np.testing.assert_array_equal(last['weight'], [1, 1, 0, 0])


@pytest.mark.parametrize('name', ('diabetes', 'wine', 'breast_cancer'))
def test_known_sets_are_those_of_tables(name):
  data, plain = columns.table(name), tables.tabular(name)
  train, want = (x.train.read(None).data for x in (data, plain))
  assert {k: (x.shape[1:], x.dtype) for k, x in train.items()} == {
    k: (x.shape, x.dtype) for k, x in data.train.shapes.items()
  }
  kept = [
    i for i, n in enumerate(plain.feature_names) if (name, n) != ('diabetes', 'sex')
  ]
  # float32 of the raw value, some hundred deviations from 0.
  np.testing.assert_allclose(
    train['number'], want['features'][:, kept], rtol=1e-4, atol=1e-4
  )
  assert len(data.class_names) == (plain.num_classes or 0)
  if name == 'diabetes':
    sex = tables.tabular(name, standardize=False).train.read(None).data['features']
    np.testing.assert_array_equal(train['code'][:, 0], sex[:, 1])
    assert data.categories[0].values == ('1', '2')


def test_dates_count_from_a_day_of_their_own(tmp_path, monkeypatch):
  """Ten minutes are told apart, which float32 of days since 1970 could not."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  monkeypatch.setattr(table.rows, 'divided', lambda n, *_: np.arange(n) >= 6)
  text = ''.join(f'2026-11-30T12:{i:02},{i}\n' for i in range(8))
  (tmp_path / 'own.csv').write_text('at,y\n' + text)
  card = table.prepare(tmp_path / 'own.csv', 'own', target='y').card
  assert facts.dates(card.facts) == {'at'} and facts.columns(card.facts) == [('at', ())]
  assert facts.dates({'feature_names': ['at']}) == set()
  assert facts.dates({'feature_names': ['at'], 'columns': None}) == set()
  data = columns.table('own')
  (number,) = data.numbers
  assert number.since == 20787
  minutes = np.arange(8)
  want = (minutes - 2.5) / np.sqrt(35 / 12)  # Of 0 to 5.
  found = data.test.read(None).data['number'][:, 0]
  np.testing.assert_allclose(found, want[6:], rtol=1e-5)
  row = {'at': jnp.asarray(0.5 + minutes / 1440, jnp.float32)}
  found = data.fields(row)['number'][:, 0]
  # A half, to float32, over the deviation in days.
  bound = 4 * np.finfo(np.float32).eps * 0.5 / number.std
  np.testing.assert_allclose(found, want, atol=bound)
  source = columns.as_measured('own')['test']
  assert source is not None and source.shapes['column at'].dtype == np.float64
  measured = source.read(None).data['column at']
  np.testing.assert_array_equal(
    measured, dates.days(['2026-11-30T12:06', '2026-11-30T12:07'])[0]
  )


def test_names(own):
  assert 'own' not in registry.SETS
  assert columns.table('own').baseline == tables.tabular('own').baseline
