"""Graphs by name."""

import functools

import jax

from dlx.data.dataset import Source
from dlx.data.formats import planetoid
from dlx.data.sets import karate, registry


def graph(name: str, *, sparse: bool = False) -> planetoid.GraphData:
  """A graph by name: karate_club (embedded), cora, citeseer or pubmed; reads nothing.

  Args:
    sparse: the features as `indices` and `values` of their non-zero entries.

  Raises:
    ConfigError: a name that is not known.
  """
  registry.check(name, 'graphs')
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
