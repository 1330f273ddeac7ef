"""Several short texts in one row, so that little of a batch is padding.

Each token knows the text that it is of, its segment, and its place there. A model that
is told the segments gives each text what it gives it alone: `models.gpt.GPT` takes
`segment_BT`, attention by the kernels `segment_ids`.
"""

from typing import NamedTuple, Sequence

import numpy as np

from dlx.data.text.vocabulary import PAD
from dlx.errors import ConfigError, DataError


class Packed(NamedTuple):
  """N texts in R rows of L tokens.

  Attributes:
    token_RL: int32, PAD behind the last text of a row.
    segment_RL: int32, 1, 2, ... for the first, second, ... text of its row; 0: padding.
    position_RL: int32, place of each token in its own text; of padding likewise.
    row_N: int32, the row of each text.
    start_N: int32, where it begins there.
    length_N: int32, its tokens.
  """

  token_RL: np.ndarray
  segment_RL: np.ndarray
  position_RL: np.ndarray
  row_N: np.ndarray
  start_N: np.ndarray
  length_N: np.ndarray

  @property
  def padding(self) -> float:
    """Share of the tokens that are padding."""
    return float((self.segment_RL == 0).mean()) if self.segment_RL.size else 0.0

  def texts(self, x_RL: np.ndarray) -> list[np.ndarray]:
    """What a field or a model gave each text: the parts of [R, L, ...], in order."""
    places = zip(self.row_N, self.start_N, self.length_N, strict=True)
    return [x_RL[row, start : start + length] for row, start, length in places]

  def targets(self) -> tuple[np.ndarray, np.ndarray]:
    """(the token after each [R, L], 1 where that is of the same text, else 0).

    The weight is float32: the loss of a language model counts no step from one text
    into the next, nor into padding.
    """
    next_RL = np.roll(self.token_RL, -1, axis=1)
    same_RL = np.roll(self.segment_RL, -1, axis=1) == self.segment_RL
    same_RL[:, -1:] = False
    return next_RL, (same_RL & (self.segment_RL > 0)).astype(np.float32)


def pack(texts: Sequence[Sequence[int]], length: int) -> Packed:
  """Puts each text into the first row that has room for it, in the order given.

  First-fit takes at most 1.7 times as many rows as are needed (Dosa and Sgall 2013);
  of texts from the longest to the shortest 11/9 and one more (Dosa 2007). Nothing is
  cut and nothing is random: the result is a function of the arguments.

  Args:
    texts: tokens of each, none of them empty.
    length: L, tokens of a row.

  Raises:
    ConfigError: a length below 1.
    DataError: a text that is empty, or longer than a row.
  """
  if length < 1:
    raise ConfigError(f'length={length} is not allowed: must be at least 1.')
  length_N = np.array([len(text) for text in texts], np.int32)
  if (wrong := np.flatnonzero((length_N < 1) | (length_N > length))).size:
    n = int(wrong[0])
    raise DataError(
      f'Text {n} has {length_N[n]} tokens: must have 1 to length={length}: leave it '
      'out, cut it, or make rows longer.'
    )
  row_N, start_N = _first_fit(length_N.tolist(), length)
  rows = int(row_N.max(initial=-1)) + 1
  token_RL = np.full((rows, length), PAD, np.int32)
  segment_RL = np.zeros((rows, length), np.int32)
  position_RL = np.zeros((rows, length), np.int32)
  texts_R = np.zeros(rows, np.int32)
  end_R = np.zeros(rows, np.int32)
  for text, row, start in zip(texts, row_N, start_N, strict=True):
    texts_R[row] += 1
    end_R[row] = start + len(text)
    part = slice(start, end_R[row])
    token_RL[row, part] = text
    segment_RL[row, part] = texts_R[row]
    position_RL[row, part] = np.arange(len(text))
  past_RL = np.arange(length)[None] - end_R[:, None]
  position_RL = np.where(past_RL >= 0, past_RL, position_RL).astype(np.int32)
  return Packed(token_RL, segment_RL, position_RL, row_N, start_N, length_N)


def _first_fit(lengths: list[int], capacity: int) -> tuple[np.ndarray, np.ndarray]:
  """(row, start) of each text.

  A tree holds at each node the most room that a row below it has, so that a text finds
  the first row by log2(N) comparisons.
  """
  leaves = 1 << max(0, len(lengths) - 1).bit_length()
  room = [capacity] * (2 * leaves)
  rows, starts = [], []
  for length in lengths:
    node = 1
    while node < leaves:
      node *= 2
      if room[node] < length:
        node += 1
    rows.append(node - leaves)
    starts.append(capacity - room[node])
    room[node] -= length
    while node > 1:
      node //= 2
      room[node] = max(room[2 * node], room[2 * node + 1])
  return np.array(rows, np.int32), np.array(starts, np.int32)
