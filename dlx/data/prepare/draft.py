"""A set that is being made: a hidden folder that takes its name when it is whole."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from dlx.data.formats import files
from dlx.data.sets import cards, registry
from dlx.errors import ConfigError

CHUNK = 1024  # Rows that are in memory at once.


class Made(NamedTuple):
  """A set that was made.

  Attributes:
    card: of it.
    notes: what a person should know, a sentence each.
  """

  card: cards.Card
  notes: Sequence[str]


def made_of(name: str, data_dir: Any, notes: Sequence[str]) -> Made:
  """A set that has its name now, as a look-up finds it."""
  card = cards.find(name, data_dir)
  assert card is not None
  return Made(card, notes)


class Draft:
  """Rows in files of their own; `finish` writes the card.

  Attributes:
    rows: memory-mapped arrays by split and field.
  """

  def __init__(self, folder: pathlib.Path, name: str):
    self.folder, self.name = folder, name
    self.rows: dict[str, dict[str, np.ndarray]] = {}

  def new(self, split: str, field: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Zeros, one example a row, that are written to a file."""
    path = self._path(split, field)
    path.parent.mkdir(exist_ok=True)
    made = np.lib.format.open_memmap(path, 'w+', np.dtype(dtype), tuple(shape))
    self.rows.setdefault(split, {})[field] = made
    return made

  def add(self, split: str, **fields: np.ndarray):
    """Whole arrays of a split."""
    for field, x in fields.items():
      self.new(split, field, x.shape, x.dtype)[...] = x

  def keep(self, split: str, kept: np.ndarray):
    """Leaves only these rows of a split, in this order."""
    for field, old in self.rows[split].items():
      path = self._path(split, field)
      moved = path.rename(path.with_suffix('.old'))
      new = self.new(split, field, (len(kept), *old.shape[1:]), old.dtype)
      for start in range(0, len(kept), CHUNK):
        new[start : start + CHUNK] = old[kept[start : start + CHUNK]]
      moved.unlink()

  def finish(
    self,
    kind: str,
    facts: Mapping[str, Any],
    made: Mapping[str, Any],
    pictures: str | None = None,
  ):
    """Writes the card.

    Args:
      kind: a kind of registry.KINDS.
      facts: see `cards.Card`; what the arrays say of fields and sizes is added where
        they do not.
      made: how it was made, in JSON.
      pictures: see `cards.Card`.
    """
    train = self.rows['train']
    sums = {}
    for split, fields in self.rows.items():
      for field, x in fields.items():
        assert isinstance(x, np.memmap)
        x.flush()
        path = self._path(split, field)
        with path.open('rb') as file:
          digest = hashlib.file_digest(file, 'sha256').hexdigest()
        size = path.stat().st_size
        sums[f'{split}/{field}.npy'] = {'bytes': size, 'sha256': digest}
    sizes = {s: len(next(iter(fields.values()))) for s, fields in self.rows.items()}
    shapes = {
      field: {'shape': list(x.shape[1:]), 'dtype': x.dtype.name}
      for field, x in train.items()
    }
    versions = {name: importlib.metadata.version(name) for name in ('numpy', 'pillow')}
    text = {
      'format': cards.FORMAT,
      'name': self.name,
      'facts': {'kind': kind, 'fields': shapes, 'sizes': sizes, **facts},
      'files': sums,
      'made': {**made, 'versions': versions},
    }
    if pictures is not None:
      text['pictures'] = pictures
    path = self.folder / cards.FILE
    path.write_text(json.dumps(text, indent=2, allow_nan=False))

  def _path(self, split: str, field: str) -> pathlib.Path:
    return self.folder / split / f'{field}.npy'


def check_name(name: str, data_dir: Any) -> pathlib.Path:
  """The folder that a new set gets, below the data folder.

  Raises:
    ConfigError: no data folder, a name that a set cannot have, or one that is taken.
  """
  base = files.needed_root(data_dir)
  if '://' in str(base):
    raise ConfigError(
      f'--data_dir={base} is not allowed: must be on a disk; copy the set from there.'
    )
  if os.path.exists(base) and not os.path.isdir(base):
    raise ConfigError(f'--data_dir={base} is not allowed: is a file, not a folder.')
  if not cards.is_name(name):
    raise ConfigError(
      f'--name={name} is not allowed: must be letters, digits, "_", "-" and ".", with '
      'a letter or digit first.'
    )
  if name in registry.SETS:
    raise ConfigError(f'--name={name} is not allowed: dlx has a set of this name.')
  folder = pathlib.Path(os.fspath(base)) / name
  if os.path.lexists(folder):
    raise ConfigError(
      f'{folder} is there already: remove it, or choose another --name.'
    )
  return folder


@contextlib.contextmanager
def draft(name: str, data_dir: Any) -> Iterator[Draft]:
  """A new set; it takes its name at the end, and whatever fails leaves nothing.

  A process that is killed leaves a folder `.NAME.*` that no look-up takes for a set.
  """
  target = check_name(name, data_dir)
  target.parent.mkdir(parents=True, exist_ok=True)
  made = pathlib.Path(tempfile.mkdtemp(prefix=f'.{name}.', dir=target.parent))
  try:
    found = Draft(made, name)
    yield found
    made.chmod(0o777 & ~_umask())
    made.rename(target)
  finally:
    shutil.rmtree(made, ignore_errors=True)


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask
