"""Citation graphs: a small set of citeseer's shape, and the published cora."""

import collections
import pickle

import jax
import numpy as np
import pytest
import scipy.sparse

from dlx.data.formats import planetoid
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data
from tests.dlx.data.formats.pickles_test import as_python2

# 3 training nodes, 500 validation nodes, 2 more without a role, then nodes 505 to 511.
# Of these 506 and 510 are in no file but the graph's: citeseer's isolated test nodes.
TEST_INDEX = [509, 505, 511, 507, 508]
LABELLED, NODES, WIDTH, CLASSES = 505, 512, 6, 3


def generated(seed=0):
  rng = np.random.default_rng(seed)
  features = (rng.random((NODES, WIDTH)) < 0.4).astype(np.float32)
  features[[506, 510]] = 0
  label = rng.integers(0, CLASSES, NODES)
  one_hot = np.eye(CLASSES, dtype=np.int32)[label]
  graph = collections.defaultdict(list, {i: [] for i in range(NODES)})
  edges = {(i, i + 1) for i in range(0, 500)} | {(0, 505), (3, 511), (7, 509)}
  for i, j in edges:
    graph[i].append(j)
    graph[j].append(i)
  graph[4] += [4, 5, 5]  # A self-loop and a repeated link.
  sparse = scipy.sparse.csr_matrix
  parts = {
    'x': sparse(features[:3]),
    'y': one_hot[:3],
    'tx': sparse(features[TEST_INDEX]),
    'ty': one_hot[TEST_INDEX],
    'allx': sparse(features[:LABELLED]),
    'ally': one_hot[:LABELLED],
    'graph': graph,
    'test.index': np.array(TEST_INDEX),
  }
  label[[506, 510]] = -1
  return parts, features, label, np.array(sorted(edges))


def write(folder, parts, name='citeseer'):
  folder.mkdir(parents=True, exist_ok=True)
  for part, value in parts.items():
    path = folder / f'ind.{name}.{part}'
    if part == 'test.index':
      path.write_text(''.join(f'{i}\n' for i in value))
    else:
      path.write_bytes(as_python2(pickle.dumps(value, 2)))
  return folder


class TestGenerated:
  def test_a_node_of_two_classes(self, tmp_path):
    parts, *_ = generated()
    parts['ally'] = parts['ally'].copy()
    parts['ally'][7] = 1
    write(tmp_path / 'citeseer', parts)
    with pytest.raises(DataError, match='node 7 has more than one class'):
      planetoid.read('citeseer', tmp_path, None)

  @pytest.mark.parametrize('place', ['citeseer', 'planetoid', 'citeseer/raw'])
  def test_read(self, tmp_path, place):
    parts, features, label, edges = generated()
    folder = write(tmp_path / place, parts)
    loaded = planetoid.read('citeseer', tmp_path, counts=None)
    g = loaded.data
    np.testing.assert_array_equal(g.features_NF(), features)
    np.testing.assert_array_equal(g.label_N, label)
    np.testing.assert_array_equal(g.edges_E2, edges)
    assert np.flatnonzero(g.train_N).tolist() == [0, 1, 2]
    assert np.flatnonzero(g.validation_N).tolist() == list(range(3, 503))
    assert np.flatnonzero(g.test_N).tolist() == sorted(TEST_INDEX)
    assert loaded.origin['path'] == str(folder) and len(loaded.origin['files']) == 8

  def test_isolated_nodes_have_no_features_no_label_no_role(self):
    parts, *_ = generated()
    parts |= {k: parts[k].toarray() for k in ('tx', 'allx')}
    g = planetoid.assemble(parts)
    for node in (506, 510):
      assert not g.features_NF()[node].any() and g.label_N[node] == -1
      assert not (g.train_N | g.validation_N | g.test_N)[node]
    assert (g.label_N >= 0).sum() == NODES - 2

  def test_sparse_features_stay_sparse_and_sorted(self, tmp_path):
    parts, features, *_ = generated()
    write(tmp_path / 'citeseer', parts)
    g = planetoid.read('citeseer', tmp_path, counts=None).data
    np.testing.assert_array_equal(g.indices_X2, np.argwhere(features))
    assert g.indices_X2.dtype == np.int32 and g.values_X.dtype == np.float32
    assert (g.values_X == 1).all()

  def test_dense_features_are_taken_too(self):
    parts, features, *_ = generated()
    parts |= {k: parts[k].toarray() for k in ('tx', 'allx')}
    np.testing.assert_array_equal(planetoid.assemble(parts).features_NF(), features)

  @pytest.mark.parametrize(
    'change',
    [
      {'tx': np.zeros((4, WIDTH))},
      {'tx': np.zeros((5, WIDTH + 1))},
      {'ally': np.zeros((LABELLED - 1, CLASSES))},
      {'test.index': np.array([505, 505, 507, 508, 509])},
      {'test.index': np.array([4, 505, 507, 508, 509])},
      {'y': np.zeros((6, CLASSES))},
      {'graph': {0: [NODES]}},
    ],
  )
  def test_parts_that_do_not_fit(self, change):
    parts, *_ = generated()
    parts |= {k: parts[k].toarray() for k in ('tx', 'allx')}
    planetoid.assemble(parts)
    with pytest.raises(DataError, match='folder: '):
      planetoid.assemble(parts | change, 'folder')

  def test_sizes_are_compared_with_the_declared_ones(self, tmp_path):
    write(tmp_path / 'citeseer', generated()[0])
    with pytest.raises(DataError, match=r'expected Counts\(nodes=3327.*nodes=512'):
      planetoid.read('citeseer', tmp_path)

  def test_a_lacking_file(self, tmp_path):
    folder = write(tmp_path / 'citeseer', generated()[0])
    (folder / 'ind.citeseer.ty').unlink()
    with pytest.raises(DataError, match=r'lacks ind.citeseer.ty'):
      planetoid.read('citeseer', tmp_path)

  def test_a_truncated_file(self, tmp_path):
    folder = write(tmp_path / 'citeseer', generated()[0])
    path = folder / 'ind.citeseer.graph'
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r'ind.citeseer.graph: .*500 bytes'):
      planetoid.read('citeseer', tmp_path)

  def test_test_index_of_words(self, tmp_path):
    folder = write(tmp_path / 'citeseer', generated()[0])
    (folder / 'ind.citeseer.test.index').write_text('<html>\n')
    with pytest.raises(DataError, match=r'test.index: expected one node number'):
      planetoid.read('citeseer', tmp_path)

  def test_a_pickle_of_something_else(self, tmp_path):
    parts = generated()[0]
    write(tmp_path / 'citeseer', parts | {'graph': [1, 2]})
    with pytest.raises(DataError, match='citeseer contradict each other'):
      planetoid.read('citeseer', tmp_path, counts=None)

  def test_a_set_called_cora_must_be_cora(self, tmp_path):
    write(tmp_path / 'cora', generated()[0], 'cora')
    with pytest.raises(DataError, match=r'ind.cora.x: not the published file'):
      planetoid.read('cora', tmp_path)

  def test_missing(self, tmp_path):
    with pytest.raises(DataError, match=r'cora.*Remedies: \(1\).*ind\.cora\.'):
      planetoid.read('cora', tmp_path)


class TestSource:
  def test_an_unknown_name(self):
    with pytest.raises(ConfigError, match='cora, citeseer, pubmed'):
      planetoid.graph('core')

  @pytest.mark.parametrize('name', planetoid.COUNTS)
  def test_declaring_reads_nothing(self, name, monkeypatch):
    monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
    g = planetoid.graph(name)
    assert g.source.size == 1
    assert g.source.shapes['features'].shape == (g.num_nodes, g.num_features)


class TestCora:
  def test_counts(self):
    g = planetoid.read('cora', real_data.folder('cora')).data
    assert g.features_NF().shape == (2708, 1433) and len(g.edges_E2) == 5278
    assert np.bincount(g.label_N[g.train_N]).tolist() == [20] * 7
    assert (g.edges_E2[:, 0] < g.edges_E2[:, 1]).all()
    assert (int(g.validation_N.sum()), int(g.test_N.sum())) == (500, 1000)
    # Papers of one class cite each other: a wrong order of the test rows would show.
    same = g.label_N[g.edges_E2[:, 0]] == g.label_N[g.edges_E2[:, 1]]
    assert same.mean() > 0.8
    on_test = g.test_N[g.edges_E2].any(axis=1)
    assert same[on_test].mean() > 0.75

  @pytest.mark.parametrize('sparse', [False, True])
  def test_source_gives_what_it_declares(self, sparse):
    folder = real_data.folder('cora')
    source = planetoid.graph('cora', sparse=sparse).source
    loaded = source.read(folder)
    got = {
      k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in loaded.data.items()
    }
    assert got == source.shapes
    assert all(len(v) == 1 for v in loaded.data.values())
    assert all(f['verified'] for f in loaded.origin['files'])
