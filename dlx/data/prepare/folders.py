"""Folders of files, one a class, or of train, validation and test with such in it."""

import pathlib
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from dlx.data.prepare import rows
from dlx.data.sets import cards
from dlx.errors import DataError


class Labelled(NamedTuple):
  """One file, of which class; `split` is None where the folder has none."""

  path: Any
  label: int
  split: str | None


class Found(NamedTuple):
  """What a folder holds; `passed` counts files that have another ending."""

  files: list[Labelled]
  classes: list[str]
  passed: int


# (folder of the set, folder of a split, names of its files) -> class by name; None: it
# does not know.
Labels = Callable[[pathlib.Path, pathlib.Path, Iterable[str]], Mapping[str, str] | None]


def find(
  folder: pathlib.Path,
  endings: Sequence[str],
  what: str,
  leave_out: Sequence[str] = (),
  *,
  labels: Labels = lambda root, part, names: None,
  beside: Sequence[str] = (),
) -> Found:
  """The files of a folder, sorted by class and path; reads none.

  Args:
    folder: of folders, one a class, or of train, validation and test with such in it.
    endings: of the files that count, in lower case.
    what: such a file, for errors.
    leave_out: classes that do not count.
    labels: of a split without a folder a class, which is asked for its files.
    beside: folders among those of splits that hold no files of classes.

  Raises:
    DataError: no classes, a class without a file, classes that differ by case alone,
      or a link that leads out of the folder, in a circle or to a folder.
  """
  if not folder.is_dir():
    raise DataError(f'{folder}: is no folder: name that of the {what}s.')
  root = folder.resolve()
  top = {k: path for k, path in _folders(folder).items() if k not in beside}
  known = {name: rows.SPLIT_NAMES.get(name.lower()) for name in top}
  parts: dict[str | None, dict[str, pathlib.Path]] = {None: top}
  given: dict[str | None, list[tuple[pathlib.Path, str]]] = {}
  if 'train' in known.values() and all(known.values()):
    if len(set(known.values())) < len(known):
      raise DataError(f'{folder}: two folders of one split: {", ".join(top)}.')
    parts = {known[name]: _folders(path) for name, path in top.items()}
    trained = set(parts['train'])
    for name, path in top.items():
      if trained & set(parts[known[name]]):
        continue
      flat = [p for p in sorted(_files(path, root)) if p.suffix.lower() in endings]
      of_file = labels(folder, path, [p.name for p in flat]) if flat else None
      if of_file is not None:
        given[known[name]] = [(p, of_file[p.name]) for p in flat]
        parts[known[name]] = {}
      elif not parts[known[name]]:
        raise DataError(
          f'{path}: holds no folders: there must be one a class, as in training; sort '
          f'the {what}s into them, or move the folder away.'
        )
  for split, of_class in parts.items():
    parts[split] = {k: path for k, path in of_class.items() if k not in leave_out}
  classes = rows.in_order(parts['train' if 'train' in parts else None])
  if not classes:
    raise DataError(f'{folder}: holds no folders: there must be one a class.')
  if len({name.lower() for name in classes}) < len(classes):
    raise DataError(f'{folder}: classes differ by case alone: {", ".join(classes)}.')
  number = {name: k for k, name in enumerate(classes)}
  files, passed = [], 0
  for split, of_class in parts.items():
    for name, path in of_class.items():
      if name not in number:
        raise DataError(f'{path}: class {name!r} is not among those of training.')
      listed = sorted(_files(path, root))
      some = [p for p in listed if p.suffix.lower() in endings]
      passed += len(listed) - len(some)
      if not some:
        raise DataError(f'{path}: holds no {what}: add some, or remove the folder.')
      files += [Labelled(p, number[name], split) for p in some]
  for split, labelled in given.items():
    for path, name in labelled:
      if name not in number:
        raise DataError(f'{path}: class {name!r} is not among those of training.')
      files.append(Labelled(path, number[name], split))
  return Found(files, classes, passed)


def assigned(
  found: Found, folder: pathlib.Path, test: float, seed: int
) -> tuple[dict[str, list[Labelled]], list[str]]:
  """Files by split, and what a person should know of them.

  Args:
    found: of which class each is.
    folder: named in errors.
    test: share of each class that tests, where the folder has no splits.
    seed: by which those are chosen.
  """
  label_N = np.array([p.label for p in found.files], np.int32)
  split_N: list[Any] = [p.split for p in found.files]
  notes = []
  if 'test' not in split_N and 'validation' in split_N:
    notes.append('There is no test split: the validation split is the test split.')
    split_N = ['test' if s == 'validation' else s for s in split_N]
  elif 'test' not in split_N:
    rows.check_classes(folder, label_N, found.classes, least=2)
    chosen = rows.divided(len(label_N), test, seed, label_N)
    split_N = ['test' if c else 'train' for c in chosen]
    notes.append(f'A share of {test} of each class is the test split, by seed {seed}.')
  by_split: dict[str, list[Labelled]] = {
    split: [p for p, s in zip(found.files, split_N, strict=True) if s == split]
    for split in cards.SPLITS
    if split in split_N
  }
  return by_split, notes


def _folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Folders in a folder by name, but for hidden ones.

  Raises:
    DataError: one of them is a link.
  """
  found = {}
  for path in sorted(folder.iterdir()):
    if path.name.startswith('.'):
      continue
    if path.is_symlink() and not path.is_file():
      raise _wrong_link(path)
    if path.is_dir():
      found[path.name] = path
  return found


def _files(folder: pathlib.Path, root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Files below a folder, but for hidden ones; links only within `root`."""
  for path in sorted(folder.iterdir()):
    if path.name.startswith('.'):
      continue
    if path.is_symlink():
      if not path.is_file() or not path.resolve().is_relative_to(root):
        raise _wrong_link(path)
      yield path
    elif path.is_dir():
      yield from _files(path, root)
    elif path.is_file():
      yield path


def _wrong_link(path: pathlib.Path) -> DataError:
  return DataError(
    f'{path}: is a link to a folder, out of the folder of files, in a circle or to '
    'nothing: put the files themselves there.'
  )
