"""A graph whose edges are split: some are messages, others are to be foretold.

The split is made where the graph is read, so that what is held out is in no field that
a model reads.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from dlx.config import check_bounds
from dlx.data.dataset import Loaded, Source
from dlx.data.formats.planetoid import GraphData
from dlx.errors import ConfigError, DataError

MOST_NODES = 46340  # Pairs of nodes are numbered i N + j in int32.


def held_out_edges(
  data: GraphData, *, validation: float, test: float, seed: int
) -> GraphData:
  """The graph with `edges` of training alone, and pairs that judge: arXiv 1611.07308.

  Fields are `indices`, `values`, `label`, `edges` int32 [E', 2], and for validation and
  test `SPLIT_pairs` int32 [P, 2] and `SPLIT_truth` bool [P]: edges that were taken out,
  and as many pairs i < j, each once, that are joined nowhere in the graph. Classes and
  masks are left out: `label` is all 0 and tells the number of nodes alone.

  Args:
    data: of a sparse source.
    validation: share of the edges; rounded down, at least one.
    test: likewise.
    seed: by which edges and pairs are drawn.

  Raises:
    ConfigError: shares that leave no edge for training, or too large a graph.
  """
  for name, share in (('validation_edges', validation), ('test_edges', test)):
    check_bounds(name, share, 0, above=True)
  counts = {
    split: max(1, int(share * data.num_edges))
    for split, share in (('validation', validation), ('test', test))
  }
  kept = data.num_edges - sum(counts.values())
  if kept < 1:
    raise ConfigError(
      f'validation_edges={validation} is not allowed with test_edges={test}: must '
      f'leave an edge of {data.num_edges} for training.'
    )
  if data.num_nodes > MOST_NODES:
    raise ConfigError(
      f'dataset={data.name} is not allowed: must have at most {MOST_NODES} nodes, has '
      f'{data.num_nodes}, as all pairs of them are numbered.'
    )
  pair = lambda n: jax.ShapeDtypeStruct((n, 2), np.int32)
  shapes = {name: data.source.shapes[name] for name in ('indices', 'values', 'label')}
  shapes['edges'] = pair(kept)
  for split, n in counts.items():
    shapes[f'{split}_pairs'] = pair(2 * n)
    shapes[f'{split}_truth'] = jax.ShapeDtypeStruct((2 * n,), np.bool_)

  def read(data_dir: Any) -> Loaded:
    loaded = data.source.read(data_dir)
    graph = {name: x[0] for name, x in loaded.data.items()}
    fields = {name: graph[name] for name in ('indices', 'values')}
    fields['label'] = np.zeros_like(graph['label'])
    fields |= split_edges(graph['edges'], data.num_nodes, counts, seed)
    origin = {**loaded.origin, 'held_out_edges': {**counts, 'seed': seed}}
    return Loaded({name: x[None] for name, x in fields.items()}, origin)

  source = Source(data.name, 'train', shapes, 1, read)
  return dataclasses.replace(data, source=source, num_edges=kept)


def split_edges(
  edges_E2: np.ndarray, num_nodes: int, counts: dict[str, int], seed: int
) -> dict[str, np.ndarray]:
  """`edges` that are left, and pairs with their truth for each split.

  Args:
    edges_E2: int, i < j, each once.
    num_nodes: N.
    counts: edges that each split takes; as many other pairs are added.
    seed: of the draw.

  Raises:
    DataError: fewer pairs without an edge than are asked for.
  """
  rng = np.random.default_rng(seed)
  order, start = rng.permutation(len(edges_E2)), 0
  others = _unjoined(rng, edges_E2, num_nodes, sum(counts.values()))
  fields = {}
  for split, n in counts.items():
    taken = slice(start, start + n)
    pairs = np.concatenate([edges_E2[order[taken]], others[taken]])
    fields[f'{split}_pairs'] = pairs.astype(np.int32)
    fields[f'{split}_truth'] = np.arange(2 * n) < n
    start += n
  return {'edges': edges_E2[np.sort(order[start:])].astype(np.int32), **fields}


def _unjoined(rng, edges_E2: np.ndarray, num_nodes: int, count: int) -> np.ndarray:
  """Pairs i < j without an edge, each once, in random order: int64 [count, 2]."""
  room = num_nodes * (num_nodes - 1) // 2 - len(edges_E2)
  if room < count:
    raise DataError(
      f'edges: {room} pairs of nodes are not joined: {count} are needed to judge with; '
      'hold fewer edges out.'
    )
  joined = edges_E2[:, 0].astype(np.int64) * num_nodes + edges_E2[:, 1]
  found = np.zeros(0, np.int64)
  while len(found) < count:
    ends = np.sort(rng.integers(0, num_nodes, (2 * count, 2)), axis=1)
    code = (ends[:, 0] * num_nodes + ends[:, 1])[ends[:, 0] < ends[:, 1]]
    code = np.concatenate([found, code[~np.isin(code, joined)]])
    _, first = np.unique(code, return_index=True)
    found = code[np.sort(first)]
  return np.stack(np.divmod(found[:count], num_nodes), 1)
