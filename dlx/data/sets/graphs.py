"""Graphs by name."""

import functools
from typing import Any

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import planetoid
from dlx.data.sets import cards, karate, registry
from dlx.errors import DataError


def graph(name: str, *, sparse: bool = False) -> planetoid.GraphData:
  """A graph by name; reads nothing.

  Args:
    name: karate_club (embedded), cora, citeseer, pubmed, or that of a set of the user's
      own, by its card.
    sparse: the features as `indices` and `values` of their non-zero entries.

  Raises:
    ConfigError: a name that is not known.
  """
  card = registry.check(name, 'graphs')
  if card is not None:
    return _own(card, sparse)
  if name != 'karate_club':
    return planetoid.graph(name, sparse=sparse)
  left_out = ('features',) if sparse else ('indices', 'values')
  fields = {k: v for k, v in karate.fields().items() if k not in left_out}
  source = Source(
    name,
    'train',
    {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in fields.items()},
    1,
    functools.partial(karate.read, tuple(fields)),
  )
  n = karate.NUM_NODES
  return planetoid.GraphData(name, source, n, n, karate.NUM_CLASSES, karate.NUM_EDGES)


def _own(card: cards.Card, sparse: bool) -> planetoid.GraphData:
  shapes, width = card.shapes, card.facts['num_features']
  (nodes,), (edges, _) = shapes['label'].shape, shapes['edges'].shape
  if not sparse:
    del shapes['indices'], shapes['values']
    shapes['features'] = jax.ShapeDtypeStruct((nodes, width), np.float32)
  whole, classes = cards.source(card, 'train'), len(card.facts['classes'])

  def read(data_dir: Any) -> Loaded:
    loaded = whole.read(data_dir)
    data = {name: np.asarray(x) for name, x in loaded.data.items()}
    indices_X2, values_X = data['indices'][0], data['values'][0]
    for name, x, low, high in (
      ('label', data['label'], -1, classes),
      ('edges', data['edges'], 0, nodes),
      ('indices', indices_X2[:, 0], 0, nodes),
      ('indices', indices_X2[:, 1], 0, width),
    ):
      if x.min() < low or x.max() >= high:
        raise DataError(
          f'{loaded.origin["path"]}: {name} has {x.min()} to {x.max()}: must be in '
          f'[{low}, {high - 1}]; prepare the set again.'
        )
    if not sparse:
      data['features'] = np.zeros((1, nodes, width), np.float32)
      data['features'][0][tuple(indices_X2.T)] = values_X
    return loaded._replace(data={name: data[name] for name in shapes})

  source = Source(card.name, 'train', shapes, 1, read)
  return planetoid.GraphData(card.name, source, nodes, width, classes, edges)
