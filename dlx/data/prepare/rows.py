"""What every kind of set asks of its rows before they are taken."""

import hashlib
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from dlx.config import check_choice
from dlx.data.prepare.draft import Draft
from dlx.data.sources import held_out, of_arrays
from dlx.errors import ConfigError, DataError

SPLIT_NAMES = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('validation', 'valid', 'val', 'dev'), 'validation'),
  **dict.fromkeys(('test', 'testing'), 'test'),
}
_BATCH = 64  # dlx.config's default.


CHOICES = {
  'fit': ('crop', 'pad', 'stretch'),
  'predict': ('classes', 'numbers'),
  'repeats': ('refuse', 'drop', 'keep'),
}


def check_choices(**given: str | None):
  """Refuses a word that CHOICES does not have; None is allowed."""
  for flag, word in given.items():
    if word is not None:
      check_choice(f'--{flag}', word, CHOICES[flag])


def check_share(share: float, flag: str = 'test'):
  """Refuses a share of test rows outside (0, 0.5]."""
  if not 0 < share <= 0.5:
    raise ConfigError(f'--{flag}={share} is not allowed: must be in (0, 0.5].')


def divided(size: int, test: float, seed: int, label_N: Any = None) -> np.ndarray:
  """Which rows are for the test: bool [N].

  Args:
    size: N.
    test: share of the rows, in (0, 0.5].
    seed: by which they are chosen.
    label_N: class of each row: each gives its share, see `sources.held_out`.
  """
  arrays = {'row': np.arange(size, dtype=np.int32)}
  if label_N is not None:
    arrays['label'] = label_N
  by_class = None if label_N is None else 'label'
  _, held = held_out(of_arrays(arrays), test, seed, by_class=by_class)
  chosen = np.zeros(size, bool)
  chosen[held.read(None).data['row']] = True
  return chosen


def lacking(
  split_N: np.ndarray, test: float, validation: float, notes: list[str]
) -> dict[str, float]:
  """The shares of the splits that are not there; see `cut`.

  Args:
    split_N: the split of each row by name; a validation split becomes the test split
      where there is none.
    test: share that tests.
    validation: share that validates.
    notes: gets a sentence where that is so.
  """
  if 'test' not in split_N and 'validation' in split_N:
    notes.append('There is no test split: the validation split is the test split.')
    split_N[split_N == 'validation'] = 'test'
  shares = {'test': test, 'validation': validation}
  return {split: x for split, x in shares.items() if split not in split_N}


def plain(text: str) -> str:
  """With one space where there is white space, and without zeros."""
  return ' '.join(text.replace('\0', ' ').split())


def cut(split_N: np.ndarray, label_N: np.ndarray, shares: Mapping, seed: int):
  """Takes splits from training, one after the other, class by class; in place.

  Args:
    split_N: the split of each row by name.
    label_N: its class.
    shares: by split, the share of each class of what is left in training.
    seed: by which rows are chosen.
  """
  for split, share in shares.items():
    left = np.flatnonzero(split_N == 'train')
    split_N[left[divided(len(left), share, seed, label_N[left])]] = split


def in_order(names: Iterable[str]) -> list[str]:
  """Classes in order: by number where all are numbers, else by name."""
  names = list(names)
  number = all(name.isascii() and name.isdecimal() for name in names)
  return sorted(names, key=(lambda name: (int(name), name)) if number else None)


def class_counts(label_N: np.ndarray, num_classes: int) -> list[int]:
  """Examples of each class."""
  return np.bincount(label_N, minlength=num_classes).tolist()


def check_classes(where: Any, label_N: np.ndarray, classes: Sequence[str], least: int):
  """Refuses fewer than two classes, and one with fewer examples than `least`."""
  if len(classes) < 2:
    raise DataError(
      f'{where}: expected two classes or more, found {len(classes)}: '
      f'{", ".join(classes) or "none"}.'
    )
  for name, count in zip(classes, class_counts(label_N, len(classes)), strict=True):
    if count < least:
      raise DataError(
        f'{where}: class {name!r} has {count} example(s), must have at least {least}: '
        'add some, or leave the class out.'
      )


def repeats(
  splits: Mapping[str, Mapping[str, np.ndarray]],
) -> list[tuple[int, str, int]]:
  """Training rows whose inputs stand in another split, too.

  Args:
    splits: arrays by split and field; the fields label and target do not count.

  Returns:
    (row of the training split, other split, its row), one for each such training row.
  """
  there: dict[bytes, tuple[str, int]] = {}
  for split, fields in splits.items():
    if split != 'train':
      for row, digest in enumerate(digests(fields)):
        there.setdefault(digest, (split, row))
  pairs = enumerate(digests(splits['train']))
  return [(row, *there[digest]) for row, digest in pairs if digest in there]


def digests(fields: Mapping[str, np.ndarray]) -> list[bytes]:
  """One of the inputs of each row; rows of equal bytes have equal ones.

  Of rows that are files, whose field `sha256` tells them, no file is read.
  """
  inputs = [x for name, x in fields.items() if name not in ('label', 'target')]
  inputs = [fields['sha256']] if 'sha256' in fields else inputs
  return [
    hashlib.blake2b(
      b''.join(np.ascontiguousarray(x[row]).tobytes() for x in inputs), digest_size=16
    ).digest()
    for row in range(len(inputs[0]))
  ]


def settle_repeats(draft: Draft, what: str, name_of: Any, notes: list[str]):
  """Refuses, drops or keeps training rows that stand in another split.

  Args:
    draft: with all rows.
    what: 'refuse', 'drop' or 'keep'.
    name_of: (split, row) -> what a person calls that row.
    notes: gets a sentence where there are some.
  """
  found = repeats(draft.rows)
  if not found:
    return
  row, split, other = found[0]
  told = (
    f'{len(found)} training row(s) stand in another split: {name_of("train", row)} is '
    f'also {name_of(split, other)} ({split})'
  )
  if what == 'refuse':
    raise DataError(
      f'{told}: --repeats=drop leaves them out of training, --repeats=keep takes them.'
    )
  notes.append(f'{told}: {"kept" if what == "keep" else "dropped"}.')
  if what == 'drop':
    rows = np.arange(len(next(iter(draft.rows['train'].values()))))
    kept = np.setdiff1d(rows, [row for row, _, _ in found])
    if not kept.size:
      raise DataError('All training rows stand in another split: none would be left.')
    draft.keep('train', kept)


def note_few(draft: Draft, notes: list[str]):
  """A sentence where a batch of the default size repeats rows."""
  size = len(next(iter(draft.rows['train'].values())))
  if size < _BATCH:
    notes.append(
      f'{size} rows to train on are fewer than a batch of {_BATCH}, which then holds '
      f'rows twice: --config.batch_size={size} or less.'
    )


def note_absent(splits: Mapping[str, np.ndarray], classes: Sequence[str], notes: list):
  """A sentence where a split lacks a class.

  Args:
    splits: labels by split.
  """
  for split, label_N in splits.items():
    counts = class_counts(label_N, len(classes))
    absent = [name for name, n in zip(classes, counts, strict=True) if not n]
    if absent:
      notes.append(f'No example of {", ".join(absent)} is in the split {split}.')
