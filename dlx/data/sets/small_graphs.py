"""Sets of small graphs of the user's own, made by `python -m launch.data graphs`."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.sets import cards, registry
from dlx.errors import ConfigError, DataError


class SmallGraphs(NamedTuple):
  """What is known of a set of small graphs before it is read.

  Attributes:
    name: as in `--config.dataset`.
    sources: by split: `nodes` int32 [N], 1 for a node and 0 for none, `edges` int32
      [E, 2], each once, -1 and -1 for none, `label` int32 [], and of nodes that have
      any, `features` float32 [N, F].
    class_names: one a class.
    mean, std: float32 [F], of the features of the nodes of training; empty where the
      nodes have none.
  """

  name: str
  sources: dict[str, Source]
  class_names: tuple[str, ...]
  mean: np.ndarray
  std: np.ndarray


def small_graphs(name: str) -> SmallGraphs:
  """A set by name; reads nothing but its card.

  Raises:
    ConfigError: no set of small graphs has the name.
  """
  card = registry.check(name, 'small_graphs')
  if card is None:
    raise ConfigError(f'dataset={name} is not allowed: is no set of your own.')
  numbers = lambda key: np.array(card.facts.get(key, ()), np.float32)
  sources = {}
  for split in cards.SPLITS:
    source = cards.source(card, split)
    sources[split] = dataclasses.replace(
      source, read=functools.partial(_read, source), held=None
    )
  classes = tuple(card.facts['classes'])
  return SmallGraphs(name, sources, classes, numbers('mean'), numbers('std'))


def _read(source: Source, data_dir: Any) -> Loaded:
  """The split, whose edges lead from node to node."""
  loaded = source.read(data_dir)
  edges_GE2 = np.asarray(loaded.data['edges'])
  size_G = (np.asarray(loaded.data['nodes']) != 0).sum(1)
  none_GE = (edges_GE2 == -1).all(-1)
  inside_GE2 = (edges_GE2 >= 0) & (edges_GE2 < size_G[:, None, None])
  if not (inside_GE2.all(-1) | none_GE).all():
    raise DataError(
      f'{loaded.origin["path"]}: {source.split} has an edge to no node: prepare the '
      'set again.'
    )
  return loaded
