"""Texts as rows of an encoder, and tokens hidden in them (arXiv:1810.04805).

B rows, T tokens of a row, M places that may be hidden. Pure functions of jnp: what is
hidden follows from the seed of each row alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlx.data.text.marked import END, FIRST, HIDDEN, MARKS
from dlx.data.text.vocabulary import PAD

Array = jax.Array
SHOWN_AS_HIDDEN, SHOWN_AS_OTHER = 0.8, 0.1  # Shares; the rest is shown as it is.


def single(token_BL: Array) -> tuple[Array, Array]:
  """[CLS] a [SEP] of each text, and its segments, all 0: [B, L + 2] each.

  Args:
    token_BL: int, PAD from the end of a text on.
  """
  return _joined(token_BL, None)


def pair(token_BL: Array, other_BL: Array) -> tuple[Array, Array]:
  """[CLS] a [SEP] b [SEP] of each pair of texts, [B, 2 L + 3], and segments.

  A segment is 0 up to the first [SEP], 1 up to the second, 0 for padding.

  Args:
    token_BL: int, PAD from the end of a text on.
    other_BL: likewise, the second texts.
  """
  return _joined(token_BL, other_BL)


def _joined(token_BL: Array, other_BL: Array | None) -> tuple[Array, Array]:
  batch, length = token_BL.shape
  first_B1 = (token_BL != PAD).sum(1)[:, None]
  place_BT = jnp.broadcast_to(
    jnp.arange(length + 2 if other_BL is None else 2 * length + 3)[None],
    (batch, length + 2 if other_BL is None else 2 * length + 3),
  )

  def taken(text_BL, start_B1):
    index_BT = jnp.clip(place_BT - start_B1, 0, length - 1)
    return jnp.take_along_axis(text_BL, index_BT, 1)

  end_B1 = first_B1 + 1
  found_BT = jnp.where(place_BT < end_B1, taken(token_BL, jnp.ones_like(end_B1)), PAD)
  found_BT = jnp.where(place_BT == 0, FIRST, found_BT)
  found_BT = jnp.where(place_BT == end_B1, END, found_BT)
  segment_BT = jnp.zeros_like(found_BT)
  if other_BL is None:
    return found_BT, segment_BT
  last_B1 = end_B1 + (other_BL != PAD).sum(1)[:, None] + 1
  second_BT = (place_BT > end_B1) & (place_BT <= last_B1)
  text_BT = jnp.where(place_BT == last_B1, END, taken(other_BL, end_B1 + 1))
  return jnp.where(second_BT, text_BT, found_BT), second_BT.astype(segment_BT.dtype)


class Masked(NamedTuple):
  """Rows in which tokens are hidden.

  Attributes:
    token_BT: as a model reads them.
    position_BM: int32, the places that are predicted, distinct in a row.
    target_BM: int32, the tokens that stood there.
    counts_BM: float32, 1 for a place that is predicted, 0 for one that fills up.
  """

  token_BT: Array
  position_BM: Array
  target_BM: Array
  counts_BM: Array


def most_hidden(length: int, share: float) -> int:
  """M: most tokens that are hidden of a row of T; at least 1."""
  return max(1, round(length * share))


def hide(
  seed_B: Array, token_BT: Array, vocabulary_size: int, share: float = 0.15
) -> Masked:
  """Hides a share of the tokens of each row, marks and padding left out.

  Of a row with n tokens round(n share) are predicted, at least 1 of a row that has any.
  Of these 80 % become [MASK], 10 % another token at random, 10 % stay.

  Args:
    seed_B: uint32, one a row; a row depends on its own alone.
    token_BT: int, in [0, vocabulary_size).
    vocabulary_size: V.
    share: of the tokens, in (0, 1).
  """
  most = most_hidden(token_BT.shape[1], share)

  def row(seed, token_T):
    which, how, other = jax.random.split(jax.random.key(seed), 3)
    open_T = token_T >= len(MARKS)
    total = open_T.sum()
    wanted = jnp.clip(jnp.round(total * share), 1, most)
    number = jnp.minimum(wanted, total).astype(jnp.int32)
    score_T = jnp.where(open_T, jax.random.uniform(which, token_T.shape), -1)
    position_M = jax.lax.top_k(score_T, most)[1].astype(jnp.int32)
    counts_M = jnp.arange(most) < number
    target_M = token_T[position_M]
    drawn_M = jax.random.randint(other, (most,), len(MARKS), vocabulary_size)
    share_M = jax.random.uniform(how, (most,))
    shown_M = jnp.where(share_M < SHOWN_AS_HIDDEN + SHOWN_AS_OTHER, drawn_M, target_M)
    shown_M = jnp.where(share_M < SHOWN_AS_HIDDEN, HIDDEN, shown_M)
    shown_M = jnp.where(counts_M, shown_M, target_M).astype(token_T.dtype)
    token_T = token_T.at[position_M].set(shown_M)
    return Masked(
      token_T, position_M, target_M.astype(jnp.int32), counts_M.astype(jnp.float32)
    )

  return jax.vmap(row)(seed_B, token_BT)
