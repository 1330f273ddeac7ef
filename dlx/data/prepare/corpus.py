"""Text files as a set of tokens: characters, words or byte pairs; the end validates."""

import os
from typing import Any, Mapping, Sequence

import numpy as np

from dlx.config import check_choice
from dlx.data.prepare import columns, readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.sets import characters
from dlx.data.text import byte_pairs, words
from dlx.errors import ConfigError, DataError

_LEAST = 100  # Tokens of either split.
SIZES = {'words': 8192, 'bpe': 1024}  # Of the vocabulary, where none is asked for.


def prepare(
  paths: Sequence[Any],
  name: str,
  data_dir: Any = None,
  *,
  validation: float = 0.1,
  encoding: str = 'utf-8',
  tokens: str = 'characters',
  vocab_size: int | None = None,
) -> Made:
  """Makes a text as tokens: `token` [] of the smallest dtype, see `token_dtype`.

  Files are read in the order given, with a newline between two of them; CRLF and CR are
  newlines. Words and byte pairs are learnt from what trains alone; characters are all
  that there are.

  Args:
    paths: of the files.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    validation: share of the characters, the end of the text, that validates.
    encoding: of the files.
    tokens: one of characters.TOKENS.
    vocab_size: tokens at most, of words and byte pairs; None: SIZES.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file that cannot be taken, or too short a text.
  """
  rows.check_share(validation, 'validation')
  _check_tokens(tokens, vocab_size)
  check_name(name, data_dir)
  readers.check_once(paths)
  text = '\n'.join(columns.text_of(path, encoding) for path in paths)
  text = text.replace('\r\n', '\n').replace('\r', '\n')
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise DataError(
      f'{paths[0]}: character {error.start} of the text is half of a pair: mend it.'
    ) from None
  cut = len(text) - round(validation * len(text))
  parts = {'train': text[:cut], 'validation': text[cut:]}
  vocabulary, facts = _vocabulary(text, parts['train'], tokens, vocab_size)
  dtype = characters.token_dtype(vocabulary)
  coded = {split: _encoded(vocabulary, x).astype(dtype) for split, x in parts.items()}
  if min(map(len, coded.values())) < _LEAST:
    raise DataError(
      f'{paths[0]}: {sum(map(len, coded.values()))} {_NAMES[tokens]} are too few: '
      f'training and validation need {_LEAST} each, and more than the context of the '
      'model.'
    )
  notes = _notes(tokens, vocabulary, parts, coded, vocab_size)
  if tokens == 'bpe':
    facts['validation_bytes'] = len(parts['validation'].encode())
  with draft(name, data_dir) as new:
    for split, token_N in coded.items():
      new.add(split, token=token_N)
    made = {
      'by': 'corpus',
      'source': [os.path.abspath(path) for path in paths],
      **{'validation': validation, 'encoding': encoding, 'notes': notes},
    }
    new.finish('characters', facts, made)
  return made_of(name, data_dir, notes)


_NAMES = {'characters': 'characters', 'words': 'words', 'bpe': 'tokens'}


def _check_tokens(tokens: str, vocab_size: int | None):
  check_choice('--tokens', tokens, characters.TOKENS)
  if vocab_size is not None and tokens not in SIZES:
    raise ConfigError(
      '--vocab_size is not allowed with --tokens=characters: all characters are '
      'tokens; add --tokens=words or --tokens=bpe.'
    )


def _vocabulary(
  text: str, train: str, tokens: str, vocab_size: int | None
) -> tuple[characters.Vocabulary, dict[str, Any]]:
  """The vocabulary, and what the card says of it."""
  if tokens == 'characters':
    known = ''.join(map(chr, np.unique(_codes(text))))
    return characters.Characters(known), {'vocabulary': known}
  size = SIZES[tokens] if vocab_size is None else vocab_size
  if tokens == 'words':
    found = words.build(train, size)
    return found, {'tokens': tokens, 'words': list(found.known)}
  pairs = byte_pairs.train(train, size)
  return pairs, {'tokens': tokens, 'merges': [list(pair) for pair in pairs.merges]}


def _codes(text: str) -> np.ndarray:
  return np.frombuffer(text.encode('utf-32-le'), np.uint32)


def _encoded(vocabulary: characters.Vocabulary, text: str) -> np.ndarray:
  if not isinstance(vocabulary, characters.Characters) or not text:
    return vocabulary.encode(text)
  # Of a large text character by character a table is quicker.
  return np.searchsorted(_codes(vocabulary.characters), _codes(text))


def _notes(
  tokens: str,
  vocabulary: characters.Vocabulary,
  parts: Mapping[str, str],
  coded: Mapping[str, np.ndarray],
  vocab_size: int | None,
) -> list[str]:
  """What a person should know."""
  if tokens == 'characters':
    if not (unseen := sorted(set(parts['validation']) - set(parts['train']))):
      return []
    shown = ' '.join(map(repr, unseen[:5]))
    return [f'{len(unseen)} character(s) stand in validation alone: {shown}.']
  notes = []
  if vocab_size is not None and len(vocabulary) < vocab_size:
    notes.append(
      f'The vocabulary has {len(vocabulary)} of the {vocab_size} tokens that were '
      'asked for: the training text holds no more that repeat.'
    )
  if tokens == 'words':
    shares = ', '.join(
      f'{split} {100 * np.mean(token_N == words.UNKNOWN):.1f} %'
      for split, token_N in coded.items()
    )
    notes.append(f'Words that the vocabulary lacks: {shares}.')
  return notes
