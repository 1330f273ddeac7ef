"""Edges and nodes become a graph: pairs, features and masks by hand."""

import json
import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dlx.data.prepare import graph
from dlx.data.sets import cards, graphs
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError
from dlx.run.loop import fit
from experiments.graphs import gcn
from tests.dlx.data.edited import edited

# Ids are no numbers in order: i, g, e, ... Classes take turns.
IDS = 'igecajhfdb'


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def written(edges='a,b\nb,a\na,a\nj,b\nj,b\n', nodes=None, head='from,to'):
  """The files of a graph of ten nodes."""
  rows = [f'{n},{i % 3 == 1},{i * 10},{"xy"[i % 2]}' for i, n in enumerate(IDS)]
  rows = [row.replace('True', '0.5').replace('False', '0') for row in rows]
  pathlib.Path('edges.csv').write_text(f'{head}\n{edges}')
  lines = nodes or 'node,p,q,class\n' + '\n'.join(rows)
  pathlib.Path('nodes.csv').write_text(lines)
  return 'edges.csv', 'nodes.csv'


def test_pairs_features_and_masks():
  made = graph.prepare(*written(), 'own', validation=0.25)
  assert made.notes == [
    '1 edge(s) from a node to itself are left out.',
    '2 edge(s) stand twice, or both ways: each counts once.',
    '1 column(s) of features are brought to [0, 1].',
  ]
  data = graphs.graph('own')
  sizes = (data.num_nodes, data.num_features, data.num_classes, data.num_edges)
  assert sizes == (10, 2, 2, 2)
  found = {k: x[0] for k, x in read(data.source).data.items()}
  # a is row 4, b row 9, j row 5.
  assert found['edges'].tolist() == [[4, 9], [5, 9]]
  p = [0.5 if i % 3 == 1 else 0 for i in range(10)]
  q = np.arange(10) / 9
  np.testing.assert_allclose(found['features'], np.stack([p, q], 1), rtol=1e-6)
  assert found['label'].tolist() == [0, 1] * 5
  masks = [found[s] for s in ('train', 'validation', 'test')]
  assert np.sum(masks, 0).tolist() == [1] * 10
  assert [int(m.sum()) for m in masks] == [6, 2, 2]
  assert all(found['label'][m].mean() == 0.5 for m in masks)
  assert made.card.facts['counts']['validation'] == [1, 1]


def test_sparse_is_the_same_and_other_seeds_are_other_masks():
  graph.prepare(*written(), 'own')
  dense = read(graphs.graph('own').source).data
  data = read(graphs.graph('own', sparse=True).source).data
  found = np.zeros_like(dense['features'])
  found[0][tuple(data['indices'][0].T)] = data['values'][0]
  np.testing.assert_array_equal(found, dense['features'])
  tests = set()
  for seed in range(4):
    graph.prepare('edges.csv', 'nodes.csv', f's{seed}', seed=seed)
    tests.add(read(graphs.graph(f's{seed}').source).data['test'].tobytes())
  assert len(tests) > 1


def test_without_features_and_without_some_classes():
  nodes = 'n,y,more\n' + ''.join(
    f'{n},{"" if i == 3 else i % 2},7\n' for i, n in enumerate(IDS)
  )
  made = graph.prepare(
    *written(nodes=nodes), 'own', label='y', leave_out=['more'], validation=0.25
  )
  assert '1 node(s) have no class: they are in no split.' in made.notes
  found = read(graphs.graph('own').source).data
  np.testing.assert_array_equal(found['features'][0], np.eye(10))
  assert found['label'][0, 3] == -1
  assert not any(found[s][0, 3] for s in ('train', 'validation', 'test'))


def test_parquet_gives_the_same_graph():
  facts = graph.prepare(*written(), 'own').card.facts
  for name in ('edges', 'nodes'):
    head, *lines = pathlib.Path(f'{name}.csv').read_text().split()
    columns = zip(*(line.split(',') for line in lines), strict=True)
    table = pa.table(dict(zip(head.split(','), map(list, columns), strict=True)))
    parquet.write_table(table, f'{name}.parquet')
  other = graph.prepare('edges.parquet', 'nodes.parquet', 'other').card
  assert other.facts == facts
  own = cards.find('own')
  assert own is not None and own.files == other.files


def test_trains_and_is_recalled(tmp_path, monkeypatch):
  graph.prepare(*written(), 'own')
  config = gcn.Config(dataset='own', num_steps=2, eval_every_steps=2)
  experiment = gcn.build(config)._replace(figures={})
  outcome = fit(experiment, config, tmp_path / 'run', terminal=False)
  assert 0 <= outcome.metrics['test/accuracy'] <= 1
  record = json.loads((tmp_path / 'run' / 'config.json').read_text())['data']
  monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
  with cards.recall(record):
    assert graphs.graph('own').num_edges == 2


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  (
    (
      {'edges': 'a,b\nb,z\n'},
      "edges.csv: line 3, column 'to': 'z' is no node of nodes",
    ),
    ({'edges': 'a,b\nb,\n'}, "edges.csv: line 3, column 'to': '' is no node of nodes"),
    ({'edges': 'a,a\n'}, 'edges.csv: no edge leads from one node to another'),
    ({'edges': ''}, 'edges.csv: holds no row'),
    ({'edges': 'a,b,c\n'}, 'edges.csv: line 2: has 3 cells'),
    ({'edges': 'a\n', 'head': 'x'}, 'edges.csv: must have two columns of ids, has x'),
    ({'edges': 'a,b\n', 'head': 'i,g'}, 'the first line is an edge .i, g.: write'),
    ({'nodes': 'n,y\na,x\na,y\n'}, "line 3, column 'n': 'a' stands twice"),
    ({'nodes': 'n,y\na,x\n,y\n'}, "line 3, column 'n': the id is missing"),
    ({'nodes': 'n,y\na,x\nb,x\nj,x\n'}, 'expected two classes or more, found 1: x'),
    (
      {'nodes': 'n,y\n' + ''.join(f'{n},{n == "a"}\n' for n in 'abcj')},
      "class 'True' has 1 example.s., must have at least 3",
    ),
    (
      {'nodes': 'n,f,y\n' + ''.join(f'{n},{n},{n in "acd"}\n' for n in 'abcdej')},
      "nodes.csv: line 2, column 'f': 'a' is no number: mend it, or --leave_out=f",
    ),
    (
      {'nodes': 'n,f,y\n' + ''.join(f'{n},inf,{n in "acd"}\n' for n in 'abcdej')},
      "nodes.csv: line 2, column 'f': 'inf' is no number",
    ),
    (
      {'nodes': 'n,f,y\n' + ''.join(f'{n},0,{n in "acd"}\n' for n in 'abcdej')},
      'nodes.csv: all features are 0',
    ),
    (
      {'nodes': 'n,f,y\n' + ''.join(f'{n},,{n in "acd"}\n' for n in 'abcdej')},
      "line 2, column 'f': '' is no number",
    ),
  ),
)
def test_files_that_cannot_be_taken(kwargs, message):
  with pytest.raises(DataError, match=message):
    graph.prepare(*written(**kwargs), 'own')
  assert not pathlib.Path('data/own').exists()


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  (
    ({'label': 'z'}, '--label=z is not allowed: nodes.csv has, beside the ids node, p'),
    ({'label': 'node'}, '--label=node is not allowed'),
    ({'leave_out': ['z']}, '--leave_out=z is not allowed'),
    ({'test': 0.6}, '--test=0.6 is not allowed'),
    ({'validation': 0}, '--validation=0 is not allowed'),
  ),
)
def test_words_that_are_wrong(kwargs, message):
  with pytest.raises(ConfigError, match=message):
    graph.prepare(*written(), 'own', **kwargs)


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    ({'num_features': 0}, 'features 0'),
    ({'sizes': {'train': 2}}, 'sizes are'),
    ({'counts': {'train': [6, 6]}}, "no 'validation'"),
    ({'classes': ['x']}, 'classes and their counts'),
  ),
)
def test_cards_that_are_none(change, message):
  card = graph.prepare(*written(), 'own').card
  edited(card, lambda text: text['facts'].update(change))
  with pytest.raises(DataError, match=f'is no card of a prepared set .*{message}'):
    graphs.graph('own')


def test_rows_of_a_strange_set_are_checked():
  """A card that knows the sums of edges to a node that is not there."""
  card = graph.prepare(*written(), 'own').card
  assert card.folder is not None
  import hashlib

  path = card.folder / 'train' / 'edges.npy'
  edges = np.load(path)
  edges[0, 0] = (4, 10)
  np.save(path, edges)
  text = json.loads((card.folder / cards.FILE).read_text())
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  text['files']['train/edges.npy']['sha256'] = digest
  (card.folder / cards.FILE).write_text(json.dumps(text))
  with pytest.raises(DataError, match='edges has 4 to 10: must be in .0, 9.'):
    read(graphs.graph('own').source)
