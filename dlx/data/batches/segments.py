"""Texts in shuffled order or in one pass, each with a second text and a seed.

A batch holds `token` int32 [B, L] and `seed` uint32 [B], by which tokens are hidden
(dlx/data/text/masking.py); of documents also `other` int32 [B, L], the second text,
`next` int32 [B], 1 where it follows the first, and `asked` float32 [B], 0 where nothing
follows, so that there is nothing to ask. In half of the cases the second text is one
that does not follow.

Segments      the training stream: other seconds and seeds in every epoch
AllSegments   one pass: those of a text depend on its number alone
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.permutation import stream_rows
from dlx.data.batches.resident import InOrder, Shuffled, pass_rows
from dlx.data.dataset import Loaded, Shapes, Source
from dlx.data.sources import Arrays, num_examples
from dlx.errors import DataError

FOLLOWS = 'follows'  # Field of a source of documents: the next text goes on with this.
LEAST = 3  # Texts, so that there is one that does not follow.


class Segments(Shuffled):
  """Endless; what row i of batch s holds is a function of (seed, s, i).

  Attributes: see `Shuffled`.
  """

  def __init__(self, source: Source, batch_size: int, seed: Any):
    super().__init__(source, batch_size, seed)
    self.shapes = (_shapes(self.shapes[0]),)

  def load(self, data_dir=None) -> Loaded:
    return _enough(self.source, super().load(data_dir))

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    rows = jnp.arange(self.batch_size, dtype=jnp.uint32)
    n = num_examples(arrays)
    index_B = stream_rows(self.seed, step, rows, n, self.batch_size)
    key = jax.random.fold_in(jax.random.key(self.seed), step)
    return _batch(arrays, index_B, jax.vmap(jax.random.fold_in, (None, 0))(key, rows))


class AllSegments(InOrder):
  """One pass, with `weight` as of `InOrder`."""

  def __init__(self, source: Source, batch_size: int):
    super().__init__(source, batch_size)
    self.shapes = (_shapes(self.shapes[0]),)

  def load(self, data_dir=None) -> Loaded:
    return _enough(self.source, super().load(data_dir))

  def get(self, arrays: Arrays, step: jax.Array) -> dict[str, jax.Array]:
    index_B, weight_B = pass_rows(step, num_examples(arrays), self.batch_size)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index_B)
    return {**_batch(arrays, index_B, keys_B), 'weight': weight_B}


def _shapes(shapes: Shapes) -> dict[str, jax.ShapeDtypeStruct]:
  found = {name: x for name, x in shapes.items() if name != FOLLOWS}
  rows = found['token'].shape[:1]
  found['seed'] = jax.ShapeDtypeStruct(rows, np.uint32)
  if FOLLOWS in shapes:
    found['other'] = found['token']
    found['next'] = jax.ShapeDtypeStruct(rows, np.int32)
    found['asked'] = jax.ShapeDtypeStruct(rows, np.float32)
  return found


def _enough(source: Source, found: Loaded) -> Loaded:
  n = num_examples(found.data)
  if FOLLOWS in found.data and n < LEAST:
    raise DataError(
      f'{source.name}/{source.split}: has {n} texts: must have at least {LEAST}, so '
      'that one does not follow another.'
    )
  return found


def _batch(arrays: Arrays, index_B: jax.Array, keys_B: jax.Array):
  # In range by construction: no clamping, no filling.
  one = lambda name, rows: (
    jnp.asarray(arrays[name]).at[rows].get(mode='promise_in_bounds')
  )
  bits_B3 = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys_B)
  batch = {'token': one('token', index_B), 'seed': bits_B3[:, 0]}
  if FOLLOWS in arrays:
    n = num_examples(arrays)
    follows_B = one(FOLLOWS, index_B)
    next_B = follows_B & (bits_B3[:, 1] >> 31 == 0)
    # Neither the text itself nor the one behind it.
    far_B = 2 + (bits_B3[:, 2] % np.uint32(n - 2)).astype(jnp.int32)
    step_B = jnp.where(next_B, 1, far_B)
    # index + step, modulo n, without a sum past 2**31.
    left_B = n - step_B
    other_B = jnp.where(index_B >= left_B, index_B - left_B, index_B + step_B)
    batch['other'] = one('token', other_B)
    batch['next'] = next_B.astype(jnp.int32)
    batch['asked'] = follows_B.astype(jnp.float32)
  return batch
