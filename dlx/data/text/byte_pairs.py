"""Byte-level byte-pair encoding (arXiv:1508.07909; of bytes as in GPT-2), learnt here.

Tokens 0 to 255 are the bytes; token 256 + i is merge i, two tokens that became one. So
every text has tokens, and the bytes come back from them. Pairs are merged within pieces
of a text alone: a word or number with the space before it, marks, or white space.
Learning and encoding are functions of their arguments: no randomness, no order of a
hash. A text that is not UTF-8 is its bytes, nothing is lost.
"""

import collections
import dataclasses
import functools
import heapq
import re
from typing import Iterable, Sequence

import numpy as np

from dlx.errors import ConfigError, DataError

Pair = tuple[int, int]
BYTES = 256
LEAST = 2  # A pair that stands in the text less often is not merged.
# Letters, digits, marks, white space: every character is in one of them. Of white space
# before a word the last space goes with the word.
_PIECE = re.compile(r' ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+')


def pieces(text: str) -> list[str]:
  """The parts of a text that are encoded one by one; joined they are the text."""
  return _PIECE.findall(text)


def train(text: str, vocabulary_size: int) -> 'BytePairs':
  """The most frequent pairs of a text, one after the other.

  Of equally frequent pairs the one of the smaller tokens is taken, the first of the two
  before the second. Overlapping pairs all count: `aaa` holds two of `aa`.

  Args:
    text: of the training split alone.
    vocabulary_size: tokens, the 256 bytes among them. There are fewer where no pair is
      left that stands there twice.

  Raises:
    ConfigError: a size below 256.
    DataError: half of a surrogate pair in the text.
  """
  if vocabulary_size < BYTES:
    raise ConfigError(
      f'vocab_size={vocabulary_size} is not allowed: must be at least {BYTES}, the '
      'bytes.'
    )
  to_bytes(text)  # Says where it is not one.
  counts = collections.Counter(pieces(text))
  words = [list(to_bytes(piece)) for piece in counts]
  times = list(counts.values())
  total: collections.Counter[Pair] = collections.Counter()
  places: dict[Pair, set[int]] = collections.defaultdict(set)
  for i, word in enumerate(words):
    for pair in zip(word, word[1:]):
      total[pair] += times[i]
      places[pair].add(i)
  waiting = [(-count, pair) for pair, count in total.items()]
  heapq.heapify(waiting)
  merges: list[Pair] = []
  while waiting and BYTES + len(merges) < vocabulary_size:
    count, pair = heapq.heappop(waiting)
    if -count != total[pair]:
      continue  # It was counted anew since: that count waits, too.
    if -count < LEAST:
      break
    new = BYTES + len(merges)
    merges.append(pair)
    changed: set[Pair] = set()
    for i in places.pop(pair):
      before, after = words[i], _merged(words[i], pair, new)
      for old in zip(before, before[1:]):
        total[old] -= times[i]
        changed.add(old)
      for now in zip(after, after[1:]):
        total[now] += times[i]
        places[now].add(i)
        changed.add(now)
      words[i] = after
    for other in changed - {pair}:
      if total[other] > 0:
        heapq.heappush(waiting, (-total[other], other))
    del total[pair]
  return BytePairs(tuple(merges))


def _merged(word: Sequence[int], pair: Pair, new: int) -> list[int]:
  """The word with every such pair as one token, from left to right."""
  found, i = [], 0
  while i < len(word):
    if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
      found.append(new)
      i += 2
    else:
      found.append(word[i])
      i += 1
  return found


def to_bytes(text: str) -> bytes:
  """UTF-8; bytes that `from_bytes` could not read are themselves again.

  Raises:
    DataError: half of a surrogate pair.
  """
  try:
    return text.encode('utf-8', 'surrogateescape')
  except UnicodeEncodeError as error:
    raise DataError(
      f'Character {error.start} of the text is half of a surrogate pair: mend it.'
    ) from None


def from_bytes(data: bytes) -> str:
  """The text of UTF-8; `to_bytes` gives back any bytes, of a text or not."""
  return data.decode('utf-8', 'surrogateescape')


@dataclasses.dataclass(frozen=True)
class BytePairs:
  """Text as tokens and back.

  Attributes:
    merges: the pairs in the order in which they were learnt; each is of bytes and of
      merges before it.
  """

  merges: tuple[Pair, ...]
  unit = 'token'

  def __post_init__(self):
    made = enumerate(self.merges, BYTES)
    right = all(0 <= min(pair) <= max(pair) < new for new, pair in made)
    if not right or len(set(self.merges)) != len(self.merges):
      raise ConfigError(
        'Merges of byte pairs must be distinct pairs of tokens that were made before.'
      )

  def __len__(self) -> int:
    return BYTES + len(self.merges)

  @functools.cached_property
  def ranks(self) -> dict[Pair, int]:
    """When a pair was learnt."""
    return {pair: i for i, pair in enumerate(self.merges)}

  @functools.cached_property
  def parts(self) -> list[bytes]:
    """The bytes of every token."""
    found = [bytes([i]) for i in range(BYTES)]
    for a, b in self.merges:
      found.append(found[a] + found[b])
    return found

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N] int32.

    Raises:
      DataError: half of a surrogate pair.
    """
    to_bytes(text)  # Says where it is not one; pieces would say where in a piece.
    known: dict[str, list[int]] = {}
    found: list[int] = []
    for piece in pieces(text):
      if piece not in known:
        known[piece] = self._of_piece(to_bytes(piece))
      found += known[piece]
    return np.array(found, np.int32)

  def decode(self, tokens: Iterable[int]) -> str:
    """The text; U+FFFD for bytes that are no UTF-8, and for what is no token."""
    return self.decode_bytes(tokens).decode('utf-8', 'replace')

  def decode_bytes(self, tokens: Iterable[int]) -> bytes:
    """The bytes; those of U+FFFD for what is no token."""
    parts, unknown = self.parts, '\ufffd'.encode()
    known = lambda token: parts[token] if 0 <= token < len(parts) else unknown
    return b''.join(known(int(token)) for token in tokens)

  def _of_piece(self, data: bytes) -> list[int]:
    """The pairs of one piece are merged in the order in which they were learnt."""
    word, ranks, last = list(data), self.ranks, len(self.merges)
    while len(word) > 1:
      rank = min(ranks.get(pair, last) for pair in zip(word, word[1:]))
      if rank == last:
        break
      word = _merged(word, self.merges[rank], BYTES + rank)
    return word
