"""Text files as a set of characters; the end of the text validates."""

import os
from typing import Any, Sequence

import numpy as np

from dlx.data.prepare import columns, readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.sets import characters
from dlx.errors import DataError

_LEAST = 100  # Characters of either split.


def prepare(
  paths: Sequence[Any],
  name: str,
  data_dir: Any = None,
  *,
  validation: float = 0.1,
  encoding: str = 'utf-8',
) -> Made:
  """Makes a text by characters: `token` [] of the smallest dtype, see `token_dtype`.

  Files are read in the order given, with a newline between two of them; CRLF and CR are
  newlines.

  Args:
    paths: of the files.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    validation: share of the text, its end, that validates.
    encoding: of the files.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file that cannot be taken, or too short a text.
  """
  rows.check_share(validation, 'validation')
  check_name(name, data_dir)
  readers.check_once(paths)
  text = '\n'.join(columns.text_of(path, encoding) for path in paths)
  text = text.replace('\r\n', '\n').replace('\r', '\n')
  try:
    code_N = np.frombuffer(text.encode('utf-32-le'), np.uint32)
  except UnicodeEncodeError as error:
    raise DataError(
      f'{paths[0]}: character {error.start} of the text is half of a pair: mend it.'
    ) from None
  known_V = np.unique(code_N)
  vocabulary = ''.join(map(chr, known_V))
  table = np.zeros(int(known_V[-1]) + 1, characters.token_dtype(vocabulary))
  table[known_V] = np.arange(len(known_V))
  cut = len(code_N) - round(validation * len(code_N))
  parts = {'train': code_N[:cut], 'validation': code_N[cut:]}
  if min(map(len, parts.values())) < _LEAST:
    raise DataError(
      f'{paths[0]}: {len(code_N)} characters are too few: training and validation need '
      f'{_LEAST} each, and more than the context of the model.'
    )
  notes = []
  unseen = np.setdiff1d(parts['validation'], parts['train'])
  if unseen.size:
    shown = ' '.join(repr(chr(c)) for c in unseen[:5])
    notes.append(f'{unseen.size} character(s) stand in validation alone: {shown}.')
  with draft(name, data_dir) as new:
    for split, codes in parts.items():
      new.add(split, token=table[codes])
    made = {
      'by': 'corpus',
      'source': [os.path.abspath(path) for path in paths],
      **{'validation': validation, 'encoding': encoding, 'notes': notes},
    }
    new.finish('characters', {'vocabulary': vocabulary}, made)
  return made_of(name, data_dir, notes)
