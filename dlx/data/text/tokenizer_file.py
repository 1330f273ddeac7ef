"""A tokenizer.json of Hugging Face's `tokenizers`, as a vocabulary of a data set.

The file is data: what the library reads is one JSON text, nothing is fetched and no
code is run. It travels as one string in the card of a set, and with it in the
config.json of a run, so that a trained model reads text where the file is not. The
library is asked for the first time that a text is read: a run trains without it.
"""

import base64
import binascii
import dataclasses
import functools
import importlib
import json
from typing import Any, Callable, Iterable
import zlib

import numpy as np

from dlx.errors import DataError

LARGEST = 1 << 26  # Bytes of a file, 64 MiB: those of today's models have up to 35 MB.
MOST_TOKENS = 1 << 24
_LEVEL = 9


@dataclasses.dataclass(frozen=True)
class TokenizerFile:
  """Text as tokens and back, by the rules of a file.

  Marks of the file (`<|endoftext|>`, `[MASK]`) that stand in a text are its special
  tokens; none is added before, behind or between texts, and lengths that the file asks
  for (truncation, padding) are left out. What comes back of a text is the text where
  the file is of byte pairs; others change letters or white space.

  Attributes:
    packed: the JSON text, compressed, in base64.
    size: tokens are in [0, size).
  """

  packed: str
  size: int
  unit = 'token'

  def __len__(self) -> int:
    return self.size

  @functools.cached_property
  def tokenizer(self) -> Any:
    """Of the library.

    Raises:
      DataError: the library is not installed, or this is no tokenizer.
    """
    return loaded(unpacked(self.packed), 'The tokenizer of this set')

  def encode(self, text: str) -> np.ndarray:
    """Tokens [N] int32.

    Raises:
      DataError: half of a surrogate pair; a word that the file has no token for, nor
        one for unknown words; see `tokenizer`.
    """
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise DataError(
        f'Character {error.start} of the text is half of a surrogate pair: mend it.'
      ) from None
    call = lambda: self.tokenizer.encode(text, add_special_tokens=False).ids
    token_N = np.array(
      _guarded(call, 'A text has no tokens in this tokenizer'), np.int32
    )
    if token_N.size and token_N.max() >= self.size:
      raise DataError(
        f'The tokenizer of this set gives token {token_N.max()}, and its card tells of '
        f'{self.size}: prepare the set again.'
      )
    return token_N

  def decode(self, tokens: Iterable[int]) -> str:
    """The text, special tokens as they are written; U+FFFD for what is no token."""
    found, run = [], []
    for token in (*map(int, tokens), -1):
      if 0 <= token < self.size and self.tokenizer.id_to_token(token) is not None:
        run.append(token)
        continue
      if run:
        found.append(self.tokenizer.decode(run, skip_special_tokens=False))
      found.append('\ufffd')
      run = []
    return ''.join(found[:-1])  # The last one stands for the end.


def of_json(raw: bytes, place: str) -> TokenizerFile:
  """The vocabulary of a file.

  Args:
    raw: what the file holds.
    place: what messages call it.

  Raises:
    DataError: it is too large, no tokenizer, or the library is not installed.
  """
  if len(raw) > LARGEST:
    raise DataError(
      f'{place}: has {len(raw)} bytes: a tokenizer has at most {LARGEST}.'
    )
  try:
    text = json.dumps(json.loads(raw), separators=(',', ':'))
  except (ValueError, RecursionError) as error:
    raise DataError(
      f'{place}: is no tokenizer.json ({_told(error)}): give the file of that name '
      'that lies beside a model of Hugging Face.'
    ) from None
  ids = loaded(text, place).get_vocab(with_added_tokens=True).values()
  size = max(ids, default=-1) + 1
  if not 0 < size <= MOST_TOKENS:
    raise DataError(f'{place}: has {size} tokens: must be in [1, {MOST_TOKENS}].')
  packed = base64.b64encode(zlib.compress(text.encode(), _LEVEL)).decode()
  return TokenizerFile(packed, size)


def unpacked(packed: str) -> str:
  """The JSON text of `TokenizerFile.packed`.

  Raises:
    DataError: it is none, or would become too large.
  """
  fault = None
  try:
    reader = zlib.decompressobj()
    raw = reader.decompress(base64.b64decode(packed, validate=True), LARGEST)
    if not reader.eof:
      whole = not reader.unconsumed_tail
      fault = 'it ends early' if whole else f'more than {LARGEST} bytes'
    text = raw.decode()
  except (binascii.Error, ValueError, zlib.error) as error:
    fault, text = _told(error), ''
  if fault:
    raise DataError(
      f'The tokenizer of this set is damaged ({fault}): prepare the set again, or '
      'bring back the config.json of the run.'
    )
  return text


def loaded(text: str, place: str) -> Any:
  """A `tokenizers.Tokenizer` without lengths of its own.

  Raises:
    DataError: the library is not installed, or the text is no tokenizer.
  """
  try:
    tokenizers = importlib.import_module('tokenizers')
  except ImportError:
    raise DataError(
      f'{place} is read by the package tokenizers, which is not installed: '
      "pip install -c constraints.txt -e '.[tokenizers]'."
    ) from None
  call = lambda: tokenizers.Tokenizer.from_str(text)
  found = _guarded(call, f'{place}: is no tokenizer.json that can be read')
  found.no_truncation()
  found.no_padding()
  return found


def _guarded(call: Callable[[], Any], fault: str) -> Any:
  """What `call` gives; DataError for all that the library raises."""
  try:
    return call()
  except (DataError, KeyboardInterrupt, SystemExit):
    raise
  except BaseException as error:  # A panic of Rust is no Exception.
    raise DataError(f'{fault} ({_told(error)}).') from None


def _told(error: BaseException) -> str:
  return (str(error).splitlines() or [''])[0].rstrip('.') or type(error).__name__
