"""California housing: both files on small tables, then the published ones."""

import io
import pathlib
import tarfile

import numpy as np
import pytest

from dlx.data.formats import housing
from dlx.errors import DataError
from tests.dlx.data import real_data

ROWS = np.array(
  [
    [-122.23, 37.88, 41, 880, 129, 322, 126, 8.3252, 452600],
    [-122.22, 37.86, 21, 7099, 1106, 2401, 1138, 8.3014, 358500],
    [-122.24, 37.85, 52, 1467, 190, 496, 177, 7.2574, 352100],
  ]
)
DATA = '\n'.join(','.join(f'{c:f}' for c in row) for row in ROWS) + '\n'


def csv(rows=ROWS, absent=(), end='\n') -> str:
  lines = [','.join([*housing.FEATURES, housing.TARGET, 'ocean_proximity'])]
  for n, row in enumerate(rows):
    cells = [str(c) for c in row]
    if n in absent:
      cells[4] = ''
    lines.append(','.join([*cells, 'NEAR BAY']))
  return end.join(lines) + end


def folder(tmp_path, **contents: str):
  place = tmp_path / housing.NAME
  place.mkdir(exist_ok=True)
  for name, content in contents.items():
    (place / name.replace('__', '.')).write_text(content, newline='')
  return tmp_path


def read(*args, **kwargs):
  """What is read, where there is something to read."""
  loaded = housing.read(*args, **kwargs)
  assert loaded is not None
  return loaded


@pytest.mark.parametrize(
  'contents',
  [
    {'cal_housing__data': DATA},
    {'housing__csv': csv()},
    {'housing__csv': csv(end='\r\n')},
  ],
)
def test_both_files_give_one_table(tmp_path, contents):
  table = read(folder(tmp_path, **contents), num_rows=3)
  np.testing.assert_array_equal(table.features, ROWS[:, :8])
  np.testing.assert_array_equal(table.target, ROWS[:, 8])


def test_archive(tmp_path):
  place = folder(tmp_path) / housing.NAME
  with tarfile.open(place / 'cal_housing.tgz', 'w:gz') as tar:
    info = tarfile.TarInfo('CaliforniaHousing/cal_housing.data')
    info.size = len(DATA)
    tar.addfile(info, io.BytesIO(DATA.encode()))
  table = read(tmp_path, num_rows=3)
  np.testing.assert_array_equal(table.target, ROWS[:, 8])


def test_the_complete_table_is_preferred(tmp_path):
  contents = {'cal_housing__data': DATA, 'housing__csv': csv(absent=[1])}
  table = read(folder(tmp_path, **contents), num_rows=3)
  assert not np.isnan(table.features).any()


def test_a_missing_count_is_nan_and_changes_no_sum(tmp_path):
  table = read(folder(tmp_path, housing__csv=csv(absent=[1])), num_rows=3)
  assert np.argwhere(np.isnan(table.features)).tolist() == [[1, 4]]
  rows = housing.parse(csv(absent=[1]).encode(), 'f')
  assert housing.values_sha256(rows) == housing.values_sha256(ROWS)
  other = ROWS.copy()
  other[2, 3] += 1
  assert housing.values_sha256(other) != housing.values_sha256(ROWS)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('1,2,3\n', 'row 1: expected 9 cells, found 3'),
    ('a,b,c,d,e,f,g,h,i\n', 'could not convert'),
    ('longitude,latitude\n1,2\n', 'expected the columns longitude, latitude'),
  ],
)
def test_another_table(content, message):
  with pytest.raises(DataError, match=f'file: .*{message}'):
    housing.parse(content.encode(), 'file')


def test_truncated(tmp_path):
  with pytest.raises(DataError, match=r'data: truncated: expected 20640 rows, found 3'):
    read(folder(tmp_path, cal_housing__data=DATA))


def test_other_numbers(tmp_path, monkeypatch):
  monkeypatch.setattr(housing, 'NUM_ROWS', 3)
  with pytest.raises(DataError, match='not the published numbers'):
    read(folder(tmp_path, cal_housing__data=DATA), num_rows=3)


def test_nothing_there(tmp_path):
  assert housing.read(tmp_path) is None


class TestPublished:
  @pytest.mark.parametrize('file', ('cal_housing.data', 'housing.csv'))
  def test_another_count_of_bedrooms_is_not_verified(self, file):
    path = pathlib.Path(real_data.folder(f'california_housing/{file}'))
    path = path / 'california_housing' / file
    rows = housing.parse(path.read_bytes(), path)
    rows[7, 4] += 1
    with pytest.raises(DataError, match='not the published numbers .* total_bedrooms'):
      housing._check(rows, path, 0, {}, housing.NUM_ROWS)

  def test_both_files(self, tmp_path):
    raw = real_data.folder('california_housing/housing.csv')
    table = read(raw)
    assert table.record['verified'] and table.features.shape == (20640, 8)
    assert (table.target.min(), table.target.max()) == (14999, 500001)
    (tmp_path / housing.NAME).mkdir()
    (tmp_path / housing.NAME / 'housing.csv').symlink_to(
      f'{raw}/california_housing/housing.csv'
    )
    other = read(tmp_path)
    assert other.record['verified'] and np.isnan(other.features).sum() == 207
    np.testing.assert_array_equal(other.target, table.target)

  def test_least_squares_on_all_rows(self):
    table = read(real_data.folder('california_housing'))
    x = np.column_stack([table.features, np.ones(len(table.target))])
    residual = table.target - x @ np.linalg.lstsq(x, table.target, rcond=None)[0]
    # Recomputed by another program on the same file: R2 0.6371, RMSE 69513.5.
    assert np.sqrt((residual**2).mean()) == pytest.approx(69513.5, abs=0.05)
    assert 1 - residual.var() / table.target.var() == pytest.approx(0.6371, abs=5e-5)
