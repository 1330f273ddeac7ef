"""Text files become small graphs: pairs, features and splits by hand, and refusals."""

import hashlib
import pathlib

import numpy as np
import pytest

from dlx.data.prepare import small_graphs
from dlx.data.sets import small_graphs as sets
from dlx.errors import ConfigError, DataError
from tests.dlx.data.edited import edited

GRAPHS = 12


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def files():
  """Paths of 3 nodes and triangles in turns; the nodes of one graph lie apart."""
  indicator = [g + 1 for g in range(GRAPHS) for _ in range(3)]
  edges = []
  for g in range(GRAPHS):
    a, b, c = (3 * g + i + 1 for i in range(3))
    edges += [f'{a}, {b}', f'{b}, {a}', f'{b},{c}']
    edges += [f'{c}, {a}'] if g % 2 else []
  nodes = range(len(indicator))
  return {
    '_A.txt': edges,
    '_graph_indicator.txt': indicator,
    '_graph_labels.txt': ['-1' if g % 2 else '1' for g in range(GRAPHS)],
    '_node_labels.txt': ['CON'[i % 3] for i in nodes],
    '_node_attributes.txt': [f'{i}, {0.5 * i}' for i in nodes],
    '_edge_labels.txt': ['not', 'read'],
  }


def written(left_out=(), **changed):
  folder = pathlib.Path('own')
  folder.mkdir(exist_ok=True)
  for end, lines in {**files(), **changed}.items():
    if end not in left_out:
      (folder / f'MINE{end}').write_text('\n'.join(map(str, lines)) + '\n\n')
  return 'own'


def rows(name='own'):
  """Every graph of all splits."""
  found = sets.small_graphs(name)
  parts = [found.sources[s].read(None).data for s in ('train', 'validation', 'test')]
  return found, {k: np.concatenate([x[k] for x in parts]) for k in parts[0]}


def test_pairs_kinds_numbers_and_splits():
  made = small_graphs.prepare(written(), 'own', validation=0.25)
  assert made.notes == [
    '8 rows to train on are fewer than a batch of 64, which then holds rows twice: '
    '--config.batch_size=8 or less.'
  ]
  found, data = rows()
  assert found.class_names == ('-1', '1')
  assert made.card.facts['feature_names'] == [
    *('kind=C', 'kind=N', 'kind=O'),
    *('number 1', 'number 2'),
  ]
  assert len(data['label']) == GRAPHS
  np.testing.assert_array_equal(data['nodes'], np.ones((GRAPHS, 3)))
  for label, edges, features in zip(data['label'], data['edges'], data['features']):
    triangle = [[0, 1], [0, 2], [1, 2]]
    path = [[0, 1], [1, 2], [-1, -1]]
    assert edges.tolist() == (path if found.class_names[label] == '1' else triangle)
    assert features[:, :3].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    first = features[0, 3]
    assert features[:, 3].tolist() == [first, first + 1, first + 2]
    np.testing.assert_array_equal(features[:, 4], features[:, 3] / 2)
    assert (first % 6 == 3) == (found.class_names[label] == '-1')
  # Means and deviations are those of the nodes of training.
  seen = found.sources['train'].read(None).data['features'].reshape(-1, 5)
  np.testing.assert_allclose(found.mean, seen.mean(0), rtol=1e-6)
  np.testing.assert_allclose(found.std, seen.std(0), rtol=1e-6)
  labels = {s: x.read(None).data['label'] for s, x in found.sources.items()}
  assert {s: x.tolist().count(0) for s, x in labels.items()} == {
    'train': 4,
    'validation': 1,
    'test': 1,
  }


def test_padding_and_nodes_in_any_order():
  indicator = [*range(1, GRAPHS + 1), *range(1, GRAPHS + 1), 1]
  edges = [f'{g},{g + GRAPHS}' for g in range(1, GRAPHS + 1)]
  edges += [f'{2 * GRAPHS + 1},1', '5,5']
  left_out = ('_node_labels.txt', '_node_attributes.txt')
  changed = {'_A.txt': edges, '_graph_indicator.txt': indicator}
  made = small_graphs.prepare(written(left_out, **changed), 'own')
  assert made.notes[:2] == [
    '1 edge(s) from a node to itself are left out.',
    'The nodes have neither kinds nor numbers: all are alike.',
  ]
  found, data = rows()
  assert found.mean.size == 0 and 'features' not in data
  sizes = data['nodes'].sum(1)
  assert sorted(sizes) == [2] * (GRAPHS - 1) + [3]
  for size, nodes, edges in zip(sizes, data['nodes'], data['edges']):
    assert nodes.tolist() == [1] * size + [0] * (3 - size)
    assert edges.tolist() == [[0, 1], [0, 2] if size == 3 else [-1, -1]]


def test_a_kind_that_training_lacks_is_none():
  kinds = files()['_node_labels.txt']
  first = small_graphs.prepare(written(), 'first')
  # The first node of a test graph gets a kind of its own.
  at = int(
    sets.small_graphs('first').sources['test'].read(None).data['features'][0, 0, 3]
  )
  kinds[at] = 'X'
  made = small_graphs.prepare(written(**{'_node_labels.txt': kinds}), 'own')
  assert made.card.facts['feature_names'] == first.card.facts['feature_names']
  test = sets.small_graphs('own').sources['test'].read(None).data['features']
  assert test[0, 0, :3].tolist() == [0, 0, 0]


def changed(end, at, value):
  lines = [*files()[end]]
  lines[at] = value
  return {end: lines}


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    (changed('_A.txt', 1, '2'), r"MINE_A.txt: line 2: '2' is no edge"),
    (changed('_A.txt', 1, '2,x'), r"line 2: 'x' is no node: must be 1 to 36"),
    (changed('_A.txt', 0, '0,1'), r"line 1: '0' is no node: must be 1 to 36"),
    (changed('_A.txt', 0, f'1,{"9" * 5000}'), 'is no node: must be 1 to 36'),
    (changed('_A.txt', 0, '1,4'), 'line 1: node 1 is of graph 1, node 4 of graph 2'),
    (
      changed('_graph_indicator.txt', 3, '13'),
      "line 4: '13' is no graph: must be 1 to",
    ),
    (
      {'_graph_labels.txt': ['1', '-1'] * 7},
      'labels.txt: line 13: graph 13 has no node',
    ),
    ({'_graph_labels.txt': ['1'] * 12}, 'expected two classes or more, found 1'),
    ({'_graph_labels.txt': ['1'] * 10 + ['2'] * 2}, "class '2' has 2 example"),
    (
      {'_node_labels.txt': ['C']},
      'has 1 lines, must have one for each of the 36 nodes',
    ),
    (
      changed('_node_attributes.txt', 4, '1'),
      'line 5: has 1 numbers, the first line has 2',
    ),
    (changed('_node_attributes.txt', 4, '1, a'), "line 5: 'a' is no number"),
    (changed('_node_attributes.txt', 4, '1, '), "line 5: '' is no number"),
    (changed('_node_attributes.txt', 4, '1, 1e39'), "line 5: '1e39' is no number"),
    ({'_A.txt': []}, 'MINE_A.txt: is empty'),
  ),
)
def test_what_cannot_be_taken(change, message):
  with pytest.raises(DataError, match=message) as raised:
    small_graphs.prepare(written(**change), 'own')
  assert '\n' not in str(raised.value) and len(str(raised.value)) < 6000
  assert not pathlib.Path('data/own').exists()


def test_folders_and_shares_that_are_none():
  pathlib.Path('empty').mkdir()
  with pytest.raises(DataError, match='empty: must be a folder .* found none'):
    small_graphs.prepare('empty', 'own')
  with pytest.raises(DataError, match='graph_indicator.txt: cannot be read'):
    small_graphs.prepare(written(['_graph_indicator.txt']), 'own')
  written()
  pathlib.Path('own/OTHER_A.txt').write_text('1,2\n')
  with pytest.raises(DataError, match='found MINE_A.txt, OTHER_A.txt'):
    small_graphs.prepare('own', 'own')
  with pytest.raises(ConfigError, match='--test=0.9 is not allowed'):
    small_graphs.prepare('own', 'own', test=0.9)


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    ({'mean': [0.0]}, 'mean is'),
    ({'std': [0.0] * 5}, 'std is'),
    ({'std': ['nan'] * 5}, 'std is'),
    ({'feature_names': []}, 'feature_names'),
    ({'feature_names': ['a']}, 'mean is|features is'),
    ({'sizes': {'train': 6}}, 'splits are'),
    ({'classes': ['1']}, 'classes'),
  ),
)
def test_cards_that_are_none(change, message):
  card = small_graphs.prepare(written(), 'own').card
  edited(card, lambda text: text['facts'].update(change))
  with pytest.raises(DataError, match=message):
    sets.small_graphs('own')


def test_an_edge_to_no_node_in_the_rows():
  card = small_graphs.prepare(written(), 'own').card
  assert card.folder is not None
  path = pathlib.Path(card.folder) / 'train' / 'edges.npy'
  edges = np.load(path)
  edges[0, 0] = [0, 7]
  np.save(path, edges)
  # A sum of its own, as one who means harm would write.
  known = {'bytes': path.stat().st_size}
  known['sha256'] = hashlib.sha256(path.read_bytes()).hexdigest()
  edited(card, lambda text: text['files'].update({'train/edges.npy': known}))
  with pytest.raises(DataError, match='train has an edge to no node: prepare'):
    sets.small_graphs('own').sources['train'].read(None)
