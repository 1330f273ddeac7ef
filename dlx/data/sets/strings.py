"""Strings and what becomes of them: the tasks on which a decoder is seen to work.

reverse  a string and the same from its end: only positions matter
sort     a string and its characters in the order 0-9, A-Z, a-z: only tokens matter

A string has 1 to LENGTH characters of SYMBOLS. No string occurs twice, within a split
or in two of them, so that there are fewer of one and two characters.
"""

import functools

import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.sets import registry

SYMBOLS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
LENGTH = 10
SIZES = {'train': 50000, 'validation': 1000, 'test': 2000}
TASKS = {'reverse': 'reversed', 'sort': 'sorted'}  # What the target is called.


@functools.lru_cache(maxsize=1)
def _sources() -> list[list[int]]:
  """All strings: a character is its place in SYMBOLS, from 1."""
  rng, total = np.random.default_rng(0), sum(SIZES.values())
  drawn = total + total // 4  # Of one and two characters there are not so many.
  length_N = rng.integers(1, LENGTH + 1, drawn).tolist()
  token_NL = rng.integers(1, len(SYMBOLS) + 1, (drawn, LENGTH)).tolist()
  found = dict.fromkeys(tuple(row[:n]) for row, n in zip(token_NL, length_N))
  return [list(row) for row in found][:total]


@functools.lru_cache(maxsize=len(TASKS))
def _pairs(task: str) -> tuple[list[list[int]], list[list[int]]]:
  """Sources and targets of all splits."""
  every = _sources()
  change = sorted if task == 'sort' else lambda row: row[::-1]
  return every, [list(change(row)) for row in every]


def read(task: str, split: str) -> Loaded:
  """`source` and `target` of a split, lists of the numbers of characters.

  Raises:
    ValueError: another task or split.
  """
  if task not in TASKS or split not in SIZES:
    raise ValueError(f'{task}/{split}: must be one of {[*TASKS]}, {[*SIZES]}.')
  every, targets = _pairs(task)
  registry.verify(task, *(bytes([*a, 0, *b, 0]) for a, b in zip(every, targets)))
  splits = list(SIZES)
  start = sum(SIZES[s] for s in splits[: splits.index(split)])
  part = slice(start, start + SIZES[split])
  origin = {'name': task, 'split': split, 'kind': 'generated', 'size': SIZES[split]}
  return Loaded({'source': every[part], 'target': targets[part]}, origin)
