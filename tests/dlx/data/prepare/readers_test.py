"""Files of rows: Parquet and JSON lines give the cells that a CSV gives."""

import datetime
import json
import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dlx.data.formats import expansion
from dlx.data.prepare import readers, sentences, table
from dlx.data.sets import cards, tables
from dlx.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def written(columns, name='own.parquet', features=None, **kwargs) -> str:
  """A file of columns; `features` as `datasets` writes them."""
  made = pa.table(columns)
  if features:
    text = json.dumps({'info': {'features': features}})
    made = made.replace_schema_metadata({'huggingface': text})
  parquet.write_table(made, name, **kwargs)
  return name


def label(*names):
  return {'y': {'names': list(names), '_type': 'ClassLabel'}}


def of_classes(labels, name='own.parquet', **kwargs) -> str:
  texts = [f'text {i} {name}' for i in range(len(labels))]
  return written({'x': texts, 'y': labels}, name, **kwargs)


class TestCells:
  def test_parquet_by_hand(self):
    day = datetime.date(2026, 1, 2)
    columns = {
      'i': pa.array([1, None, 2**53 + 1], pa.int64()),
      'f': pa.array([0.1, float('nan'), 3], pa.float32()),
      's': pa.array([' a ', '', None], pa.string()).dictionary_encode(),
      'b': [True, None, False],
      'd': [day, None, day],
      'l': [[1, 2], None, []],
    }
    found = readers.read(written(columns))
    assert found.names == list(columns)
    assert found.cells[0] == ['1', repr(float(np.float32(0.1))), 'a', 'True'] + [
      '2026-01-02',
      '[1, 2]',
    ]
    assert found.cells[1] == ['', 'nan', '', '', '', '']
    assert found.column('i')[2] == '9007199254740993'
    assert (found.where(2), found.place(0)) == ('own.parquet: row 3', 'row 1')

  def test_classes_have_their_names(self):
    found = readers.read(of_classes([1, 0, None], features=label('no', 'yes')))
    assert found.column('y') == ['yes', 'no', '']
    assert found.classes == {'y': ['no', 'yes']}

  def test_json_lines_by_hand(self):
    pathlib.Path('own.jsonl').write_text(
      '{"a": 1.5, "b": null, "c": "\\u00e9\\n"}\n\n{"c": true, "a": [1], "d": "x"}\n'
    )
    found = readers.read('own.jsonl')
    assert found.names == ['a', 'b', 'c', 'd'] and found.lines == [1, 3]
    assert found.cells == [['1.5', '', '\u00e9', ''], ['[1]', '', 'True', 'x']]

  def test_several_files_one_after_the_other(self):
    pathlib.Path('b.csv').write_text('y,x\n1,p\n2,q\n')
    found = readers.read([written({'x': ['n', 'm'], 'y': [3, 4]}, 'a.pq'), 'b.csv'])
    assert found.cells == [['n', '3'], ['m', '4'], ['p', '1'], ['q', '2']]
    places = [found.place(row) for row in range(4)]
    assert places == ['a.pq: row 1', 'a.pq: row 2', 'b.csv: line 2', 'b.csv: line 3']
    assert [found.shard(row) for row in range(4)] == [0, 0, 1, 1]


class TestSets:
  def test_a_table_is_that_of_the_csv(self):
    a, y = [float(i * i) for i in range(10)], [3.0 * i for i in range(10)]
    colour = ['red', 'blue', None] * 3 + ['red']
    a[4] = float('nan')
    written({'a': a, 'c': colour, 'y': y})
    rows = zip(a, colour, y, strict=True)
    lines = ''.join(f'{x},{c or ""},{z}\n' for x, c, z in rows)
    pathlib.Path('own.csv').write_text('a,c,y\n' + lines)
    one = table.prepare('own.parquet', 'one', target='y').card
    other = table.prepare(['own.csv'], 'other', target='y').card
    assert one.facts == other.facts and one.facts['sizes']['train'] == 8
    data = [cards.source(card, 'train').read(None).data for card in (one, other)]
    np.testing.assert_array_equal(data[0]['features'], data[1]['features'])
    assert tables.tabular('one').num_features == 3

  def test_a_table_of_shards(self):
    whole = {'a': [float(i * i) for i in range(10)], 'y': list(range(10))}
    cut = lambda part: {k: x[part] for k, x in whole.items()}
    paths = [written(cut(slice(0, 4)), '0.pq'), written(cut(slice(4, 10)), '1.pq')]
    facts = table.prepare(paths, 'two', target='y').card.facts
    assert facts == table.prepare(written(whole), 'one', target='y').card.facts
    bad = written({'a': [1.0, float('inf')], 'y': [5, 6]}, '2.pq')
    with pytest.raises(DataError, match="2.pq: row 2, column 'a': inf is not finite"):
      table.prepare([*paths, bad], 'own', target='y')

  def test_texts_of_a_hugging_face_set(self):
    names = label('yes', 'no')
    paths = [
      of_classes([0, 1] * 4, 'train-00000-of-00001.parquet', features=names),
      of_classes([1, 0], 'test-00000-of-00001.parquet', features=names),
    ]
    facts = sentences.prepare(paths, 'own', text='x', label='y').card.facts
    assert facts['classes'] == ['yes', 'no']  # In its order.
    assert facts['counts']['test'] == [1, 1]
    hidden = of_classes([-1, -1], 'test-1.parquet', features=names)
    with pytest.raises(DataError, match="test-1.parquet: row 1, column 'y': -1 is no"):
      sentences.prepare([*paths, hidden], 'more', text='x', label='y')


def spoilt(change):
  raw = pathlib.Path(written({'a': [1.5, 2.5], 'y': [1, 2]})).read_bytes()
  pathlib.Path('own.parquet').write_bytes(change(raw))
  return 'own.parquet'


@pytest.mark.parametrize(
  ('make', 'message'),
  (
    (lambda: 'nowhere.parquet', 'nowhere.parquet: no such file'),
    (lambda: spoilt(lambda raw: b''), 'own.parquet: is no Parquet file'),
    (lambda: spoilt(lambda raw: b'a,y\n1,2\n'), 'own.parquet: is no Parquet file'),
    (lambda: spoilt(lambda raw: raw[:-20]), 'own.parquet: is no Parquet file'),
    (
      lambda: spoilt(lambda raw: raw[:8] + bytes(60) + raw[68:]),
      'own.parquet: is no Parquet file',
    ),
    (lambda: written({'a': [], 'y': []}), 'own.parquet: holds no row'),
    (
      lambda: written(pa.table([pa.array([1]), pa.array([2])], ['y', 'y'])),
      "two columns are called 'y'",
    ),
    (
      lambda: [written({'a': [1], 'y': [1]}, '0.pq'), written({'y': [1]}, '1.pq')],
      '1.pq: has the columns y, 0.pq has a, y',
    ),
    (lambda: [written({'y': [1]}, '0.pq'), './0.pq'], './0.pq: is given twice'),
    (
      lambda: of_classes([0, 2], features=label('n', 'y')),
      "row 2, column 'y': 2 is no class: must be 0 to 1",
    ),
  ),
)
def test_parquet_that_cannot_be_taken(make, message):
  with pytest.raises(DataError, match=message):
    table.prepare(make(), 'own', target='y')
  assert not pathlib.Path('data/own').exists()


def test_a_folder_is_no_file():
  pathlib.Path('own.parquet').mkdir()
  with pytest.raises(DataError, match='own.parquet: is no Parquet file'):
    readers.read('own.parquet')


def test_a_file_that_expands(monkeypatch):
  path = written({'y': np.zeros(10**6), 'x': np.zeros(10**6)})
  monkeypatch.setattr(expansion, 'LARGE', 1)
  monkeypatch.setattr(expansion, 'EXPANDS', 1)
  with pytest.raises(DataError, match='bytes would become .*: not unpacked'):
    readers.read(path)


@pytest.mark.parametrize(
  ('text', 'message'),
  (
    ('', 'own.jsonl: is empty'),
    ('{"x": 1}\n{"x"\n', 'own.jsonl: line 2: is no JSON'),
    ('[1, 2]\n', 'own.jsonl: line 1: is no JSON object'),
    ('{}\n', 'own.jsonl: line 1: is no JSON object'),
    ('[' * 100000, 'own.jsonl: line 1: is no JSON'),
  ),
)
def test_json_lines_that_cannot_be_taken(text, message):
  pathlib.Path('own.jsonl').write_text(text)
  with pytest.raises(DataError, match=message):
    readers.read('own.jsonl')


def test_a_column_that_is_not_there():
  with pytest.raises(ConfigError, match='--target=z is not allowed: own.parquet has'):
    table.prepare(written({'a': [1], 'y': [1]}), 'own', target='z')
