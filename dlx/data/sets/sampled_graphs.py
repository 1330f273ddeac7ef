"""A graph whose nodes are drawn with some of their neighbours.

Beside the fields of a sparse graph: rows of neighbours, and dense features, of which a
step reads the rows of the nodes that it has drawn.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from dlx.data.batches.neighbours import neighbourhoods
from dlx.data.dataset import Loaded, Source
from dlx.data.formats.planetoid import GraphData


def sampled_graph(data: GraphData) -> GraphData:
  """The graph with `start`, `neighbour` and `features`.

  The first two, int32 [N + 1] and [2 E], are `dlx.data.batches.neighbours`' rows of
  neighbours; features f32 [N, F] are those of `indices` and `values`.

  Args:
    data: of a sparse source.
  """
  shape = jax.ShapeDtypeStruct
  size = data.num_nodes, data.num_features
  shapes = {
    **data.source.shapes,
    'start': shape((data.num_nodes + 1,), np.int32),
    'neighbour': shape((2 * data.num_edges,), np.int32),
    'features': shape(size, np.float32),
  }

  def read(data_dir: Any) -> Loaded:
    loaded = data.source.read(data_dir)
    graph = {name: x[0] for name, x in loaded.data.items()}
    rows = neighbourhoods(graph['edges'], data.num_nodes)
    features = np.zeros(size, np.float32)
    # Added, not assigned: a sparse matrix may name one entry twice.
    np.add.at(features, tuple(graph['indices'].T), graph['values'])
    more = {**rows._asdict(), 'features': features}
    return loaded._replace(
      data={**loaded.data, **{name: x[None] for name, x in more.items()}}
    )

  return dataclasses.replace(data, source=Source(data.name, 'train', shapes, 1, read))
