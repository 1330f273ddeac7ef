"""Texts as tokens, by name: what `--config.dataset` of a language model takes.

pydoc             the reference manual inside every Python (pydoc_data.topics)
tiny_shakespeare  Shakespeare's plays, from the data folder (dlx/data/formats/text.py)

Both are texts by characters. Any other name is that of a set of the user's own, by its
card: by characters, words, byte pairs or the tokens of a tokenizer.json.
"""

import dataclasses
import functools
import hashlib
import platform
from typing import Any, Iterable, Mapping, NamedTuple, Protocol

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import text
from dlx.data.sets import cards, registry
from dlx.data.text.byte_pairs import BytePairs
from dlx.data.text.tokenizer_file import TokenizerFile
from dlx.data.text.words import Words
from dlx.errors import DataError

PRINTABLE = '\n' + ''.join(map(chr, range(32, 127)))
# Python 3.11 has 376238 characters of it, 3.12 has 400156: the first of them, so that
# every version has as many. What they say differs.
PYDOC_COUNTS = {'train': 324000, 'validation': 36000}


class Vocabulary(Protocol):
  """Text as tokens and back; see `Field.vocabulary`. `len` of it bounds the tokens."""

  @property
  def unit(self) -> str:
    """What a token is: character, word or token."""
    ...

  def __len__(self) -> int: ...

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N]."""
    ...

  def decode(self, tokens: Iterable[int]) -> str:
    """The text of tokens [N]."""
    ...


@dataclasses.dataclass(frozen=True)
class Characters:
  """A vocabulary of characters, in the order of their tokens."""

  characters: str
  unit = 'character'

  def __len__(self) -> int:
    return len(self.characters)

  def encode(self, text: str) -> np.ndarray:
    return encode(text, self.characters)

  def decode(self, tokens: Any) -> str:
    return decode(tokens, self.characters)


class CharacterData(NamedTuple):
  """A text as tokens.

  Attributes:
    name: as in `--config.dataset`.
    train: `token` [] of the smallest dtype, see `token_dtype`, in the order of the
      text.
    validation: likewise; the end of the text.
    vocabulary: what the tokens stand for.
    bytes_per_token: of the UTF-8 of what validates; None: not known, or some of it is
      unknown to the vocabulary.
  """

  name: str
  train: Source
  validation: Source
  vocabulary: Vocabulary
  bytes_per_token: float | None = None


# How a text of the user's own may be cut into tokens, besides by a file.
TOKENS = ('characters', 'words', 'bpe')
FILE = 'tokenizer'


def of_facts(facts: Mapping[str, Any]) -> Vocabulary:
  """The vocabulary that a card describes.

  Raises:
    KeyError, TypeError, ValueError: the card lacks something, or contradicts itself.
  """
  kind = facts.get('tokens', 'characters')
  if kind == 'bpe':
    return BytePairs(tuple((int(a), int(b)) for a, b in facts['merges']))
  if kind == 'words':
    return Words(tuple(facts['words']))
  if kind == FILE:
    return TokenizerFile(facts['tokenizer'], facts['num_tokens'])
  return Characters(facts['vocabulary'])


def characters(name: str) -> CharacterData:
  """A text by name; reads nothing.

  Raises:
    ConfigError: no set of this kind has the name.
  """
  card = registry.check(name, 'characters')
  if card is not None:
    train, validation = (cards.source(card, s) for s in ('train', 'validation'))
    size = card.facts.get('validation_bytes')
    each = None if size is None else size / card.facts['sizes']['validation']
    return CharacterData(name, train, validation, of_facts(card.facts), each)
  if name == 'pydoc':
    vocabulary, sizes, get = PRINTABLE, PYDOC_COUNTS, _read_pydoc
  else:
    vocabulary, sizes = text.SHAKESPEARE_VOCABULARY, text.SHAKESPEARE_COUNTS
    get = _read_tiny_shakespeare
  shapes = {'token': jax.ShapeDtypeStruct((), np.uint8)}
  train, validation = (
    Source(name, split, shapes, sizes[split], functools.partial(get, split))
    for split in ('train', 'validation')
  )
  return CharacterData(name, train, validation, Characters(vocabulary))


def encode(string: str, vocabulary: str) -> np.ndarray:
  """Tokens of a string [N], of the dtype of `token_dtype`.

  Raises:
    DataError: a character that is not in the vocabulary.
  """
  if unknown := sorted(set(string) - set(vocabulary)):
    raise DataError(
      f'Character {unknown[0]!r} is not allowed: must be one of the {len(vocabulary)} '
      'of the vocabulary.'
    )
  place = {character: i for i, character in enumerate(vocabulary)}
  dtype = token_dtype(vocabulary)
  return np.fromiter((place[c] for c in string), dtype, len(string))


def token_dtype(vocabulary: str | Vocabulary) -> np.dtype:
  """The smallest dtype that holds every token: uint8, uint16 or int32."""
  fits = [t for t in (np.uint8, np.uint16) if len(vocabulary) <= np.iinfo(t).max + 1]
  return np.dtype((fits or [np.int32])[0])


def decode(tokens: Any, vocabulary: str) -> str:
  """The string of tokens [N]; U+FFFD for one that is not in the vocabulary."""
  known = lambda token: vocabulary[token] if 0 <= token < len(vocabulary) else '\ufffd'
  return ''.join(known(int(token)) for token in np.asarray(tokens))


def pydoc_text() -> str:
  """Python's reference manual, printable ASCII and newlines, each paragraph once.

  A fifth of its lines stand under more than one topic: without repeats, none of what
  validates was trained on.

  Raises:
    DataError: this Python has no pydoc_data.
  """
  try:
    from pydoc_data import topics
  except ImportError as e:
    raise DataError(
      'pydoc: this Python has no module pydoc_data: install the documentation of the '
      'standard library, or set dataset=tiny_shakespeare.'
    ) from e
  paragraphs = dict.fromkeys(
    paragraph
    for _, topic in sorted(topics.topics.items())
    for paragraph in topic.split('\n\n')
  )
  kept = set(PRINTABLE)
  return ''.join(c for c in '\n\n'.join(paragraphs) if c in kept)


def _read_pydoc(split: str, data_dir: Any = None) -> Loaded:
  del data_dir
  total = sum(PYDOC_COUNTS.values())
  string = pydoc_text()
  if len(string) < total:
    raise DataError(
      f'pydoc: expected at least {total} characters, found {len(string)} in Python '
      f'{platform.python_version()}: use another Python, or dataset=tiny_shakespeare.'
    )
  cut = PYDOC_COUNTS['train']
  part = string[:cut] if split == 'train' else string[cut:total]
  origin = {
    'name': 'pydoc',
    'split': split,
    'kind': 'embedded',
    'python': platform.python_version(),
    'sha256': hashlib.sha256(part.encode()).hexdigest(),
    'size': len(part),
  }
  return Loaded({'token': encode(part, PRINTABLE)}, origin)


def _read_tiny_shakespeare(split: str, data_dir: Any = None) -> Loaded:
  loaded = text.read_tiny_shakespeare(split, data_dir)
  string = bytes(loaded.data['character']).decode('latin-1')
  tokens = encode(string, text.SHAKESPEARE_VOCABULARY)
  return Loaded({'token': tokens}, loaded.origin)
