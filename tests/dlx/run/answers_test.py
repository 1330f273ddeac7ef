"""Words and files become inputs; answers become tables and files."""

import csv
import json
import re
from typing import Any, Mapping, NamedTuple, Sequence
import zipfile

import numpy as np
from PIL import Image
import pytest

from dlx.data.formats import expansion
from dlx.errors import ConfigError, DataError
from dlx.experiment import Field, Function
from dlx.run import answers

IMAGE = Field('image', (2, 2, 1), 'uint8')
ROW = Field('row', (2,), 'float32')
TOKENS = Field('tokens', ('length',), 'int32')
SEED, LABEL = Field('seed', (), 'uint32'), Field('label', (), 'int32')
HEAT = Field('number', (), 'float32', default=1.0)
ODDS = Field('probabilities', (2,), 'float32', names=('cat', 'dog'))
NUMBER = Field('number', (), 'float32')
AGE = Field('column', (), 'float32')
TOWN = Field('column', (), 'int32', names=('Bern', 'Basel'))
SOLD = Field('column', (), 'float32', since=20787.0)  # 2026-11-30.


def function(inputs, options=None):
  return Function(lambda state, x: x, inputs, {}, options or {})


def read(tmp_path, field, words, files=None, **inputs):
  for name, content in (files or {}).items():
    (tmp_path / name).write_text(content)
  told = [str(tmp_path / w) if w in (files or {}) else w for w in words]
  found, called = answers.inputs_of_words(function({'x': field, **inputs}), told)
  return found, [name.removeprefix(f'{tmp_path}/') for name in called]


def test_words_by_hand():
  wanted = function(
    {'prompt': TOKENS, 'seed': SEED, 'label': LABEL, 'heat': HEAT, 'x': ROW},
    {'top_k': 3, 'how': 'plain'},
  )
  words = ['prompt=a=b', 'seed=7', 'label=dog', 'heat=0.5', 'x=1,2.5', 'top_k=none']
  found, called = answers.inputs_of_words(wanted, [*words, 'how=best'])
  assert called == [] and found == {
    'prompt': 'a=b', 'seed': 7, 'label': 'dog', 'heat': 0.5, 'x': [1, 2.5],
    'top_k': None, 'how': 'best',
  }  # fmt: skip
  assert isinstance(found['seed'], int)


@pytest.mark.parametrize(
  ('text', 'value'),
  [('3', 3), ('0.5', 0.5), ('True', True), ('none', None), ('ddim', 'ddim')],
)
def test_options_by_hand(text, value):
  assert answers._option(text) == value and type(answers._option(text)) is type(value)


def test_pictures_are_named_by_their_files(tmp_path):
  found, called = read(tmp_path, IMAGE, ['a.png', 'b.png'], seed=SEED, label=LABEL)
  assert (found, called) == ({'x': ['a.png', 'b.png']}, ['a.png', 'b.png'])


def test_a_text_a_line_and_a_row_a_line(tmp_path):
  found, called = read(tmp_path, TOKENS, ['a.txt'], {'a.txt': 'one two\n\nthree\n'})
  assert (found['x'], called) == (['one two', 'three'], ['a.txt:1', 'a.txt:2'])
  files = {'a.csv': '\ufeffone,"two"\r\n1,2\r\n3,4\r\n', 'b.csv': '5,6\n'}
  found, called = read(tmp_path, ROW, ['a.csv', 'b.csv'], files)
  np.testing.assert_array_equal(found['x'], [[1, 2], [3, 4], [5, 6]])
  assert called == ['a.csv:1', 'a.csv:2', 'b.csv']


def test_columns_of_a_table_by_their_names(tmp_path):
  files = {
    'a.csv': '\ufeffid;town;x;y\r\n7;Bern;3;1\r\n8;;NA;2\r\n',
    'b.csv': 'x,town\n5,"a, b"\n',
  }
  found, called = read(tmp_path, AGE, ['a.csv', 'b.csv'], files, town=TOWN)
  np.testing.assert_equal(found, {'x': [3, np.nan, 5], 'town': ['Bern', '', 'a, b']})
  assert called == ['a.csv:1', 'a.csv:2', 'b.csv:1']
  found, called = read(tmp_path, AGE, ['x=?', 'town=Basel'], town=TOWN)
  np.testing.assert_equal(found, {'x': np.nan, 'town': 'Basel'})
  assert called == []
  found, called = read(
    tmp_path, AGE, ['c.csv', 'x=4'], {'c.csv': 'town\nBern\n'}, town=TOWN
  )
  assert found == {'x': 4, 'town': ['Bern']} and called == ['c.csv:1']


@pytest.mark.parametrize(
  ('words', 'text', 'says'),
  (
    (['a.csv'], 'x,y\n1,2\n', "a.csv: has no column 'town', but x, y: add it, or give"),
    (
      ['a.csv'],
      'x,town\n1,a\nold,b\n',
      "a.csv: line 3, column 'x': 'old' is no number",
    ),
    (['a.csv'], 'x,town\n1\n', 'a.csv: line 2: has 1 cells'),
    (['a.csv'], '', 'a.csv: is empty'),
    (['a.csv', 'toun=Bern'], 'x\n1\n', 'toun=Bern: no such file, and no NAME=VALUE'),
  ),
)
def test_tables_that_cannot_be(tmp_path, words, text, says):
  with pytest.raises(ConfigError, match=re.escape(says)) as caught:
    read(tmp_path, AGE, words, {'a.csv': text}, town=TOWN)
  assert '\n' not in str(caught.value)


def test_dates_of_a_table(tmp_path):
  """Days since 1970-01-01 still: the function's own day is for `given.read`."""
  files = {'a.csv': 'x\n1969-12-31\n1970-01-02T12:00\n?\n', 'b.csv': 'x\n2026-02-30\n'}
  found, _ = read(tmp_path, SOLD, ['a.csv'], files)
  np.testing.assert_array_equal(found['x'], [-1, 1.5, np.nan])
  found, _ = read(tmp_path, SOLD, ['x=2026-11-30'])
  assert found == {'x': '2026-11-30'}
  says = "b.csv: line 2, column 'x': '2026-02-30' is no date, e.g. 2026-11-30"
  with pytest.raises(DataError, match=says) as caught:
    read(tmp_path, SOLD, ['b.csv'], files)
  assert '\n' not in str(caught.value)
  with pytest.raises(DataError, match="line 2, column 'x': '1969-12-31' is no number"):
    read(tmp_path, AGE, ['a.csv'], files)


def test_arrays(tmp_path):
  np.save(tmp_path / 'many.npy', [[1, 2], [3, 4]])
  np.save(tmp_path / 'one.npy', [5, 6])
  np.savez(tmp_path / 'all.npz', x=[[1, 2]], seed=[3])
  words = [str(tmp_path / name) for name in ('many.npy', 'one.npy')]
  found, called = answers.inputs_of_words(function({'x': ROW}), words)
  np.testing.assert_array_equal(found['x'], [[1, 2], [3, 4], [5, 6]])
  assert len(called) == 3
  found, _ = answers.inputs_of_words(function({'x': ROW}), [str(tmp_path / 'all.npz')])
  assert {k: v.tolist() for k, v in found.items()} == {'x': [[1, 2]], 'seed': [3]}


@pytest.mark.parametrize(
  ('field', 'words', 'files', 'says'),
  [
    (ROW, ['a.csv'], {'a.csv': 'h,i\n1,2\n1,b\n'}, "line 3: 'b' is no number"),
    (ROW, ['a.csv'], {'a.csv': '1,2,3\n'}, 'line 1 has 3 numbers: x has 2'),
    (ROW, ['a.csv'], {'a.csv': 'h,i\n'}, 'a.csv has no rows'),
    (ROW, ['a.csv', 'x=1,2'], {'a.csv': '1,2\n'}, 'x is given twice'),
    (ROW, ['none.csv'], {}, 'none.csv: no such file, and no NAME=VALUE'),
    (ROW, ['y=3'], {}, 'y=3: no such file, and no NAME=VALUE'),
    (ROW, ['x=1,b'], {}, 'x=1,b is not allowed: must be numbers'),
    (ROW, ['a.npy'], {'a.npy': 'text'}, 'a.npy holds no arrays'),
    (ROW, ['a.npz', 'b'], {'a.npz': 'text'}, 'a.npz holds no arrays'),
    (ROW, ['a.npz'], {'a.npz': 'PK\x03\x04'}, 'a.npz holds no arrays'),
    (SEED, ['a.png'], {}, 'no single input is read from files: give x=VALUE'),
  ],
)
def test_refused(tmp_path, field, words, files, says):
  with pytest.raises(ConfigError, match=re.escape(says)) as caught:
    read(tmp_path, field, words, files)
  assert '\n' not in str(caught.value)


def test_a_pickle_is_never_read(tmp_path):
  np.save(tmp_path / 'a.npy', np.array([{}], object), allow_pickle=True)
  with pytest.raises(ConfigError, match='holds no arrays'):
    answers.inputs_of_words(function({'x': ROW}), [str(tmp_path / 'a.npy')])


OUTPUTS = {'odds': ODDS, 'sum': NUMBER}
FOUND = {'odds': np.array([[0.25, 0.75], [1, 0]]), 'sum': np.array([1.5, 2])}


def test_a_table_by_hand():
  told = answers.columns(OUTPUTS, FOUND, 2)
  assert answers.table({'input': ['a.png', 'b\x1b[31m'], **told}).splitlines() == [
    'input   class  odds  sum',
    'a.png   dog    0.75  1.5',
    'b\ufffd[31m  cat    1     2',
  ]
  long = answers.table({'latent': [list(range(8))]})
  assert long.splitlines()[1] == '0 1 2 3 4 5 ... (8 numbers)'


def test_labels_in_a_vector_have_their_names():
  outputs = {'label': Field('label', (2,), 'int32', names=('cat', 'dog'))}
  told = answers.columns(outputs, {'label': np.array([[1, 0], [0, -1]])}, 2)
  assert told == {'label': [['dog', 'cat'], ['cat', -1]]}
  assert answers.table(told).splitlines() == ['label', 'dog cat', 'cat -1']
  long = answers.table({'label': [['a\x1b'] * 8]})
  assert long.splitlines()[1] == ' '.join(['a\ufffd'] * 6) + ' ... (8 words)'


def test_files_by_hand(tmp_path):
  def written(ending):
    path = tmp_path / f'out{ending}'
    answers.check_out(str(path), OUTPUTS)
    answers.write(str(path), OUTPUTS, FOUND, ['a', 'b'])
    return path

  with open(written('.csv'), newline='') as f:
    rows = list(csv.reader(f))
  assert rows[0] == ['input', 'class', 'odds/cat', 'odds/dog', 'sum']
  assert rows[1] == ['a', 'dog', '0.25', '0.75', '1.5']
  first, _ = written('.jsonl').read_text().splitlines()
  odds = {'cat': 0.25, 'dog': 0.75}
  assert json.loads(first) == dict(input='a', odds=odds, sum=1.5) | {'class': 'dog'}
  with np.load(written('.npz')) as found:
    assert set(found) == {'input', 'odds', 'sum'}
    np.testing.assert_array_equal(found['odds'], FOUND['odds'])


def test_images_become_a_grid(tmp_path):
  path = str(tmp_path / 'grid.png')
  answers.check_out(path, {'image': IMAGE})
  images = np.linspace(0, 1, 3 * 4).reshape(3, 2, 2, 1)
  answers.write(path, {'image': IMAGE}, {'image': images}, ['0', '1', '2'])
  with Image.open(path) as picture:
    assert picture.width > picture.height > 10


@pytest.mark.parametrize(
  ('path', 'says'),
  [('a.txt', 'must end in .csv, .jsonl, .npz.'), ('a.png', 'must end in .csv'),
   ('/none/a.csv', '/none is no folder')],
)  # fmt: skip
def test_where_answers_cannot_go(path, says):
  with pytest.raises(ConfigError, match=says):
    answers.check_out(path, OUTPUTS)


def test_arrays_that_would_become_very_large_are_refused(tmp_path, monkeypatch):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', b'\0' * 100_000)
  monkeypatch.setattr(expansion, 'LARGE', 10_000)
  row = Function(lambda state, inputs: {}, {'x': Field('row', (2,), 'float32')}, {})
  with pytest.raises(DataError, match='would become 100000: not unpacked'):
    answers.inputs_of_words(row, [str(path)])


class Part(NamedTuple):
  fields: Mapping[str, Field]
  found: Mapping[str, Any]
  called: Sequence[str]


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_answers_are_there_as_they_come(tmp_path, ending):
  path, whole = tmp_path / f'a.{ending}', tmp_path / f'b.{ending}'
  outputs = {'odds': ODDS, 'number': NUMBER}
  odds = np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]], np.float32)
  number = np.array([1.5, -2, np.nan], np.float32)
  rows = lambda a, b: {'odds': odds[a:b], 'number': number[a:b]}
  names = ['x', 'caf\u00e9, \ud800', 'z']
  lines = []

  def parts():
    assert not path.exists()
    yield Part(outputs, rows(0, 2), names[:2])
    lines.append(path.read_text().count('\n'))
    yield Part(outputs, rows(2, 3), names[2:])
    lines.append(path.read_text().count('\n'))

  answers.write_parts(str(path), parts())
  head = int(ending == 'csv')
  assert lines == [2 + head, 3 + head]
  answers.write(str(whole), outputs, rows(0, 3), names)
  assert path.read_bytes() == whole.read_bytes()


def test_what_fails_half_way_leaves_whole_lines_or_the_former_file(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('kept')

  def parts(fails_at):
    for i in range(3):
      if i == fails_at:
        raise DataError('row 7 is damaged')
      yield Part({'number': NUMBER}, {'number': np.array([i])}, [str(i)])

  with pytest.raises(DataError):
    answers.write_parts(str(path), parts(0))
  assert path.read_text() == 'kept'
  with pytest.raises(DataError):
    answers.write_parts(str(path), parts(2))
  assert [json.loads(x)['number'] for x in path.read_text().splitlines()] == [0, 1]


def test_which_files_can_grow():
  outputs = {'odds': ODDS, 'tokens': TOKENS}
  told = TOKENS._replace(vocabulary=lambda data_dir: None)
  assert answers.comes_in_parts('a.jsonl', outputs)
  assert not answers.comes_in_parts('a.csv', outputs)
  assert answers.comes_in_parts('a.csv', {'odds': ODDS, 'text': told})
  assert not answers.comes_in_parts('a.npz', {'odds': ODDS})
  assert not answers.comes_in_parts('gs://b/a.csv', {'odds': ODDS})
