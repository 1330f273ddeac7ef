"""Text as numbers: tokens, a vocabulary, padded rows.

Tokens are lower-cased words between white space: sets such as SST-2 come with marks
already set apart. Token 0 pads and stands in no sentence, so that the length of a row
is the number of its other tokens; token 1 is every word that the vocabulary lacks.
"""

import collections
import dataclasses
import functools
from typing import Iterable, Mapping, Sequence

import numpy as np

from dlx.errors import ConfigError

PAD, UNKNOWN = 0, 1
SPECIAL = ('<pad>', '<unk>')


def tokenise(text: str) -> list[str]:
  """The lower-cased words of a text, as white space divides it."""
  return text.lower().split()


@dataclasses.dataclass(frozen=True)
class Vocab:
  """Words by number.

  Attributes:
    words: word of each number, the two of SPECIAL first.
  """

  words: tuple[str, ...]

  def __post_init__(self):
    if self.words[:2] != SPECIAL or len(set(self.words)) != len(self.words):
      raise ConfigError(
        f'A vocabulary must hold distinct words and begin with {" and ".join(SPECIAL)}.'
      )

  def __len__(self) -> int:
    return len(self.words)

  @functools.cached_property
  def ids(self) -> Mapping[str, int]:
    """Number of each word; what looks like a special word is an unknown one."""
    return {word: i for i, word in enumerate(self.words) if i >= len(SPECIAL)}

  def encode(self, text: str) -> list[int]:
    """Numbers of the tokens; of a text without any, one unknown word."""
    ids = self.ids
    return [ids.get(word, UNKNOWN) for word in tokenise(text)] or [UNKNOWN]

  def decode(self, tokens: Iterable[int]) -> str:
    """The words, padding left out, with one space between them."""
    return ' '.join(self.words[i] for i in map(int, tokens) if i != PAD)


def build(texts: Iterable[str], min_count: int = 1) -> Vocab:
  """The vocabulary of training texts, the most frequent words first.

  Words of equal count stand in the order of their characters, so that the order of the
  texts changes nothing.

  Args:
    texts: of the training split alone.
    min_count: words that are rarer are unknown; at least 1.
  """
  if min_count < 1:
    raise ConfigError(f'min_count={min_count} is not allowed: must be at least 1.')
  counts = collections.Counter(word for text in texts for word in tokenise(text))
  kept = [w for w, n in counts.items() if n >= min_count and w not in SPECIAL]
  return Vocab(SPECIAL + tuple(sorted(kept, key=lambda w: (-counts[w], w))))


def collate(sequences: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """int32 [N, length]: rows cut at `length`, or filled up with PAD on the right."""
  tokens_NT = np.full((len(sequences), length), PAD, np.int32)
  for row, sequence in zip(tokens_NT, sequences, strict=True):
    row[: len(sequence)] = sequence[:length]
  return tokens_NT


def lengths(tokens_NT: np.ndarray) -> np.ndarray:
  """int32 [N]: tokens of each row that are no padding."""
  return (tokens_NT != PAD).sum(1, dtype=np.int32)
