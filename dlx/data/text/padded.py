"""Vocabularies whose token 0 fills rows up and stands in no text."""

import dataclasses
from typing import Any, Iterable

import numpy as np

from dlx.data.text.vocabulary import PAD, SPECIAL


@dataclasses.dataclass(frozen=True)
class Padded:
  """Another vocabulary, of which token 0 is the character NUL.

  Attributes:
    coder: of characters, the first of them NUL, or of byte pairs, whose token 0 is the
      byte 0; see `Field.vocabulary`.
  """

  coder: Any

  @property
  def unit(self) -> str:
    """What a token is."""
    return self.coder.unit

  def __len__(self) -> int:
    return len(self.coder)

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N]; a NUL in the text is left out."""
    return self.coder.encode(text.replace('\0', ''))

  def decode(self, tokens: Iterable[int]) -> str:
    """The text, padding left out."""
    return self.coder.decode([token for token in map(int, tokens) if token != PAD])


@dataclasses.dataclass(frozen=True)
class Shifted:
  """Another vocabulary behind the padding and the unknown token of vocabulary.SPECIAL.

  Attributes:
    coder: any, see `Field.vocabulary`; its token i is token 2 + i here.
  """

  coder: Any

  @property
  def unit(self) -> str:
    """What a token is."""
    return self.coder.unit

  def __len__(self) -> int:
    return len(SPECIAL) + len(self.coder)

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N]."""
    return np.asarray(self.coder.encode(text), np.int32) + len(SPECIAL)

  def decode(self, tokens: Iterable[int]) -> str:
    """The text, padding left out; the unknown token as one that the other has not."""
    return self.coder.decode([t - len(SPECIAL) for t in map(int, tokens) if t != PAD])
