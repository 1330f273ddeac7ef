"""Text files as a set of tokens, characters to a tokenizer.json; the end validates."""

import os
from typing import Any, Mapping, Sequence

import numpy as np

from dlx.data.prepare import columns, readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.prepare.tokens import Asked, asked, facts_of_file
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
  tokens: str | None = None,
  vocab_size: int | None = None,
  tokenizer: Any = None,
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
    tokens: one of characters.TOKENS; None: characters, unless there is a `tokenizer`.
    vocab_size: tokens at most, of words and byte pairs; None: SIZES.
    tokenizer: path of a tokenizer.json, whose tokens are taken.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file that cannot be taken, or too short a text.
  """
  rows.check_share(validation, 'validation')
  choice = asked(tokens, vocab_size, tokenizer, default='characters')
  if vocab_size is not None and choice.characters:
    raise ConfigError(
      '--vocab_size is not allowed with --tokens=characters: all characters are '
      'tokens; add --tokens=words or --tokens=bpe.'
    )
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
  vocabulary, facts = _vocabulary(text, parts['train'], choice)
  dtype = characters.token_dtype(vocabulary)
  coded = {split: _encoded(vocabulary, x).astype(dtype) for split, x in parts.items()}
  if min(map(len, coded.values())) < _LEAST:
    raise DataError(
      f'{paths[0]}: {sum(map(len, coded.values()))} {_NAMES[choice.kind]} are too few: '
      f'training and validation need {_LEAST} each, and more than the context of the '
      'model.'
    )
  whole = _comes_back(choice, vocabulary, parts['validation'], coded['validation'])
  notes = _notes(choice, vocabulary, parts, coded)
  if choice.file is not None and not whole:
    notes.append(
      'The tokens are not the whole text: this tokenizer changes letters or white '
      'space, or lacks some; there are no bits a byte.'
    )
  if whole:
    facts['validation_bytes'] = len(parts['validation'].encode())
  with draft(name, data_dir) as new:
    for split, token_N in coded.items():
      new.add(split, token=token_N)
    made = {
      'by': 'corpus',
      'source': [os.path.abspath(path) for path in paths],
      **{'validation': validation, 'encoding': encoding, 'notes': notes},
      **choice.made,
    }
    new.finish('characters', facts, made)
  return made_of(name, data_dir, notes)


_NAMES = {
  'characters': 'characters',
  'words': 'words',
  'bpe': 'tokens',
  characters.FILE: 'tokens',
}


def _vocabulary(
  text: str, train: str, choice: Asked
) -> tuple[characters.Vocabulary, dict[str, Any]]:
  """The vocabulary, and what the card says of it."""
  if choice.file is not None:
    return choice.file, facts_of_file(choice.file)
  if choice.characters:
    known = ''.join(map(chr, np.unique(_codes(text))))
    return characters.Characters(known), {'vocabulary': known}
  size = SIZES[choice.kind] if choice.vocab_size is None else choice.vocab_size
  if choice.kind == 'words':
    found = words.build(train, size)
    return found, {'tokens': choice.kind, 'words': list(found.known)}
  pairs = byte_pairs.train(train, size)
  merges = [list(pair) for pair in pairs.merges]
  return pairs, {'tokens': choice.kind, 'merges': merges}


def _comes_back(
  choice: Asked, vocabulary: characters.Vocabulary, text: str, token_N: np.ndarray
) -> bool:
  """Whether a loss can be told in bits a byte: the tokens are the whole text."""
  if choice.file is None:
    return choice.kind == 'bpe'
  return vocabulary.decode(token_N) == text


def _codes(text: str) -> np.ndarray:
  return np.frombuffer(text.encode('utf-32-le'), np.uint32)


def _encoded(vocabulary: characters.Vocabulary, text: str) -> np.ndarray:
  if not isinstance(vocabulary, characters.Characters) or not text:
    return vocabulary.encode(text)
  # Of a large text character by character a table is quicker.
  return np.searchsorted(_codes(vocabulary.characters), _codes(text))


def _notes(
  choice: Asked,
  vocabulary: characters.Vocabulary,
  parts: Mapping[str, str],
  coded: Mapping[str, np.ndarray],
) -> list[str]:
  """What a person should know."""
  if choice.characters:
    if not (unseen := sorted(set(parts['validation']) - set(parts['train']))):
      return []
    shown = ' '.join(map(repr, unseen[:5]))
    return [f'{len(unseen)} character(s) stand in validation alone: {shown}.']
  notes = []
  if choice.vocab_size is not None and len(vocabulary) < choice.vocab_size:
    notes.append(
      f'The vocabulary has {len(vocabulary)} of the {choice.vocab_size} tokens that '
      'were asked for: the training text holds no more that repeat.'
    )
  if choice.kind == 'words':
    shares = ', '.join(
      f'{split} {100 * np.mean(token_N == words.UNKNOWN):.1f} %'
      for split, token_N in coded.items()
    )
    notes.append(f'Words that the vocabulary lacks: {shares}.')
  return notes
