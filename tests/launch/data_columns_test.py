"""launch.data text, graph, table, images: one line for files that cannot be taken."""

import io
import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from tests.launch import data_test
from tests.launch.data_test import made, refused

here = data_test.here  # An empty folder for each test.
ROWS = ''.join(f'so {y} {i}\t{y}\n' for y in 'nm' for i in range(6))
TSV, NODES = f'x\ty\n{ROWS}', 'n\ty\n' + ROWS
TEXT, GRAPH = ('text', 'own.tsv', '--text=x', '--label=y'), ('graph', 'e.tsv', 'n.tsv')


def bytes_of_parquet(**columns) -> bytes:
  stream = io.BytesIO()
  parquet.write_table(pa.table(columns), stream)
  return stream.getvalue()


@pytest.mark.parametrize(
  ('args', 'files', 'told'),
  (
    (TEXT, {}, 'own.tsv: cannot be read: No such file'),
    (TEXT, {'own.tsv': ''}, 'own.tsv: is empty'),
    (TEXT, {'own.tsv': 'x\ty\n'}, 'own.tsv: holds no row below its first line'),
    (TEXT, {'own.tsv': TSV + 'a\n'}, 'own.tsv: line 14: has 1 cells, the first line'),
    (TEXT, {'own.tsv': TSV + 'a\tb\tc\n'}, 'line 14: has 3 cells'),
    (TEXT, {'own.tsv': 'x\ty\tx\n' + ROWS}, "two columns are called 'x'"),
    (TEXT, {'own.tsv': TSV.encode() + b'\xff\tn\n'}, 'line 14: byte 112 is not utf-8'),
    (TEXT, {'own.tsv': TSV + '\0\tn\n'}, 'line 14: holds a zero character'),
    (TEXT, {'own.tsv': TSV + '"a\tn\n'}, 'line 14 or later: a quotation mark is not'),
    (TEXT, {'own.tsv': b'\x1f\x8b\x08'}, 'own.tsv: is packed by gzip, no text: unpac'),
    ((*TEXT, '--encoding=utf-9'), {'own.tsv': TSV}, '--encoding=utf-9 is not known'),
    (TEXT, {'own.tsv': TSV + 'so n 0\tm\n' * 9}, 'stand in another split: own.tsv: '),
    (TEXT, {'own.tsv': TSV + 'a\tk\n'}, "class 'k' has 1 example(s), must have at"),
    (TEXT, {'own.tsv': TSV.replace('\tm', '\tn')}, 'expected two classes or more'),
    (
      TEXT,
      {'own.tsv': pathlib.Path('own.tsv')},
      'cannot be read: Too many levels of symbolic links',
    ),
    (TEXT, {'own.tsv': TSV, 'data/own/x': ''}, 'data/own is there already'),
    ((*TEXT, '--name=../x'), {'own.tsv': TSV}, '--name=../x is not allowed'),
    ((*TEXT, '--name=sst2'), {'own.tsv': TSV}, 'dlx has a set of this name'),
    ((*TEXT[:1], 'd'), {'d/n/0.txt': 'x', 'd/m': 'x'}, 'expected two classes or more'),
    (
      (*TEXT[:1], 'd'),
      {'d/n/a.txt': 'x', 'd/m/a.txt': b'\xff'},
      'd/m/a.txt: line 1: by',
    ),
    ((*TEXT[:1], 'd'), {'d/n/a.txt': pathlib.Path('a.txt')}, 'd/n/a.txt: is a link'),
    ((*TEXT[:1], 'd'), {'d/n/a.txt': 'x', 'd/m/b.png': 'x'}, 'd/m: holds no text'),
    (('text', 'd'), {'d/n/a.txt': ' \n', 'd/m/a.txt': 'x'}, 'd/n/a.txt: is empty'),
    (GRAPH, {'n.tsv': NODES}, 'e.tsv: cannot be read: No such file'),
    (GRAPH, {'e.tsv': 'a\tb\n', 'n.tsv': ''}, 'n.tsv: is empty'),
    (GRAPH, {'e.tsv': '', 'n.tsv': NODES}, 'e.tsv: is empty'),
    (GRAPH, {'e.tsv': 'a\tb\n0\t1\n', 'n.tsv': NODES}, "column 'a': '0' is no node"),
    (GRAPH, {'e.tsv': '0\t1\n', 'n.tsv': NODES}, 'first line holds no names of col'),
    (GRAPH, {'e.tsv': 'a\tb\n0\n', 'n.tsv': NODES}, 'e.tsv: line 2: has 1 cells'),
    ((*GRAPH, '--label=z'), {'e.tsv': 'a\tb\n', 'n.tsv': NODES}, '--label=z is not'),
    (
      ('table', 'x.parquet', '--target=y'),
      {'x.parquet': b'PAR1'},
      'is no Parquet file',
    ),
    (
      ('table', 'x.parquet', '--target=y'),
      {'x.parquet': bytes_of_parquet(x=[1, 2], y=[3, 3])},
      "x.parquet: column 'y' has one value",
    ),
    (
      ('table', 'x.parquet', '--target=y'),
      {'x.parquet': bytes_of_parquet(x=[1, 2, 3], y=[3, None, 4])},
      "x.parquet: row 2, column 'y': the target is missing",
    ),
    (
      ('text', 'x.parquet', '--text=x', '--label=y'),
      {'x.parquet': bytes_of_parquet(x=['a', None] * 5, y=['n', 'm'] * 5)},
      'x.parquet: row 2: has no text',
    ),
    (('images', 'x.parquet'), {'x.parquet': TSV}, 'x.parquet: is no Parquet file'),
    (
      ('images', 'x.parquet'),
      {'x.parquet': bytes_of_parquet(image=[b'no'] * 9, y=['n', 'm', 'n'] * 3)},
      'x.parquet: row 1: is no picture',
    ),
  ),
)
def test_columns_that_cannot_be_taken(capfd, args, files, told):
  for name, content in files.items():
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pathlib.Path):
      path.symlink_to(content)
    else:
      path.write_bytes(content if isinstance(content, bytes) else content.encode())
  assert told in refused(capfd, *args)


def test_other_scripts_and_files_of_one_name(capfd):
  rows = ''.join(
    f'\u043e\u0447\u0435\u043d\u044c {y} {i}\t{y}\n'
    for y in '\u0434\u4e0d'
    for i in range(5)
  )
  for folder in 'ab':
    pathlib.Path(folder).mkdir()
    path = pathlib.Path(folder, '\u0442\u0435\u043a\u0441\u0442.tsv')
    path.write_text('x\ty\n' + rows.replace('\u0447', folder), 'utf-8')
  paths = [f'{folder}/\u0442\u0435\u043a\u0441\u0442.tsv' for folder in 'ab']
  said = made(capfd, 'text', *paths, *TEXT[2:])
  assert said.startswith('own  labelled sentences  train 14, validation 2, test 4\n')
  assert '  class 1 \u4e0d: train 7, ' in said


def test_a_full_disk_leaves_no_text_and_no_graph(capfd, monkeypatch):
  pathlib.Path('own.tsv').write_text(TSV)
  pathlib.Path('n.tsv').write_text(NODES)
  pathlib.Path('e.tsv').write_text('a\tb\nso n 0\tso m 0\n')

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device', 'data/x')

  monkeypatch.setattr(np.lib.format, 'open_memmap', full)
  for args in (TEXT, GRAPH):
    assert 'data/x: the disk is full' in refused(capfd, *args)
