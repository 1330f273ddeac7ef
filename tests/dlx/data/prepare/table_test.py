"""A CSV file becomes a set: hand-computed columns, splits, medians and baselines."""

import datetime
import json

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dlx.data.prepare import columns, dates, table
from dlx.data.sets import tables
from dlx.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))


def written(tmp_path, text: str | bytes, name='own.csv'):
  path = tmp_path / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def linear(n=10, extra=lambda i: '') -> str:
  """y = 2 a + 1; `extra` are more cells of row i."""
  head = 'a,y' + (',b' if extra(0) else '') + '\n'
  return head + ''.join(f'{i * i},{2 * i * i + 1}{extra(i)}\n' for i in range(n))


class TestColumns:
  @pytest.mark.parametrize(
    ('text', 'name'),
    (
      (b'\xef\xbb\xbfa,b\r\n1, x y \r\n\r\n2,"p,""q"""\r\n', 'own.csv'),
      ('a;b\n1;x y\n2;"p,""q"""\n', 'own.csv'),
      ('a\tb\n1\tx y\n2\t"p,""q"""', 'own.tsv'),
      ('a,b\n1,x y\n2,"p,""q"""\n'.encode('utf-16'), 'own.csv'),
      ('\n\na|b\n1|x y\n2|"p,""q"""\n', 'own.txt'),
    ),
  )
  def test_separators_marks_and_line_ends(self, tmp_path, text, name):
    found = columns.read(written(tmp_path, text, name))
    assert found.names == ['a', 'b']
    assert found.cells == [['1', 'x y'], ['2', 'p,"q"']]

  def test_lines_are_those_of_the_file(self, tmp_path):
    found = columns.read(written(tmp_path, 'a,b\n\n"1\n2",x\n3,y\n'))
    assert found.lines == [4, 5] and found.cells[0][0] == '1\n2'

  def test_other_encodings(self, tmp_path):
    path = written(tmp_path, 'a,b\n1,caf\xe9\n'.encode('latin-1'))
    assert columns.read(path, 'latin-1').cells == [['1', 'caf\xe9']]
    with pytest.raises(DataError, match='line 2: byte 9 is not utf-8: .*latin-1'):
      columns.read(path)
    with pytest.raises(ConfigError, match='--encoding=utf-9 is not known'):
      columns.read(path, 'utf-9')

  def test_numbers(self):
    value, wrong = columns.numbers(['1', '-2.5e1', 'NA', '', 'x', '1_0'])
    np.testing.assert_equal(value, [1, -25, np.nan, np.nan, np.nan, np.nan])
    assert wrong == [4, 5]

  @pytest.mark.parametrize(
    ('text', 'message'),
    (
      ('', 'own.csv: is empty'),
      (' \n', 'own.csv: is empty'),
      ('a,b\n', 'holds no row below'),
      ('a,b\n1,2\n1,2,3\n', 'line 3: has 3 cells, the first line has 2'),
      ('a,b,a\n1,2,3\n', "two columns are called 'a'"),
      ('a,,\n1,2,3\n', '2 columns have no name'),
      ('1,2\n3,4\n', 'the first line holds no names of columns'),
      ('a,b\n1,"2\n', 'line 2 or later: a quotation mark is not closed'),
      ('"a,b\n1,2\n', 'line 1 or later: a quotation mark is not closed'),
      ('a,b\n1,\0\n', 'line 2: holds a zero character'),
      ('PK\3\4 of own.xlsx', 'is a spreadsheet or a zip archive, no text: unpack it'),
      ('%PDF-1.7\na,b\n', 'is a PDF, no text'),
    ),
  )
  def test_what_cannot_be_taken(self, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
      columns.read(written(tmp_path, text))

  def test_no_file(self, tmp_path):
    with pytest.raises(DataError, match='other.csv: cannot be read'):
      columns.read(tmp_path / 'other.csv')


class TestNumbers:
  def test_least_squares_finds_a_line(self, tmp_path):
    made = table.prepare(written(tmp_path, linear()), 'own', target='y')
    assert made.card.facts['sizes'] == {'train': 8, 'test': 2}
    data = tables.tabular('own', scale_target=True)
    assert data.feature_names == ('a',) and data.num_classes is None
    assert data.baseline['rmse'] == pytest.approx(0, abs=1e-9)
    raw = tables.tabular('own', standardize=False)
    a, y = (np.concatenate([s.read(None).data[k][:] for s in (raw.train, raw.test)])
            for k in ('features', 'target'))  # fmt: skip
    assert sorted(a[:, 0]) == [i * i for i in range(10)]
    np.testing.assert_array_equal(y, 2 * a[:, 0] + 1)
    train, test = data.train.read(None).data, data.test.read(None).data
    for x in (train['features'][:, 0], train['target']):
      assert abs(x.mean()) < 1e-6 and abs(x.std() - 1) < 1e-6
    back = test['target'] * data.target_std + data.target_mean
    np.testing.assert_allclose(back, raw.test.read(None).data['target'], rtol=1e-6)
    measured = test['features'] * data.feature_std + data.feature_mean
    np.testing.assert_allclose(measured, raw.test.read(None).data['features'], 1e-6)

  def test_a_missing_number_takes_the_median_of_training(self, tmp_path):
    missing = lambda i: ',' + ('?' if i == 9 else '5' if i else '7')
    table.prepare(written(tmp_path, linear(10, missing)), 'own', target='y')
    data = tables.tabular('own', standardize=False)
    both = [s.read(None).data for s in (data.train, data.test)]
    rows = np.concatenate([x['features'] for x in both])
    assert rows[rows[:, 0] == 81, 1] == 5
    kept = (tmp_path / 'data' / 'own').glob('*/features.npy')
    assert sum(np.isnan(np.load(path)).sum() for path in kept) == 1

  def test_a_constant_column_is_divided_by_one(self, tmp_path):
    same = lambda i: ',0.1'
    card = table.prepare(written(tmp_path, linear(10, same)), 'own', target='y').card
    assert card.facts['std'][1] == 1
    features = tables.tabular('own').train.read(None).data['features']
    assert np.abs(features[:, 1]).max() < 1e-15

  def test_one_value_or_no_numbers(self, tmp_path):
    path = written(tmp_path, 'a,y\n' + ''.join(f'{i * i},3\n' for i in range(5)))
    with pytest.raises(DataError, match="column 'y' has one value"):
      table.prepare(path, 'own', target='y')
    path = written(tmp_path, linear().replace('3\n', 'abc\n', 1))
    with pytest.raises(DataError, match="line 3, column 'y': 'abc' is no number, as 9"):
      table.prepare(path, 'own', target='y')
    with pytest.raises(DataError, match="line 3, column 'y': 'abc' is no number"):
      table.prepare(path, 'own', target='y', predict='numbers')
    path = written(tmp_path, linear().replace('3\n', '\n', 1))
    with pytest.raises(DataError, match="line 3, column 'y': the target is missing"):
      table.prepare(path, 'own', target='y')
    path = written(tmp_path, linear().replace('3\n', 'inf\n', 1))
    with pytest.raises(DataError, match="line 3, column 'y': inf is not finite"):
      table.prepare(path, 'own', target='y')
    path = written(tmp_path, linear().replace('\n1,', '\n-inf,', 1))
    with pytest.raises(DataError, match="line 3, column 'a': -inf is not finite"):
      table.prepare(path, 'own', target='y')
    assert not (tmp_path / 'data' / 'own').exists()


class TestColumnsThatAreNoNumbers:
  def test_categories_are_one_feature_a_value(self, tmp_path):
    colour = lambda i: f',{("red", "blue", "")[i % 3]}'
    made = table.prepare(written(tmp_path, linear(30, colour)), 'own', target='y')
    assert made.card.facts['feature_names'] == ['a', 'b=blue', 'b=red']
    data = tables.tabular('own', standardize=False)
    for source in (data.train, data.test):
      for a, blue, red in source.read(None).data['features']:
        want = [(0, 1), (1, 0), (0, 0)][round(a**0.5) % 3]
        assert (blue, red) == want

  def test_codes_are_categories_where_that_is_said(self, tmp_path):
    code = lambda i: f',{i % 2}'
    path = written(tmp_path, linear(10, code))
    assert table.prepare(path, 'p', target='y').card.facts['feature_names'] == [
      'a',
      'b',
    ]
    found = table.prepare(path, 'q', target='y', categories=['b']).card.facts
    assert found['feature_names'] == ['a', 'b=0', 'b=1']

  def test_a_value_of_the_test_rows_alone_is_told(self, tmp_path):
    path = written(tmp_path, linear(10, lambda i: f',v{i % 2}{"x" * (i == 7)}'))
    told = []
    for seed in range(12):
      made = table.prepare(path, f'own{seed}', target='y', seed=seed)
      alone = [n for n in made.notes if 'in the test rows alone' in n]
      names = made.card.facts['feature_names']
      assert ('b=v1x' in names) == (not alone)
      told += alone
    assert told and "1 value(s) stand in the test rows alone, e.g. 'v1x'" in told[0]

  @pytest.mark.parametrize(
    ('cell', 'note'),
    (
      (lambda i: str(i + 1), "Column 'b' is left out: it numbers the rows."),
      (lambda i: f'name {i}' * 2, "Column 'b' is left out: 80 values are more than 64"),
      (lambda i: 'same', "Column 'b' is left out: 1 value(s) in training."),
      (lambda i: 'NA', "Column 'b' is left out: 0 value(s) in training."),
    ),
  )
  def test_what_is_left_out_is_said(self, tmp_path, cell, note):
    path = written(tmp_path, linear(100, lambda i: f',{cell(i)}'))
    made = table.prepare(path, 'own', target='y')
    assert made.card.facts['feature_names'] == ['a']
    assert any(n.startswith(note) for n in made.notes), made.notes

  def test_ids_by_their_name(self, tmp_path):
    text = 'user_id,a,y\n' + ''.join(f'{7 * i % 11},{i * i},{i}\n' for i in range(11))
    made = table.prepare(written(tmp_path, text), 'own', target='y')
    assert made.card.facts['feature_names'] == ['a']

  def test_mixed_types_are_refused(self, tmp_path):
    path = written(tmp_path, linear(20, lambda i: f',{"x" if i == 3 else i % 4}'))
    message = "line 5, column 'b': 'x' is no number, as 19 others are.*--categories=b"
    with pytest.raises(DataError, match=message):
      table.prepare(path, 'own', target='y')
    assert table.prepare(path, 'own', target='y', categories=['b'])

  def test_nothing_is_left(self, tmp_path):
    with pytest.raises(DataError, match='no column is left to predict from'):
      table.prepare(written(tmp_path, linear()), 'own', target='y', leave_out=['a'])

  def test_columns_that_are_not_there(self, tmp_path):
    path = written(tmp_path, linear())
    for flag, arguments in (
      ('target', {'target': 'z'}),
      ('leave_out', {'target': 'y', 'leave_out': ['z']}),
      ('categories', {'target': 'y', 'categories': ['z']}),
    ):
      message = f'--{flag}=z is not allowed: .* has the columns a, y'
      with pytest.raises(ConfigError, match=message):
        table.prepare(path, 'own', **arguments)


def days_by_row(tmp_path, column: int = 1) -> dict[int, float]:
  """By i of `linear`, what stands in a column of features, of both splits."""
  found = {}
  for path in (tmp_path / 'data/own').glob('*/features.npy'):
    found |= {round(row[0] ** 0.5): row[column] for row in np.load(path)}
  return found


class TestDates:
  def test_days_by_hand(self):
    cells = [
      *('1970-01-01', '2026-11-30', '1969-12-31', '0001-01-01', '1970-01-02T12:00'),
      *('1970-01-01 06:00:00', '1970-01-01T00:00+06:00', '1970-01-01T00:00:00Z', 'NA'),
      *('0001-01-01T00:00+12:00', '1970-01-01T00:00:00.000001'),
    ]
    value, wrong = dates.days(cells)
    first = -719162.0  # 1969 years: 365 * 1969 + 492 - 19 + 4 leap days.
    want = [0, 20787, -1, first, 1.5, 0.25, -0.25, 0, np.nan, first - 0.5, 1e-6 / 86400]
    np.testing.assert_array_equal(value, want)
    assert value.dtype == np.float64 and wrong == []

  @pytest.mark.parametrize(
    'cell',
    (
      *('2026', '20261130', '2026-11', '2026-02-30', '30.11.2026', '2026-11-30x12:00'),
      *('2026-W48-1', '2026-11-30T', '2026-11-30T25:00', '2026-11-30 noon', '20787'),
    ),
  )
  def test_what_is_no_date(self, cell):
    value, wrong = dates.days([cell])
    assert wrong == [0] and np.isnan(value[0])

  def test_a_column_of_dates_is_one_of_days(self, tmp_path):
    """3653 days are ten years from 1970; 25567 are seventy years before it."""
    cell = lambda i: ',' + ('' if i == 5 else f'{1900 + 10 * (i % 9)}-01-01T06:00')
    made = table.prepare(written(tmp_path, linear(10, cell)), 'own', target='y')
    assert "Column 'b' is a date: days since 1970-01-01." in made.notes
    assert made.card.facts['feature_names'] == ['a', 'b']
    assert made.card.facts['columns'] == [{'name': 'a'}, {'name': 'b', 'date': True}]
    found = days_by_row(tmp_path)
    assert found[0] == -25567 + 0.25 and found[7] == 0.25 and found[8] == 3652.25
    assert np.isnan(found[5]) and sum(map(np.isnan, found.values())) == 1

  def test_many_days_in_their_order_are_no_ids(self, tmp_path):
    day = lambda i: f',{datetime.date(2026, 1, 1) + datetime.timedelta(i)}'
    made = table.prepare(written(tmp_path, linear(100, day)), 'own', target='y')
    assert made.card.facts['feature_names'] == ['a', 'b']

  def test_dates_are_a_category_where_that_is_said(self, tmp_path):
    path = written(tmp_path, linear(20, lambda i: f',2026-01-0{i % 2 + 1}'))
    made = table.prepare(path, 'own', target='y', categories=['b'])
    names = made.card.facts['feature_names']
    assert names == ['a', 'b=2026-01-01', 'b=2026-01-02']
    assert not any('is a date' in note for note in made.notes)

  @pytest.mark.parametrize('cell', ('soon', '7', '2026-02-30'))
  def test_a_few_cells_that_are_no_dates(self, tmp_path, cell):
    path = written(
      tmp_path, linear(20, lambda i: f',{cell}' if i == 3 else ',2026-01-02')
    )
    message = f"line 5, column 'b': '{cell}' is no date, as 19 others.*--categories=b"
    with pytest.raises(DataError, match=message):
      table.prepare(path, 'own', target='y')
    assert table.prepare(path, 'own', target='y', categories=['b'])

  def test_dates_and_words_are_words(self, tmp_path):
    path = written(tmp_path, linear(20, lambda i: f',{["soon", "2026-01-02"][i % 2]}'))
    made = table.prepare(path, 'own', target='y')
    assert made.card.facts['feature_names'] == ['a', 'b=2026-01-02', 'b=soon']

  def test_the_test_split_alone_has_other_cells(self, tmp_path, monkeypatch):
    monkeypatch.setattr(table.rows, 'divided', lambda n, *_: np.arange(n) >= 6)
    path = written(
      tmp_path, linear(10, lambda i: f',{"2026-01-02" if i < 6 else "?!"}')
    )
    with pytest.raises(DataError, match="line 8, column 'b': '.!' is no date, as all"):
      table.prepare(path, 'own', target='y')

  def test_parquet(self, tmp_path):
    """A date, and times without and with a zone, of several units."""
    day = datetime.date(1969, 12, 31)
    zone = datetime.timezone(datetime.timedelta(hours=6))
    there = datetime.datetime(1970, 1, 1, 12, tzinfo=zone)
    made = {
      'a': [i * i for i in range(10)],
      'day': [day, None] * 5,
      'at': pa.array([43200 * 10**9 + 1] * 10, pa.timestamp('ns')),  # Noon, and 1 ns.
      'there': pa.array([there] * 10, pa.timestamp('ms', tz='+06:00')),
      'y': list(range(10)),
    }
    parquet.write_table(pa.table(made), tmp_path / 'own.parquet')
    table.prepare(tmp_path / 'own.parquet', 'own', target='y')
    for column, want in ((1, [-1, np.nan]), (2, [0.5, 0.5]), (3, [0.25, 0.25])):
      found = days_by_row(tmp_path, column)
      np.testing.assert_array_equal([found[i] for i in range(10)], want * 5)


class TestClasses:
  TEXT = 'a,y\n' + ''.join(f'{i * i},{"no" if i < 10 else "yes"}\n' for i in range(20))

  def test_words_are_classes(self, tmp_path):
    made = table.prepare(written(tmp_path, self.TEXT), 'own', target='y')
    facts = made.card.facts
    assert facts['classes'] == ['no', 'yes']
    assert facts['counts'] == {'train': [8, 8], 'test': [2, 2]}
    data = tables.tabular('own')
    assert data.num_classes == 2 and data.target_std is None
    assert data.train.read(None).data['label'].dtype == np.int32
    # Ordered by one number: the line between is found, up to some rows beside it.
    assert data.baseline['accuracy'] >= 0.5
    with pytest.raises(ConfigError, match='scale_target=True is not allowed for own'):
      tables.tabular('own', scale_target=True)

  def test_numbers_are_classes_where_that_is_said(self, tmp_path):
    text = self.TEXT.replace('no', '2').replace('yes', '10')
    made = table.prepare(written(tmp_path, text), 'own', target='y', predict='classes')
    assert made.card.facts['classes'] == ['2', '10']

  def test_a_class_of_one_row(self, tmp_path):
    path = written(tmp_path, self.TEXT.replace('no', 'maybe', 1))
    with pytest.raises(DataError, match="class 'maybe' has 1 example"):
      table.prepare(path, 'own', target='y')


def test_repeats_name_lines(tmp_path):
  path = written(tmp_path, 'a,y\n' + ''.join(f'{i % 5},{i}\n' for i in range(20)))
  message = (
    r'training row\(s\) stand in another split: line \d+ is also line \d+ \(test'
  )
  with pytest.raises(DataError, match=message):
    table.prepare(path, 'own', target='y', repeats='refuse')
  made = table.prepare(path, 'own', target='y')
  assert any('stand in another split' in note for note in made.notes)
  card = json.loads((tmp_path / 'data/own/card.json').read_text())
  assert card['made']['target'] == 'y' and card['made']['seed'] == 0
