"""Edges and nodes in two files of columns as a graph whose nodes have classes."""

import os
import pathlib
from typing import Any, Sequence

import numpy as np

from dlx.data.prepare import columns, readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.sets import cards
from dlx.errors import ConfigError, DataError


def prepare(
  edges: Any,
  nodes: Any,
  name: str,
  data_dir: Any = None,
  *,
  label: str | None = None,
  leave_out: Sequence[str] = (),
  test: float = 0.2,
  validation: float = 0.1,
  seed: int = 0,
  encoding: str = 'utf-8',
) -> Made:
  """Makes a graph of N nodes, E edges, and X features that are not 0; one example.

  `label` int32 [N], -1 where there is none, `edges` int32 [E, 2], pairs i < j, each
  once, `indices` int32 [X, 2] (node, feature), `values` float32 [X], and `train`,
  `validation` and `test` bool [N]. Features lie in [0, 1]: columns of other numbers are
  brought there by their least and largest. Without features each node is one.

  Args:
    edges: a file whose first two columns are ids of nodes; directions do not count.
    nodes: a file of ids in the first column, features, and the class.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    label: column of the classes; None: the last. A node without one is in no split.
    leave_out: columns of nodes that are not used.
    test: share of each class that tests.
    validation: share of each class of what is left that validates.
    seed: by which those are chosen.
    encoding: of the files.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file, line or column that cannot be taken; names it.
  """
  rows.check_share(test)
  rows.check_share(validation, 'validation')
  check_name(name, data_dir)
  notes: list[str] = []
  table = readers.read(nodes, encoding)
  first = table.names[0]
  label = table.names[-1] if label is None else label
  for flag, asked in (('label', [label]), ('leave_out', leave_out)):
    for column in asked:
      if column not in table.names[1:]:
        raise ConfigError(
          f'--{flag}={column} is not allowed: {nodes} has, beside the ids {first}, '
          f'{", ".join(table.names[1:]) or "nothing"}.'
        )
  place = _ids(table)
  edges_E2 = _edges(readers.read(edges, encoding), place, nodes, notes)
  mark_N = np.array(table.column(label))
  classes = rows.in_order(set(mark_N.tolist()) - {''})
  number = {name: k for k, name in enumerate(classes)}
  label_N = np.array([number.get(mark, -1) for mark in mark_N.tolist()], np.int32)
  known = np.flatnonzero(label_N >= 0)
  rows.check_classes(nodes, label_N[known], classes, least=3)
  if len(known) < len(label_N):
    absent = len(label_N) - len(known)
    notes.append(f'{absent} node(s) have no class: they are in no split.')
  split_N = np.full(len(known), 'train', 'U10')
  shares = {'test': test, 'validation': validation}
  rows.cut(split_N, label_N[known], shares, seed)
  used = [c for c in table.names[1:] if c != label and c not in leave_out]
  features_NF = _features(table, used, notes)
  indices_X2 = np.argwhere(features_NF).astype(np.int32)
  masks = {s: np.zeros(len(label_N), bool) for s in cards.SPLITS}
  for split, mask_N in masks.items():
    mask_N[known[split_N == split]] = True
  rows.check_classes(nodes, label_N[masks['train']], classes, least=1)
  rows.note_absent({s: label_N[m] for s, m in masks.items()}, classes, notes)
  fields = {
    'label': label_N,
    'edges': edges_E2,
    'indices': indices_X2,
    'values': features_NF[tuple(indices_X2.T)].astype(np.float32),
    **masks,
  }
  with draft(name, data_dir) as new:
    new.add('train', **{field: x[None] for field, x in fields.items()})
    facts = {
      'classes': classes,
      'counts': {
        s: rows.class_counts(label_N[m], len(classes)) for s, m in masks.items()
      },
      'num_features': features_NF.shape[1],
    }
    made = {
      'by': 'graph',
      'source': [os.path.abspath(edges), os.path.abspath(nodes)],
      **{'label': label, 'leave_out': list(leave_out), 'test': test},
      **{'validation': validation, 'seed': seed, 'encoding': encoding},
      'notes': notes,
    }
    new.finish('graphs', facts, made)
  return made_of(name, data_dir, notes)


def _ids(table: columns.Table) -> dict[str, int]:
  """The row of each node."""
  place: dict[str, int] = {}
  for row, node in enumerate(table.column(table.names[0])):
    if not node or node in place:
      told = f'{node!r} stands twice' if node else 'the id is missing'
      raise table.wrong(row, table.names[0], f'{told}: each node must have one')
    place[node] = row
  return place


def _edges(
  table: columns.Table, place: dict[str, int], nodes: Any, notes: list[str]
) -> np.ndarray:
  """int32 [E, 2], pairs i < j in ascending order."""
  ends = table.names[:2]
  if len(ends) < 2:
    raise DataError(f'{table.path}: must have two columns of ids, has {ends[0]}.')
  if all(name in place for name in ends):
    raise DataError(
      f'{table.path}: the first line is an edge ({", ".join(ends)}): write names of '
      'the columns above.'
    )
  if others := table.names[2:]:
    notes.append(f'Not used of the edges: {", ".join(others)}.')
  found_E2 = np.zeros((len(table.cells), 2), np.int32)
  for row, cells in enumerate(table.cells):
    for end, name in enumerate(ends):
      if cells[end] not in place:
        raise table.wrong(
          row, name, f'{cells[end]!r} is no node of {pathlib.Path(nodes).name}'
        )
      found_E2[row, end] = place[cells[end]]
  between = found_E2[found_E2[:, 0] != found_E2[:, 1]]
  if not len(between):
    raise DataError(f'{table.path}: no edge leads from one node to another.')
  once = np.unique(np.sort(between, axis=1), axis=0)
  if loops := len(found_E2) - len(between):
    notes.append(f'{loops} edge(s) from a node to itself are left out.')
  if again := len(between) - len(once):
    notes.append(f'{again} edge(s) stand twice, or both ways: each counts once.')
  return once


def _features(
  table: columns.Table, used: Sequence[str], notes: list[str]
) -> np.ndarray:
  """float64 [N, F] in [0, 1]; the identity where no column is used."""
  if not used:
    notes.append('The nodes have no features: each is one.')
    return np.eye(len(table.cells))
  found, scaled = [], 0
  for name in used:
    cells = table.column(name)
    value_N, wrong = columns.numbers(cells)
    wrong += np.flatnonzero(~np.isfinite(value_N)).tolist()
    if wrong:
      cell = cells[min(wrong)]
      raise table.wrong(
        min(wrong), name, f'{cell!r} is no number: mend it, or --leave_out={name}'
      )
    low, high = value_N.min(), value_N.max()
    if low < 0 or high > 1:
      scaled += 1
      value_N = (value_N - low) / ((high - low) or 1)
    found.append(value_N)
  if scaled:
    notes.append(f'{scaled} column(s) of features are brought to [0, 1].')
  features_NF = np.stack(found, 1)
  if not features_NF.any():
    raise DataError(f'{table.path}: all features are 0: --leave_out them.')
  return features_NF
