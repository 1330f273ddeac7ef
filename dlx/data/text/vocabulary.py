"""Text as numbers: tokens, a vocabulary, padded rows.

Tokens are lower-cased words between white space: sets such as SST-2 come with marks
already set apart; where `marks` is said, they are set apart here. Or they are the
characters as they are. Token 0 pads and
stands in no sentence, so that the length of a row is the number of its other tokens;
token 1 is every word, or character, that the vocabulary lacks.
"""

import collections
import dataclasses
import functools
import itertools
import re
from typing import Iterable, Mapping, Sequence

import numpy as np

from dlx.errors import ConfigError

PAD, UNKNOWN = 0, 1
SPECIAL = ('<pad>', '<unk>')


# Punctuation and symbols, and the writing that has no spaces between its words.
_MARKS = (
  r'!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7'
  r'\u2010-\u205e\u20a0-\u2bff\u3001-\u30ff\u3400-\u9fff\uff01-\uff0f'
  r'\U0001f000-\U0001faff'
)
_WORD_OR_MARK = re.compile(rf"[^\s{_MARKS}]+(?:['\u2019][^\s{_MARKS}]+)*|[{_MARKS}]")


def tokenise(text: str, marks: bool = False, characters: bool = False) -> list[str]:
  """The lower-cased words of a text, as white space divides it, or its characters.

  Args:
    text: any.
    marks: each mark, such as a full stop, is a word of its own; "it's" is one word.
    characters: every character is one, white space and capital letters too.
  """
  if characters:
    return list(text)
  return _WORD_OR_MARK.findall(text.lower()) if marks else text.lower().split()


def end(text: str, length: int) -> int | None:
  """Where a text ends after `length` tokens of words and marks; None: it is shorter."""
  found = next(itertools.islice(_WORD_OR_MARK.finditer(text), length - 1, None), None)
  return found and found.end()


@dataclasses.dataclass(frozen=True)
class Vocab:
  """Words, or characters, by number.

  Attributes:
    words: word of each number, the two of SPECIAL first.
    marks: whether each mark of a text is a word, see `tokenise`.
    characters: whether each character is a word, likewise.
  """

  words: tuple[str, ...]
  marks: bool = False
  characters: bool = False

  def __post_init__(self):
    if self.words[:2] != SPECIAL or len(set(self.words)) != len(self.words):
      raise ConfigError(
        f'A vocabulary must hold distinct words and begin with {" and ".join(SPECIAL)}.'
      )

  def __len__(self) -> int:
    return len(self.words)

  @property
  def unit(self) -> str:
    """What a token is."""
    return 'character' if self.characters else 'word'

  @functools.cached_property
  def ids(self) -> Mapping[str, int]:
    """Number of each word; what looks like a special word is an unknown one."""
    return {word: i for i, word in enumerate(self.words) if i >= len(SPECIAL)}

  def encode(self, text: str) -> list[int]:
    """Numbers of the tokens; of a text without any, one unknown word."""
    words = tokenise(text, self.marks, self.characters)
    return [self.ids.get(word, UNKNOWN) for word in words] or [UNKNOWN]

  def decode(self, tokens: Iterable[int]) -> str:
    """The words, padding left out, with a space between them; characters without."""
    between = '' if self.characters else ' '
    return between.join(self.words[i] for i in map(int, tokens) if i != PAD)


def build(
  texts: Iterable[str],
  min_count: int = 1,
  marks: bool = False,
  characters: bool = False,
) -> Vocab:
  """The vocabulary of training texts, the most frequent words first.

  Words of equal count stand in the order of their characters, so that the order of the
  texts changes nothing.

  Args:
    texts: of the training split alone.
    min_count: words that are rarer are unknown; at least 1.
    marks: as of `tokenise`.
    characters: likewise.
  """
  if min_count < 1:
    raise ConfigError(f'min_count={min_count} is not allowed: must be at least 1.')
  counts = collections.Counter(
    word for text in texts for word in tokenise(text, marks, characters)
  )
  kept = [w for w, n in counts.items() if n >= min_count and w not in SPECIAL]
  words = SPECIAL + tuple(sorted(kept, key=lambda w: (-counts[w], w)))
  return Vocab(words, marks, characters)


def collate(sequences: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """int32 [N, length]: rows cut at `length`, or filled up with PAD on the right."""
  tokens_NT = np.full((len(sequences), length), PAD, np.int32)
  for row, sequence in zip(tokens_NT, sequences, strict=True):
    row[: len(sequence)] = sequence[:length]
  return tokens_NT


def lengths(tokens_NT: np.ndarray) -> np.ndarray:
  """int32 [N]: tokens of each row that are no padding."""
  return (tokens_NT != PAD).sum(1, dtype=np.int32)
