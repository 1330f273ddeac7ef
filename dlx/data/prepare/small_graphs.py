"""Small graphs of classes out of the plain text files of TUDataset (arXiv:2007.08663).

A folder holds, with one PREFIX before all names, and ids of nodes and graphs that count
from 1:

  PREFIX_A.txt                a line an edge: two nodes, with a comma between
  PREFIX_graph_indicator.txt  a line a node: its graph
  PREFIX_graph_labels.txt     a line a graph: its class, any word
  PREFIX_node_labels.txt      where there is one, a line a node: its kind, any word
  PREFIX_node_attributes.txt  where there is one, a line a node: numbers, with commas

What else lies there is not read. An edge counts once, whether it stands there one way
or both.
"""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dlx.data.prepare import columns, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.sets import cards
from dlx.errors import DataError

_EDGES = '_A.txt'
_MOST_BYTES = 1 << 30  # Of all graphs, each as large as the largest.


class _File(NamedTuple):
  """The lines of a file, without empty ones, and their numbers from 1."""

  path: pathlib.Path
  lines: list[str]
  numbers: list[int]

  def wrong(self, at: int, what: str) -> DataError:
    return DataError(f'{self.path}: line {self.numbers[at]}: {what}.')


def prepare(
  folder: Any,
  name: str,
  data_dir: Any = None,
  *,
  test: float = 0.2,
  validation: float = 0.1,
  seed: int = 0,
  encoding: str = 'utf-8',
) -> Made:
  """Makes a set of graphs, each padded to the N nodes and E edges of the largest.

  `nodes` int32 [N], 1 for a node, 0 for none, `edges` int32 [E, 2], pairs i < j, -1 and
  -1 for none, `label` int32 [], and where nodes have kinds or numbers `features`
  float32 [N, F]: a kind is one of the first, 1 or 0; numbers follow as they stand
  there. The kinds are those of training; of another one all are 0.

  Args:
    folder: see the docstring of the module.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    test: share of each class that tests.
    validation: share of each class of what is left that validates.
    seed: by which those are chosen.
    encoding: of the files.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file or line that cannot be taken; names it.
  """
  rows.check_share(test)
  rows.check_share(validation, 'validation')
  check_name(name, data_dir)
  notes: list[str] = []
  stem = _stem(pathlib.Path(folder))
  marks, indicator, pairs = (
    _lines(stem + end, encoding)
    for end in ('_graph_labels.txt', '_graph_indicator.txt', _EDGES)
  )
  graph_M, place_M, size_G = _places(indicator, marks)
  edges = _edges(pairs, graph_M, place_M, len(size_G), notes)
  classes = rows.in_order(set(marks.lines))
  number = {mark: k for k, mark in enumerate(classes)}
  label_G = np.array([number[mark] for mark in marks.lines], np.int32)
  rows.check_classes(marks.path, label_G, classes, least=3)
  split_G = np.full(len(label_G), 'train', 'U10')
  rows.cut(split_G, label_G, {'test': test, 'validation': validation}, seed)
  learnt_M = split_G[graph_M] == 'train'
  features_MF, names = _features(stem, encoding, learnt_M)
  sizes = int(size_G.max()), max(1, max(map(len, edges)))
  row_bytes = 4 * (sizes[0] * (1 + len(names)) + 2 * sizes[1])
  if row_bytes * len(label_G) > _MOST_BYTES:
    raise DataError(
      f'{stem}: {len(label_G)} graphs as large as the largest, of {sizes[0]} nodes '
      f'(graph {size_G.argmax() + 1}) and {sizes[1]} edges, are more than '
      f'{_MOST_BYTES >> 30} GiB: leave the largest out.'
    )
  fields = {
    'nodes': (np.arange(sizes[0])[None] < size_G[:, None]).astype(np.int32),
    'edges': np.full((len(label_G), sizes[1], 2), -1, np.int32),
    'label': label_G,
  }
  for row_E2, pairs_E2 in zip(fields['edges'], edges, strict=True):
    row_E2[: len(pairs_E2)] = pairs_E2
  told: dict[str, Any] = {'feature_names': names}
  if names:
    padded_GNF = np.zeros((len(label_G), sizes[0], len(names)), np.float32)
    padded_GNF[graph_M, place_M] = features_MF
    fields['features'] = padded_GNF
    seen_MF = features_MF[learnt_M].astype(np.float64)
    std_F = seen_MF.std(0)
    told |= {
      'mean': seen_MF.mean(0).tolist(),
      'std': np.where(std_F == 0, 1, std_F).tolist(),
    }
  else:
    notes.append('The nodes have neither kinds nor numbers: all are alike.')
  by_split = {split: label_G[split_G == split] for split in cards.SPLITS}
  rows.note_absent(by_split, classes, notes)
  with draft(name, data_dir) as new:
    for split in cards.SPLITS:
      chosen = split_G == split
      new.add(split, **{field: x[chosen] for field, x in fields.items()})
    rows.note_few(new, notes)
    counts = {s: rows.class_counts(x, len(classes)) for s, x in by_split.items()}
    facts = {'classes': classes, 'counts': counts, **told}
    made = {
      'by': 'small_graphs',
      'source': os.path.abspath(folder),
      **{'test': test, 'validation': validation, 'seed': seed, 'encoding': encoding},
      'notes': notes,
    }
    new.finish('small_graphs', facts, made)
  return made_of(name, data_dir, notes)


def _stem(folder: pathlib.Path) -> str:
  """The path of all files up to the end that differs."""
  found = sorted(folder.glob('*' + _EDGES)) if folder.is_dir() else []
  if len(found) != 1:
    told = ', '.join(path.name for path in found) or 'none'
    raise DataError(
      f'{folder}: must be a folder with one file PREFIX{_EDGES}, the edges of the '
      f'graphs; found {told}.'
    )
  return str(found[0])[: -len(_EDGES)]


def _lines(path: str, encoding: str) -> _File:
  lines = columns.text_of(path, encoding).splitlines()
  kept = [i for i, line in enumerate(lines) if line.strip()]
  return _File(
    pathlib.Path(path), [lines[i].strip() for i in kept], [i + 1 for i in kept]
  )


def _whole(file: _File, at: int, word: str, most: int, what: str) -> int:
  """A number from 1 to `most`."""
  word = word.strip()
  # No more digits than of any file: Python takes long for thousands of them.
  found = int(word) if word.isascii() and word.isdecimal() and len(word) < 19 else 0
  if not 1 <= found <= most:
    raise file.wrong(at, f'{word!r} is no {what}: must be 1 to {most}')
  return found


def _places(
  indicator: _File, marks: _File
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Of each node its graph and its place there, from 0, and the nodes of each graph."""
  count = len(marks.lines)
  size_G = np.zeros(count, np.int64)
  graph_M, place_M = (np.zeros(len(indicator.lines), np.int64) for _ in range(2))
  for i, line in enumerate(indicator.lines):
    graph = _whole(indicator, i, line, count, 'graph') - 1
    graph_M[i], place_M[i] = graph, size_G[graph]
    size_G[graph] += 1
  if (empty := np.flatnonzero(size_G == 0)).size:
    raise marks.wrong(int(empty[0]), f'graph {empty[0] + 1} has no node')
  return graph_M, place_M, size_G


def _edges(
  file: _File, graph_M: np.ndarray, place_M: np.ndarray, count: int, notes: list[str]
) -> list[np.ndarray]:
  """Of each graph int32 [E, 2], pairs i < j in ascending order."""
  found: list[set[tuple[int, int]]] = [set() for _ in range(count)]
  loops = 0
  for i, line in enumerate(file.lines):
    words = line.split(',')
    if len(words) != 2:
      raise file.wrong(i, f'{line[:40]!r} is no edge: must be two nodes, as 1, 2')
    a, b = (_whole(file, i, word, len(graph_M), 'node') - 1 for word in words)
    if graph_M[a] != graph_M[b]:
      raise file.wrong(
        i,
        f'node {a + 1} is of graph {graph_M[a] + 1}, node {b + 1} of graph '
        f'{graph_M[b] + 1}: an edge must be within one',
      )
    loops += a == b
    if a != b:
      pair = sorted((int(place_M[a]), int(place_M[b])))
      found[graph_M[a]].add((pair[0], pair[1]))
  if loops:
    notes.append(f'{loops} edge(s) from a node to itself are left out.')
  return [np.array(sorted(pairs), np.int32).reshape(-1, 2) for pairs in found]


def _features(
  stem: str, encoding: str, learnt_M: np.ndarray
) -> tuple[np.ndarray, list[str]]:
  """What is known of the nodes, float32 [M, F], and the names of the columns."""
  parts: list[np.ndarray] = []
  names: list[str] = []
  count = len(learnt_M)
  if kinds := _of_nodes(stem + '_node_labels.txt', encoding, count):
    kind_M = np.array(kinds.lines)
    known = rows.in_order(set(kind_M[learnt_M].tolist()))
    parts.append((kind_M[:, None] == np.array(known)[None]).astype(np.float32))
    names += [f'kind={kind}' for kind in known]
  if numbers := _of_nodes(stem + '_node_attributes.txt', encoding, count):
    parts.append(_numbers(numbers))
    names += [f'number {i + 1}' for i in range(parts[-1].shape[1])]
  if not parts:
    return np.zeros((count, 0), np.float32), names
  return np.concatenate(parts, 1), names


def _of_nodes(path: str, encoding: str, count: int) -> _File | None:
  """A file with a line a node; None: there is none."""
  if not os.path.exists(path):
    return None
  file = _lines(path, encoding)
  if len(file.lines) != count:
    raise DataError(
      f'{file.path}: has {len(file.lines)} lines, must have one for each of the '
      f'{count} nodes.'
    )
  return file


def _numbers(file: _File) -> np.ndarray:
  """float32 [M, F]."""
  width = len(file.lines[0].split(','))
  found_MF = np.zeros((len(file.lines), width), np.float32)
  for i, line in enumerate(file.lines):
    cells = [cell.strip() for cell in line.split(',')]
    if len(cells) != width:
      raise file.wrong(i, f'has {len(cells)} numbers, the first line has {width}')
    value_F, wrong = columns.numbers(cells)
    wrong += np.flatnonzero(~(np.abs(value_F) < np.finfo(np.float32).max)).tolist()
    if wrong:
      raise file.wrong(i, f'{cells[min(wrong)]!r} is no number')
    found_MF[i] = value_F
  return found_MF
