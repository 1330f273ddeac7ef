"""A vocabulary whose token 0 fills rows up and stands in no text."""

import dataclasses
from typing import Any, Iterable

import numpy as np

from dlx.data.text.vocabulary import PAD


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
