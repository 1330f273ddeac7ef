"""ImageNet's validation pictures in one flat folder, their labels, and class names.

The pictures of ILSVRC2012 and of Tiny ImageNet that validate lie in one folder; a file
beside them says of which class each is. Training folders have the names of WordNet's
sets of synonyms, n01440764. Known are

  LOC_val_solution.csv                             name, and n01440764 and boxes
  ILSVRC2012_validation_ground_truth.txt           a number a line; with meta.mat
  imagenet_2012_validation_synset_labels.txt       n01440764 a line
  val_annotations.txt                              name, n01440764, box, by tabs
  LOC_synset_mapping.txt, words.txt, meta.mat      n01440764 and its words

in the folder of the set, in that of the pictures or in the `data` of the devkit.
"""

import csv
import pathlib
import re
from typing import Any, Iterable, Mapping, Sequence

from dlx.errors import DataError

SYNSET = re.compile(r'n\d{8}')
DEVKIT = 'ILSVRC2012_devkit_t12'
_NUMBER = re.compile(r'_(\d+)$')  # Of a picture, at the end of its name, from 1.
_LABELS = (
  'LOC_val_solution.csv',
  'val_annotations.txt',
  'imagenet_2012_validation_synset_labels.txt',
  'ILSVRC2012_validation_ground_truth.txt',
)


def labels(
  root: pathlib.Path, part: pathlib.Path, names: Iterable[str]
) -> Mapping[str, str] | None:
  """The set of synonyms of each picture of a flat folder, by file name.

  Args:
    root: folder of the whole set.
    part: folder of the pictures.
    names: of their files.

  Returns:
    None: no file of labels is there.

  Raises:
    DataError: a picture without a label, or a file that cannot be read.
  """
  found = next((x for x in (_find(name, root, part) for name in _LABELS) if x), None)
  if found is None:
    return None
  by_name = found.name in _LABELS[:2]
  known = _by_name(found) if by_name else _by_number(found, root, part)
  out = {}
  for name in names:
    stem = pathlib.PurePath(name).stem
    number = _NUMBER.search(stem)
    key = stem if by_name else str(int(number[1])) if number else ''
    if key not in known:
      raise DataError(f'{found}: has no label for {name}: add it, or remove the file.')
    out[name] = known[key]
  return out


def class_names(root: pathlib.Path, classes: Sequence[str]) -> list[str]:
  """Words for sets of synonyms, as far as a file beside the pictures has them.

  The first word of each; where two have the same, with n01440764 behind it.

  Args:
    root: folder of the whole set.
    classes: names of the folders; returned as they are unless all are n01440764.
  """
  if not all(SYNSET.fullmatch(name) for name in classes):
    return list(classes)
  words: dict[str, str] = {}
  for name in ('LOC_synset_mapping.txt', 'words.txt'):
    if path := _find(name, root):
      for line in _lines(path):
        synset, _, text = line.replace('\t', ' ').partition(' ')
        words[synset] = text.partition(',')[0].strip()
      break
  else:
    if path := _find('meta.mat', root):
      words = {x: text.partition(',')[0] for x, text in _meta(path).values()}
  told = [words.get(name) or name for name in classes]
  return [
    f'{word} ({name})' if told.count(word) > 1 else word
    for word, name in zip(told, classes, strict=True)
  ]


def _find(name: str, *folders: pathlib.Path) -> pathlib.Path | None:
  places = [*folders, folders[0] / DEVKIT / 'data']
  return next((x / name for x in places if (x / name).is_file()), None)


def _lines(path: pathlib.Path) -> list[str]:
  try:
    return path.read_text('utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise DataError(f'{path}: byte {error.start} is not utf-8.') from None


def _by_name(path: pathlib.Path) -> dict[str, str]:
  """By the stem of a picture."""
  dialect = 'excel' if path.suffix == '.csv' else 'excel-tab'
  found = {}
  for i, row in enumerate(csv.reader(_lines(path), dialect), 1):
    words = row[1].split() if len(row) > 1 else []
    if i == 1 and path.suffix == '.csv':
      continue  # The header.
    if not words or not SYNSET.fullmatch(words[0]):
      raise DataError(
        f'{path}: line {i}: has no class such as n01440764 behind a name.'
      )
    found[pathlib.PurePath(row[0]).stem] = words[0]
  return found


def _by_number(
  path: pathlib.Path, root: pathlib.Path, part: pathlib.Path
) -> dict[str, str]:
  """By the number of a picture, that of the line."""
  lines, numbers = _lines(path), {}
  if path.name == _LABELS[-1]:
    meta = _find('meta.mat', root, part)
    if meta is None:
      raise DataError(
        f'{path}: needs meta.mat of {DEVKIT} to say what its numbers stand for: put it '
        'beside the file.'
      )
    numbers = {str(k): synset for k, (synset, _) in _meta(meta).items()}
  found = {}
  for i, line in enumerate(lines, 1):
    synset = numbers.get(line.strip(), line.strip())
    if not SYNSET.fullmatch(synset):
      raise DataError(f'{path}: line {i}: {line.strip()!r} is no class.')
    found[str(i)] = synset
  return found


def _meta(path: pathlib.Path) -> dict[int, tuple[str, str]]:
  """(n01440764, its words) by number: leaves of the tree alone."""
  from scipy import io

  try:
    rows: Any = io.loadmat(path, squeeze_me=True)['synsets']
    return {
      int(row['ILSVRC2012_ID']): (str(row['WNID']), str(row['words']))
      for row in rows
      if not int(row['num_children'])
    }
  except Exception as error:  # SciPy raises many kinds, all of them the file's.
    raise DataError(f'{path}: is no meta.mat of {DEVKIT} ({error}).') from None
