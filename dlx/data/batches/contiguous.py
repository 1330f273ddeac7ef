"""Sentences as continuing rows, for recurrent state that is carried between steps.

Each row of the batch reads one sentence after another, `window` tokens a step. A
sentence of n tokens takes ceil(n / window) steps of its row; `reset` says that a new
one begins, so that row i continues row i of the step before wherever it is False.
"""

import heapq
from typing import Any, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.buckets import check_lengths
from dlx.data.batches.permutation import permute
from dlx.data.dataset import Loaded, Resident, Source
from dlx.data.sources import batch_shapes, read
from dlx.data.text import vocabulary
from dlx.errors import ConfigError


class Continuing(Resident):
  """Windows of sentences, row by row, without an end.

  In an epoch of `steps_per_epoch` steps every sentence is seen once. Sentences go to
  the row that is free first; rows that are done early read nothing until the end.
  Where the sentences lie is laid out on load, for `num_orders` epochs, and comes again
  after them: a batch is a function of (seed, step) without the batches before it.

  A batch holds `tokens` int32 [B, window], `length` int32 [B] (tokens of the window
  that are no padding), `reset` bool [B], the other fields of the source, and `weight`
  float32 [B], 1 where the sentence ends in this window.

  Attributes:
    steps_per_epoch: known from the declared lengths.
  """

  def __init__(
    self,
    source: Source,
    length_counts: Sequence[int],
    *,
    batch_size: int,
    window: int,
    seed: int,
    num_orders: int = 8,
  ):
    """Reads nothing.

    Args:
      source: of `tokens` int32 [L], 0 from the end of the sentence on, and more fields.
      length_counts: entry i is the number of sentences of i + 1 tokens, at most L;
        checked on load.
      batch_size: rows of one global batch.
      window: tokens of a step.
      seed: of the order, a plain number.
      num_orders: epochs whose orders differ.
    """
    for name, value in (('window', window), ('num_orders', num_orders)):
      if value < 1:
        raise ConfigError(f'{name}={value} is not allowed: must be at least 1.')
    (width,) = source.shapes['tokens'].shape
    if len(length_counts) > width:
      raise ConfigError(
        f'{source.name}: sentences of {len(length_counts)} tokens in rows of {width}.'
      )
    self.source, self.batch_size, self.seed = source, batch_size, seed
    self.window, self.num_orders = window, num_orders
    self.length_counts = tuple(length_counts)
    self.size = sum(length_counts)
    windows = [-(-(i + 1) // window) for i in range(len(length_counts))]
    total = sum(n * w for n, w in zip(length_counts, windows))
    # The bound of list scheduling (Graham 1966): no row is longer than the mean and
    # one sentence more.
    self.steps_per_epoch = -(-total // batch_size) + max(windows) - 1
    self._width = -(-width // window) * window
    shapes = batch_shapes(source, batch_size, weight=True)
    self._fields = tuple(source.shapes)
    self.shapes = (
      {
        **shapes,
        'tokens': jax.ShapeDtypeStruct((batch_size, window), np.int32),
        'length': jax.ShapeDtypeStruct((batch_size,), np.int32),
        'reset': jax.ShapeDtypeStruct((batch_size,), np.bool_),
      },
    )

  def load(self, data_dir=None) -> Loaded:
    """The source's fields, `length` [N], and `sentence` and `begin` [orders, steps, B].

    `sentence` is -1 where a row reads nothing; `begin` is the token that a window
    begins with.
    """
    loaded = read(self.source, data_dir)
    tokens_NT = loaded.data['tokens']
    length_N = vocabulary.lengths(tokens_NT)
    check_lengths(self.source, length_N, self.length_counts)
    missing = self._width - tokens_NT.shape[1]
    shape = (self.num_orders, self.steps_per_epoch, self.batch_size)
    sentence, begin = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    for order in range(self.num_orders):
      self._lay_out(order, length_N, sentence[order], begin[order])
    return Loaded(
      {
        **loaded.data,
        'tokens': np.pad(tokens_NT, ((0, 0), (0, missing))),
        'length': length_N,
        'sentence': sentence,
        'begin': begin,
      },
      loaded.origin,
    )

  def _lay_out(self, order, length_N, sentence_SB, begin_SB):
    n = np.arange(len(length_N), dtype=np.uint32)
    high, low = np.zeros_like(n), np.full_like(n, order)
    free = [(0, row) for row in range(self.batch_size)]
    for i in permute(n, len(n), self.seed, high, low, xp=np):
      at, row = free[0]
      end = at + -(-int(length_N[i]) // self.window)
      sentence_SB[at:end, row] = i
      begin_SB[at:end, row] = self.window * np.arange(end - at)
      heapq.heapreplace(free, (end, row))

  def array_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    n, shape = self.size, (self.num_orders, self.steps_per_epoch, self.batch_size)
    one = lambda *dims: jax.ShapeDtypeStruct(dims, np.int32)
    return {
      **{
        name: jax.ShapeDtypeStruct((n, *x.shape), x.dtype)
        for name, x in self.source.shapes.items()
      },
      'tokens': one(n, self._width),
      'length': one(n),
      'sentence': one(*shape),
      'begin': one(*shape),
    }

  def get(self, arrays: Any, step: jax.Array) -> dict[str, jax.Array]:
    epoch, at = step // self.steps_per_epoch, step % self.steps_per_epoch
    sentence_B = arrays['sentence'][epoch % self.num_orders, at]
    begin_B = arrays['begin'][epoch % self.num_orders, at]
    idle_B, row_B = sentence_B < 0, jnp.maximum(sentence_B, 0)
    rows = {name: arrays[name][row_B] for name in self._fields if name != 'tokens'}
    left_B = jnp.where(idle_B, 0, arrays['length'][row_B] - begin_B)
    length_B = jnp.minimum(left_B, self.window)
    within_BT = begin_B[:, None] + jnp.arange(self.window, dtype=jnp.int32)[None]
    # The window alone: no array of a step grows with the longest sentence.
    tokens_BT = arrays['tokens'][row_B[:, None], within_BT]
    ends_B = ~idle_B & (left_B <= self.window)
    return {
      **rows,
      'tokens': jnp.where(idle_B[:, None], vocabulary.PAD, tokens_BT),
      'length': length_B,
      'reset': idle_B | (begin_B == 0),
      'weight': ends_B.astype(jnp.float32),
    }
