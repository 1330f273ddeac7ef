"""Citation graphs cora, citeseer and pubmed with the public split of arXiv 1603.08861.

Eight files a graph, ind.NAME.{x,y,tx,ty,allx,ally,graph,test.index}: Python 2 pickles
of sparse matrices, one-hot labels and neighbour lists, and the numbers of the test
nodes as text.
"""

import dataclasses
import functools
from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import checksums, files, pickles
from dlx.errors import ConfigError, DataError

_PICKLED = ('x', 'y', 'tx', 'ty', 'allx', 'ally', 'graph')
PARTS = (*_PICKLED, 'test.index')
NUM_VALIDATION = 500  # Nodes after the training nodes that the public split validates.


class Counts(NamedTuple):
  """Sizes of a published graph; `values` counts the non-zero features."""

  nodes: int
  features: int
  classes: int
  edges: int
  values: int
  train: int
  test: int


COUNTS = {
  'cora': Counts(2708, 1433, 7, 5278, 49216, 140, 1000),
  'citeseer': Counts(3327, 3703, 6, 4552, 105165, 120, 1000),
  'pubmed': Counts(19717, 500, 3, 44324, 988031, 60, 1000),
}


@dataclasses.dataclass(frozen=True)
class Graph:
  """One graph on the host.

  Attributes:
    indices_X2: int32, (node, feature) of every non-zero feature, by node.
    values_X: float32, their values.
    label_N: int32; -1 for a node without one (citeseer's 15 isolated test nodes).
    edges_E2: int32, pairs i < j in ascending order, no self-loops, no repeats.
    train_N: bool, validation_N and test_N likewise: the public split.
    num_features: width of the features.
  """

  indices_X2: np.ndarray
  values_X: np.ndarray
  label_N: np.ndarray
  edges_E2: np.ndarray
  train_N: np.ndarray
  validation_N: np.ndarray
  test_N: np.ndarray
  num_features: int

  def features_NF(self) -> np.ndarray:
    """The features as a dense float32 array."""
    dense = np.zeros((len(self.label_N), self.num_features), np.float32)
    # Added, not assigned: a sparse matrix may name one entry twice.
    np.add.at(dense, tuple(self.indices_X2.T), self.values_X)
    return dense


@dataclasses.dataclass(frozen=True)
class GraphData:
  """What is known of a graph before it is read.

  Attributes:
    source: of one example, the whole graph: every field has a leading axis of 1. Fields
      `label` int32 [N], `edges` int32 [E, 2], `train`, `validation`, `test` bool [N],
      and `features` f32 [N, F], or where sparse `indices` int32 [X, 2] and `values`
      f32 [X].
  """

  name: str
  source: Source
  num_nodes: int
  num_features: int
  num_classes: int
  num_edges: int


def graph(name: str, *, sparse: bool = False) -> GraphData:
  """A graph by name; reads nothing. Raises ConfigError for an unknown name."""
  if name not in COUNTS:
    raise ConfigError(
      f'dataset={name!r} is not known as a graph: must be one of '
      f'karate_club, {", ".join(COUNTS)}.'
    )
  c = COUNTS[name]
  shape = jax.ShapeDtypeStruct
  shapes: dict[str, jax.ShapeDtypeStruct] = {
    'label': shape((c.nodes,), np.int32),
    'edges': shape((c.edges, 2), np.int32),
    **{part: shape((c.nodes,), np.bool_) for part in ('train', 'validation', 'test')},
  }
  if sparse:
    shapes['indices'] = shape((c.values, 2), np.int32)
    shapes['values'] = shape((c.values,), np.float32)
  else:
    shapes['features'] = shape((c.nodes, c.features), np.float32)
  read_one = functools.partial(_read_source, name, sparse)
  source = Source(name, 'train', shapes, 1, read_one)
  return GraphData(name, source, c.nodes, c.features, c.classes, c.edges)


def _read_source(name: str, sparse: bool, data_dir: Any) -> Loaded:
  loaded = read(name, data_dir)
  g: Graph = loaded.data
  fields = {
    'label': g.label_N,
    'edges': g.edges_E2,
    'train': g.train_N,
    'validation': g.validation_N,
    'test': g.test_N,
  }
  if sparse:
    fields |= {'indices': g.indices_X2, 'values': g.values_X}
  else:
    fields['features'] = g.features_NF()
  one = {key: value[None] for key, value in fields.items()}
  return Loaded(one, {**loaded.origin, 'size': 1})


def read(
  name: str, data_dir: Any = None, counts: Counts | str | None = 'published'
) -> Loaded:
  """Reads and assembles a graph; `data` of the result is a `Graph`.

  Args:
    name: decides the file names and which checksums hold.
    data_dir: folder of data sets, or None for $DLX_DATA_DIR.
    counts: what to compare the sizes with; 'published': those of `name`, if known;
      None: nothing.

  Raises:
    DataError: a file is lacking, truncated or corrupt, or the sizes are others.
  """
  wanted = {part: f'ind.{name}.{part}' for part in PARTS}
  for folder in files.folders(data_dir, (name, 'planetoid')):
    present = files.listing(folder)
    if any(file in present for file in wanted.values()):
      break
  else:
    raise files.missing(
      name,
      'graph',
      f'the eight files ind.{name}.{{{",".join(PARTS)}}}',
      data_dir,
      tfds=False,
      note='They are published at github.com/kimiyoung/planetoid.',
    )
  parts, records = {}, []
  for part, file in wanted.items():
    if file not in present:
      raise DataError(f'{folder}: lacks {file}; put it beside the other files.')
    payload, record = files.read(folder / file, checksums.known(name, file))
    records.append(record)
    where = folder / file
    parts[part] = (
      _test_index(payload, where)
      if part == 'test.index'
      else pickles.loads(payload, where)
    )
  try:
    assembled = assemble(parts, folder)
  except (ValueError, TypeError, IndexError, AttributeError, KeyError) as e:
    if isinstance(e, DataError):
      raise
    raise DataError(f'{folder}: the files of {name} contradict each other: {e}.') from e
  declared = COUNTS.get(name) if isinstance(counts, str) else counts
  _check(name, assembled, declared, folder)
  origin = {
    'name': name,
    'split': 'public',
    'kind': 'raw',
    'path': str(folder),
    'size': len(assembled.label_N),
    'files': records,
  }
  return Loaded(assembled, origin)


def _test_index(payload: bytes, path: Any) -> np.ndarray:
  try:
    return np.array([int(word) for word in payload.split()], np.int32)
  except ValueError as e:
    raise DataError(f'{path}: expected one node number a line: {e}.') from e


def _sparse(matrix: Any, path: Any):
  if isinstance(matrix, pickles.Csr):
    return matrix.arrays(path)
  dense = np.asarray(matrix)
  where = np.argwhere(dense)
  return (
    where.astype(np.int32),
    dense[tuple(where.T)].astype(np.float32),
    (int(dense.shape[0]), int(dense.shape[1])),
  )


def assemble(parts: Mapping[str, Any], path: Any = 'planetoid') -> Graph:
  """A graph from its eight parts, in graph order.

  Row i of `tx` and `ty` is node `test.index[i]`. Nodes that are in neither `allx` nor
  `test.index` (citeseer has 15, whose numbers are gaps in `test.index`) have no
  features and no label.

  Args:
    parts: 'x' ... 'graph' as unpickled, 'test.index' as integers.
    path: named in errors.

  Raises:
    DataError: parts that do not fit each other.
  """
  test = np.asarray(parts['test.index'])
  where, values, (labelled, width) = _sparse(parts['allx'], path)
  where_t, values_t, (num_test, width_t) = _sparse(parts['tx'], path)
  y, ally, ty = (np.asarray(parts[k]) for k in ('y', 'ally', 'ty'))
  neighbours = parts['graph']
  nodes = max(len(neighbours), int(test.max()) + 1, labelled)
  good = (
    width == width_t
    and len(test) == num_test == len(ty)
    and len(ally) == labelled
    and len(np.unique(test)) == num_test
    and int(test.min()) >= labelled
    and len(y) + NUM_VALIDATION <= labelled
    and y.shape[1:] == ally.shape[1:] == ty.shape[1:]
  )
  if not good:
    raise DataError(
      f'{path}: sizes do not fit: allx {labelled}x{width}, tx {num_test}x{width_t}, '
      f'{len(y)}, {len(ally)} and {len(ty)} labels, {len(test)} test nodes from '
      f'{int(test.min())} to {int(test.max())}.'
    )
  where_t = np.stack([test[where_t[:, 0]].astype(np.int32), where_t[:, 1]], axis=1)
  indices, values = np.concatenate([where, where_t]), np.concatenate([values, values_t])
  order = np.lexsort((indices[:, 1], indices[:, 0]))
  one_hot = np.zeros((nodes, ally.shape[1]), ally.dtype)
  one_hot[:labelled], one_hot[test] = ally, ty
  if (several := np.flatnonzero((one_hot != 0).sum(axis=1) > 1)).size:
    raise DataError(f'{path}: node {several[0]} has more than one class.')
  label = np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1).astype(np.int32)
  degree = [len(v) for v in neighbours.values()]
  ends = np.stack(
    [
      np.repeat(np.array(list(neighbours), np.int64), degree),
      np.array([j for v in neighbours.values() for j in v], np.int64),
    ],
    axis=1,
  )
  if (wrong := ends[(ends < 0) | (ends >= nodes)]).size:
    raise DataError(f'{path}: the graph names node {wrong[0]} of {nodes}.')
  ends = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)

  def mask(chosen):
    return np.isin(np.arange(nodes), chosen)

  return Graph(
    indices_X2=indices[order],
    values_X=values[order],
    label_N=label,
    edges_E2=ends.astype(np.int32),
    train_N=mask(np.arange(len(y))),
    validation_N=mask(np.arange(len(y), len(y) + NUM_VALIDATION)),
    test_N=mask(test),
    num_features=width,
  )


def _check(name: str, g: Graph, counts: Counts | None, path: Any):
  if counts is None:
    return
  got = Counts(
    len(g.label_N),
    g.num_features,
    int(g.label_N.max()) + 1,
    len(g.edges_E2),
    len(g.values_X),
    int(g.train_N.sum()),
    int(g.test_N.sum()),
  )
  if got != counts:
    raise DataError(f'{path}: {name} has other sizes: expected {counts}, found {got}.')
