"""The adding problem: a sum of two numbers far apart (Hochreiter and Schmidhuber 1997).

A row is a sequence of pairs (value, marker). Values are uniform in [0, 1); two markers
are 1, one in each half of the sequence, all others 0; the target is the sum of the two
marked values. Whoever always answers 1 has a mean squared error of 1/6. The rows of a
split are a pure function of its name, the length and the seed.
"""

import functools

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source

SPLITS = ('train', 'test')
BASELINE = 1 / 6  # Mean squared error of the answer 1.


def source(split: str, size: int, length: int, seed: int = 0) -> Source:
  """`x` float32 [T, 2] and `target` float32 [] of each row.

  Args:
    split: 'train' or 'test'; they share no random numbers.
    size: rows.
    length: T, at least 2.

  Raises:
    ValueError: another split, or a sequence without two halves.
  """
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: must be one of {", ".join(SPLITS)}.')
  if length < 2:
    raise ValueError(f'length={length}: must be at least 2.')
  shapes = {
    'x': jax.ShapeDtypeStruct((length, 2), np.float32),
    'target': jax.ShapeDtypeStruct((), np.float32),
  }
  read = functools.partial(_read, split, size, length, seed)
  return Source('adding', split, shapes, size, read)


def _read(split: str, size: int, length: int, seed: int, data_dir=None) -> Loaded:
  del data_dir
  rng = np.random.default_rng([seed, SPLITS.index(split)])
  value_BT = rng.random((size, length), np.float32)
  rows = np.arange(size)
  marker_BT = np.zeros((size, length), np.float32)
  target_B = np.zeros(size, np.float32)
  half = length // 2
  for low, high in ((0, half), (half, length)):
    at_B = rng.integers(low, high, size)
    marker_BT[rows, at_B] = 1
    target_B += value_BT[rows, at_B]
  origin = {'name': 'adding', 'split': split, 'kind': 'generated', 'size': size}
  return Loaded({'x': np.stack([value_BT, marker_BT], -1), 'target': target_B}, origin)
