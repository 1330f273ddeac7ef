"""What the texts of a new set are cut into: as a person asks, and as its card says."""

import os
from typing import Any, NamedTuple, Sequence

from etils import epath

from dlx.config import check_choice
from dlx.data.formats import files
from dlx.data.sets.characters import FILE, TOKENS
from dlx.data.text import byte_pairs, tokenizer_file, vocabulary
from dlx.data.text.padded import Padded, Shifted
from dlx.errors import ConfigError

BYTE_PAIRS = 8192  # Tokens of the vocabulary of many texts, where no number is asked.


class Asked(NamedTuple):
  """What a token shall be.

  Attributes:
    kind: one of TOKENS, or FILE.
    vocab_size: tokens at most; None: not said.
    file: the vocabulary of a tokenizer.json, where the kind is FILE.
    source: where that file lay.
  """

  kind: str
  vocab_size: int | None = None
  file: tokenizer_file.TokenizerFile | None = None
  source: str | None = None

  @property
  def marks(self) -> bool:
    """Of words: marks are set apart."""
    return self.kind == 'words'

  @property
  def characters(self) -> bool:
    """Whether each character is a token."""
    return self.kind == 'characters'

  @property
  def made(self) -> dict[str, Any]:
    """For `made` of a card."""
    return {
      'tokens': self.kind,
      'vocab_size': self.vocab_size,
      'tokenizer': self.source,
    }


def asked(
  tokens: str | None, vocab_size: int | None, tokenizer: Any, default: str
) -> Asked:
  """The choice of three flags.

  Args:
    tokens: one of TOKENS; None: the file, or the default.
    vocab_size: tokens at most, of what is learnt.
    tokenizer: path of a tokenizer.json; None: there is none.
    default: one of TOKENS.

  Raises:
    ConfigError: another kind, or flags that contradict each other.
    DataError: the file cannot be read, or the library that reads it is missing.
  """
  if tokenizer is None:
    kind = default if tokens is None else tokens
    check_choice('--tokens', kind, TOKENS)
    return Asked(kind, vocab_size)
  for flag, value in (('tokens', tokens), ('vocab_size', vocab_size)):
    if value is not None:
      raise ConfigError(
        f'--{flag}={value} is not allowed with --tokenizer: the file says what a token '
        'is; leave one of them out.'
      )
  place = os.path.abspath(os.fspath(tokenizer))
  raw = files.read_bytes(epath.Path(place))
  return Asked(FILE, None, tokenizer_file.of_json(raw, os.fspath(tokenizer)), place)


def facts_of_file(file: tokenizer_file.TokenizerFile) -> dict[str, Any]:
  """What a card says of a tokenizer.json."""
  return {'tokens': FILE, 'tokenizer': file.packed, 'num_tokens': file.size}


def of_texts(choice: Asked, texts: Sequence[str]) -> tuple[Any, dict[str, Any]]:
  """The vocabulary of texts that become padded rows, and what the card says of it.

  Args:
    choice: as asked.
    texts: those that train.

  Returns:
    What has `encode`, `decode` and a length, tokens 0 and 1 being those of
    vocabulary.SPECIAL; of byte pairs they are the bytes 0 and 1. Words and characters
    are not in the card: a run builds them from the same texts.
  """
  if choice.file is not None:
    return Shifted(choice.file), facts_of_file(choice.file)
  if choice.kind == 'bpe':
    size = BYTE_PAIRS if choice.vocab_size is None else choice.vocab_size
    found = byte_pairs.train('\n'.join(texts), size)
    merges = [list(pair) for pair in found.merges]
    return Padded(found), {'tokens': choice.kind, 'merges': merges}
  words = vocabulary.build(texts, 1, choice.marks, choice.characters)
  return words, {} if choice.kind == 'words' else {'tokens': choice.kind}
