"""Zachary's karate club (1977): 34 members, 78 friendships, two factions.

The smallest graph on which semi-supervised learning shows: one labelled member a
faction, the instructor (0) and the president (33), and the graph tells the rest.
"""

from typing import Any

import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.sets import registry

NUM_NODES, NUM_EDGES, NUM_CLASSES = 34, 78, 2
# Friends of each member with a higher number, members from 0.
_FRIENDS = {
  0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31),
  1: (2, 3, 7, 13, 17, 19, 21, 30),
  2: (3, 7, 8, 9, 13, 27, 28, 32),
  3: (7, 12, 13),
  4: (6, 10),
  5: (6, 10, 16),
  6: (16,),
  8: (30, 32, 33),
  9: (33,),
  13: (33,),
  14: (32, 33),
  15: (32, 33),
  18: (32, 33),
  19: (33,),
  20: (32, 33),
  22: (32, 33),
  23: (25, 27, 29, 32, 33),
  24: (25, 27, 31),
  25: (31,),
  26: (29, 33),
  27: (33,),
  28: (31, 33),
  29: (32, 33),
  30: (32, 33),
  31: (32, 33),
  32: (33,),
}
# The club that a member joined after the split: 0, the instructor's, or 1.
_INSTRUCTORS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21)
_VALIDATED = (1, 5, 23, 32)


def fields() -> dict[str, np.ndarray]:
  """Arrays as of a Planetoid graph; `indices` and `values` are the identity."""
  edges_E2 = np.array([(i, j) for i, js in _FRIENDS.items() for j in js], np.int32)
  label_N = np.ones(NUM_NODES, np.int32)
  label_N[list(_INSTRUCTORS)] = 0
  train_N = np.isin(np.arange(NUM_NODES), (0, NUM_NODES - 1))
  validation_N = np.isin(np.arange(NUM_NODES), _VALIDATED)
  nodes = np.arange(NUM_NODES, dtype=np.int32)
  return {
    'label': label_N,
    'edges': edges_E2,
    'train': train_N,
    'validation': validation_N,
    'test': ~(train_N | validation_N),
    'indices': np.stack([nodes, nodes], 1),
    'values': np.ones(NUM_NODES, np.float32),
    'features': np.eye(NUM_NODES, dtype=np.float32),
  }


def read(names, data_dir: Any = None) -> Loaded:
  """The named fields, each with a leading axis of 1."""
  del data_dir
  found = fields()
  registry.verify('karate_club', found['edges'], found['label'])
  origin = {'name': 'karate_club', 'split': 'train', 'kind': 'embedded', 'size': 1}
  return Loaded({name: found[name][None] for name in names}, origin)
