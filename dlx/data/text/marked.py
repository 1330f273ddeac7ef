"""Vocabularies with the marks of an encoder of texts first (arXiv:1810.04805).

Token 0 pads, 1 is what another vocabulary would not know, 2 begins a row, 3 ends each
of its texts, 4 stands where a token is hidden.
"""

import dataclasses
import re
from typing import Any, Iterable

import numpy as np

from dlx.data.text.vocabulary import PAD, SPECIAL

FIRST, END, HIDDEN = 2, 3, 4
MARKS = (*SPECIAL, '[CLS]', '[SEP]', '[MASK]')
# A hidden token has the space before it in it, as tokens of words have.
_HIDDEN = re.compile(r' ?\[MASK\]')


@dataclasses.dataclass(frozen=True)
class Marked:
  """Another vocabulary behind the five of MARKS.

  Attributes:
    coder: any, see `Field.vocabulary`; its token i is token 5 + i here.
  """

  coder: Any

  @property
  def unit(self) -> str:
    """What a token is."""
    return self.coder.unit

  def __len__(self) -> int:
    return len(MARKS) + len(self.coder)

  def plain(self, text: str) -> np.ndarray:
    """Tokens [N] int32 of a text, in which [MASK] is six letters like others."""
    return np.asarray(self.coder.encode(text), np.int32) + len(MARKS)

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N] int32; HIDDEN for each [MASK] in the text."""
    first, *others = _HIDDEN.split(text)
    parts = [self.plain(first)]
    for other in others:
      parts += [np.array([HIDDEN], np.int32), self.plain(other)]
    return np.concatenate(parts)

  def decode(self, tokens: Iterable[int]) -> str:
    """The text; [MASK] for hidden tokens, other marks left out."""
    found, run = [], []
    for token in (*map(int, tokens), HIDDEN):
      if token == HIDDEN:
        found.append(self.coder.decode(run))
        run = []
      elif token == PAD or not 0 <= token < len(MARKS):
        run += [token - len(MARKS)] * (token != PAD)
    return ' [MASK]'.join(found)
