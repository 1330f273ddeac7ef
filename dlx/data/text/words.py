"""Text by words: the most frequent pieces of a text, and one token for all others.

Pieces are those of byte_pairs.py, a word with the space before it among them, so that
they only need to be joined to be read.
"""

import collections
import dataclasses
import functools
from typing import Iterable

import numpy as np

from dlx.data.text.byte_pairs import pieces
from dlx.errors import ConfigError

UNKNOWN = 0


@dataclasses.dataclass(frozen=True)
class Words:
  """Text as tokens and back, but for what is unknown.

  Attributes:
    known: of tokens 1, 2, ...; token 0 is every other piece.
  """

  known: tuple[str, ...]
  unit = 'word'

  def __post_init__(self):
    if len(set(self.known)) != len(self.known) or not all(self.known):
      raise ConfigError(
        'The words of a vocabulary must be distinct, none of them empty.'
      )

  def __len__(self) -> int:
    return len(self.known) + 1

  @functools.cached_property
  def ids(self) -> dict[str, int]:
    """Token of each word."""
    return {word: i for i, word in enumerate(self.known, 1)}

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N] int32."""
    return np.array([self.ids.get(x, UNKNOWN) for x in pieces(text)], np.int32)

  def decode(self, tokens: Iterable[int]) -> str:
    """The words one after the other; U+FFFD for what is unknown or no token."""
    read = lambda token: self.known[token - 1] if 0 < token < len(self) else '\ufffd'
    return ''.join(read(int(token)) for token in tokens)


def build(text: str, vocabulary_size: int) -> Words:
  """The most frequent words of a text, of equally frequent ones the first by character.

  Args:
    text: of the training split alone.
    vocabulary_size: tokens, the unknown one among them; there are fewer where the text
      has fewer words.

  Raises:
    ConfigError: a size below 2.
  """
  if vocabulary_size < 2:
    raise ConfigError(
      f'vocab_size={vocabulary_size} is not allowed: must be at least 2, the unknown '
      'word and one more.'
    )
  counts = collections.Counter(pieces(text))
  ordered = sorted(counts, key=lambda word: (-counts[word], word))
  return Words(tuple(ordered[: vocabulary_size - 1]))
