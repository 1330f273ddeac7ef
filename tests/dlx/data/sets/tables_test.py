"""Tables by name: shapes, splits, and no leakage from the test rows."""

import jax
import numpy as np
import pytest

from dlx.data.formats import housing
from dlx.data.sets import registry, scikit, tables
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data


def data_dir(name):
  return real_data.folder(housing.NAME) if name == housing.NAME else None


@pytest.mark.parametrize('name', registry.names('tables'))
def test_source_gives_what_it_declares(name):
  data = tables.tabular(name)
  for source in (data.train, data.test):
    loaded = source.read(data_dir(name))
    got = {
      k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in loaded.data.items()
    }
    assert got == source.shapes
    assert {len(v) for v in loaded.data.values()} == {source.size}
    assert loaded.origin['size'] == source.size
    assert all(np.isfinite(v).all() for v in loaded.data.values())
  assert len(data.feature_names) == data.num_features == len(set(data.feature_names))


@pytest.mark.parametrize('name', registry.names('tables'))
def test_statistics_are_those_of_the_training_split(name):
  data = tables.tabular(name)
  raw = tables.tabular(name, standardize=False)
  folder = data_dir(name)
  train = raw.train.read(folder).data['features'].astype(np.float64)
  for source, plain in ((data.train, raw.train), (data.test, raw.test)):
    want = (plain.read(folder).data['features'] - train.mean(0)) / train.std(0)
    # float32 of the raw value, up to 2e5 deviations from 0 relative to the deviation.
    scale = 1 + abs(train).max(0) / train.std(0)
    got = source.read(folder).data['features']
    assert (abs(got - want) <= 4 * np.finfo(np.float32).eps * scale).all()
  got = data.test.read(folder).data['features']
  assert abs(got.mean(0)).max() > 1e-3  # The test split is not centred by itself.


@pytest.mark.parametrize('name', ['diabetes', housing.NAME])
def test_scaled_targets_can_be_undone(name):
  raw, scaled = tables.tabular(name), tables.tabular(name, scale_target=True)
  assert raw.target_std is not None
  folder = data_dir(name)
  target = raw.train.read(folder).data['target'].astype(np.float64)
  assert raw.target_mean == pytest.approx(target.mean(), rel=1e-12)
  assert raw.target_std == pytest.approx(target.std(), rel=1e-12)
  for kind in ('train', 'test'):
    loaded = getattr(scaled, kind).read(folder)
    back = loaded.data['target'].astype(np.float64) * loaded.origin['target_std']
    back = back + loaded.origin['target_mean']
    want = getattr(raw, kind).read(folder).data['target']
    # Half an ulp of float32 of the scaled target, 6e-8 |want - mean|: at the smallest
    # house value, a fourteenth of the mean, 8e-7 of it.
    np.testing.assert_allclose(back, want, rtol=1e-6)


@pytest.mark.parametrize('name', registry.names('tables'))
def test_rows_as_measured_are_scaled_to_those_of_the_source(name):
  raw, scaled = tables.tabular(name, standardize=False), tables.tabular(name)
  folder = data_dir(name)
  rows = raw.test.read(folder).data['features'].astype(np.float64)
  found = (rows - np.array(raw.feature_mean)) / np.array(raw.feature_std)
  want = scaled.test.read(folder).data['features']
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', registry.names('tables'))
def test_baseline_is_least_squares(name):
  data = tables.tabular(name)
  folder = data_dir(name)
  train, test = data.train.read(folder).data, data.test.read(folder).data
  with_one = lambda x: np.column_stack([x.astype(np.float64), np.ones(len(x))])
  one_hot = np.eye(data.num_classes or 1)
  target = train['target'] if 'target' in train else one_hot[train['label']]
  weights = np.linalg.lstsq(with_one(train['features']), target, rcond=None)[0]
  guess = with_one(test['features']) @ weights
  if data.num_classes is None:
    rmse = np.sqrt(((guess - test['target']) ** 2).mean())
    # Features rounded to float32 move the fit by parts in 1e6.
    assert data.baseline == {'rmse': pytest.approx(rmse, rel=1e-5)}
  else:
    accuracy = (guess.argmax(1) == test['label']).mean()
    assert data.baseline == {'accuracy': accuracy}


@pytest.mark.parametrize('name', ['wine', 'breast_cancer'])
def test_classes_are_stratified(name):
  data = tables.tabular(name)
  label = scikit.table(name)[1]
  share = np.bincount(label) / len(label)
  got = np.bincount(data.test.read(None).data['label'])
  assert data.test.size is not None
  assert (abs(got - data.test.size * share) < 1).all()


def test_missing_numbers_take_the_median_of_the_training_rows():
  train = np.array([[1.0, 5.0], [2.0, np.nan], [9.0, 7.0]])
  rows = np.array([[np.nan, 100.0], [3.0, np.nan]])
  filled, count = tables.fill(rows, train)
  assert filled.tolist() == [[2, 100], [3, 6]] and count == 2
  assert tables.fill(rows[:0], train)[1] == 0


def test_a_constant_column_stays_finite():
  train = np.array([[1.0, 5.0], [1.0, 7.0]])
  got = tables.standardized(np.array([[1.0, 6.0], [2.0, 8.0]]), train)
  assert got.tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize('dtype', (np.float64, np.float32))
def test_a_column_is_constant_whatever_its_mean_is_rounded_to(dtype):
  """The mean of 353 times 0.1 is not 0.1, and the deviation 1e-17."""
  train = np.full((353, 1), 0.1, dtype)
  got = tables.standardized(np.array([[0.1], [1.1]], dtype), train)
  np.testing.assert_allclose(got, [[0], [1]], atol=353 * np.finfo(dtype).eps)
  small = np.array([[1e-20], [3e-20]], dtype)  # Small, not constant.
  np.testing.assert_allclose(tables.standardized(small, small), [[-1], [1]], rtol=1e-5)


def test_a_column_without_any_number_is_refused():
  train = np.array([[1.0, np.nan], [2.0, np.nan]])
  with pytest.raises(DataError, match='column 1 .* no number'):
    tables.fill(np.array([[1.0, np.nan]]), train)


def test_csv_alone_is_filled(tmp_path):
  raw = real_data.folder('california_housing/housing.csv')
  (tmp_path / housing.NAME).mkdir()
  (tmp_path / housing.NAME / 'housing.csv').symlink_to(
    f'{raw}/california_housing/housing.csv'
  )
  data = tables.tabular(housing.NAME)
  loaded = [s.read(tmp_path) for s in (data.train, data.test)]
  assert sum(x.origin['filled_with_median'] for x in loaded) == 207
  assert all(np.isfinite(x.data['features']).all() for x in loaded)


def test_refusals(tmp_path, monkeypatch):
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)
  with pytest.raises(ConfigError, match="dataset='vine'.*wine, breast_cancer"):
    tables.tabular('vine')
  with pytest.raises(ConfigError, match='scale_target=True is not allowed for wine'):
    tables.tabular('wine', scale_target=True)
  with pytest.raises(DataError, match=r'cal_housing.data.*dlx\[tfds\].*diabetes'):
    tables.tabular(housing.NAME).train.read(None)
