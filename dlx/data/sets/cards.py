"""Sets of the user's own: a folder with a card that says what its rows are.

`python -m launch.data` makes them: DIR/NAME/card.json, and DIR/NAME/SPLIT/FIELD.npy,
one example a row, read by memory map. Looking a set up reads its card and no row. The
facts of a card stand in `Loaded.origin`, hence in the config.json of a run, which is
built from them where there is no data: see `recall`.
"""

import contextlib
import contextvars
import dataclasses
import hashlib
import io
import json
import os
import re
from typing import Any, Iterator, Mapping, NamedTuple

from etils import epath
import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import files
from dlx.data.pictures.crops import Crop
from dlx.data.pictures.files import PictureFiles
from dlx.data.sets import facts
from dlx.errors import DataError

FILE = 'card.json'
FORMAT = 1
SPLITS = facts.SPLITS
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')
KINDS = tuple(facts.FIELDS)  # Those that sets of the user's own have.
# What comes of a card in which something lacks or is of another type.
_WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
_HASHED = 1 << 30  # Files of more bytes are checked by their size alone when read.

_recalled: contextvars.ContextVar[Mapping[str, 'Card'] | None] = contextvars.ContextVar(
  'recalled', default=None
)


class Card(NamedTuple):
  """What is known of a set before a row is read.

  Attributes:
    name: of its folder.
    facts: as in card.json: `kind`, `fields` (shape and dtype of one example), `sizes`
      by split, and what the kind needs, e.g. `classes`, `mean`, `vocabulary`.
    files: bytes and sha256 of each file, by its path in the folder.
    folder: where it lies; None: recalled from a run.
    pictures: folder of pictures that are decoded when they are asked for, seen from
      `folder`; None: there are none.
  """

  name: str
  facts: Mapping[str, Any]
  files: Mapping[str, Any]
  folder: epath.Path | None
  pictures: str | None = None

  @property
  def kind(self) -> str:
    """A kind of registry.KINDS."""
    return self.facts['kind']

  @property
  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Of one example, by field."""
    return {
      name: jax.ShapeDtypeStruct(tuple(x['shape']), np.dtype(x['dtype']))
      for name, x in self.facts['fields'].items()
    }


def is_name(name: str) -> bool:
  """Whether a set may have this name: that of a folder, in plain letters."""
  return bool(_NAME.fullmatch(name))


def find(name: str, data_dir: Any = None) -> Card | None:
  """The card of a set: DIR/NAME/card.json, or DIR/card.json where DIR is called NAME.

  Raises:
    DataError: there is a card, and it is damaged.
  """
  if not is_name(name):
    return None
  if data_dir is None and (recalled := (_recalled.get() or {}).get(name)):
    return recalled
  base = files.root(data_dir)
  if base is None:
    return None
  for folder in (base / name, *([base] if base.name == name else [])):
    if FILE in files.listing(folder):
      return _parsed(name, files.read_bytes(folder / FILE), folder)
  return None


def every(data_dir: Any = None) -> list[Card]:
  """The cards of all sets in the data folder, by name.

  Raises:
    DataError: one of them is damaged.
  """
  base = files.root(data_dir)
  names = sorted(files.listing(base)) if base else []
  return [card for name in names if (card := find(name, base)) is not None]


@contextlib.contextmanager
def recall(origins: Mapping[str, Any]) -> Iterator[None]:
  """Within it, sets are known by what a run has recorded of them, without their folder.

  Args:
    origins: `data` of its config.json: by split, what `Loaded.origin` was.

  Raises:
    DataError: what was recorded is no card.
  """
  found = {}
  for split, x in origins.items():
    try:
      if 'card' in x:
        found[x['name']] = card = Card(x['name'], x['card'], {}, None)
        facts.check(card.facts, card.shapes)
    except _WRONG as error:
      raise DataError(
        f'config.json: data.{split}: holds no card of a set ({_told(error)}): restore '
        'the file.'
      ) from None
  token = _recalled.set({**(_recalled.get() or {}), **found})
  try:
    yield
  finally:
    _recalled.reset(token)


def source(card: Card, split: str) -> Source:
  """One split of a set; its rows are checked against the card when they are read."""

  def read_split(data_dir: Any) -> Loaded:
    there = find(card.name, files.root(data_dir))
    if there is None or there.folder is None:
      raise files.missing(
        card.name,
        split,
        f'the folder that `python -m launch.data` made, with its {FILE},',
        data_dir,
        tfds=False,
      )
    if there.facts != card.facts:
      raise DataError(
        f'{there.folder / FILE}: says other than when the experiment was built: start '
        'again, or bring back the set of that time.'
      )
    data = stored(there, split)
    if 'label' in data and card.kind != 'graphs':  # Some of its nodes have none.
      where = there.folder / split / 'label.npy'
      label_N, classes = np.asarray(data['label']), card.facts['classes']
      files.check_labels(label_N, len(classes), where)
      told = np.array(card.facts['counts'][split])
      counts = np.bincount(label_N, minlength=len(classes))
      if (wrong := np.flatnonzero(counts != told)).size:
        k = int(wrong[0])
        raise DataError(
          f'{where}: class {classes[k]!r} has {counts[k]} example(s), {told[k]} by its '
          f'{FILE}: remove the folder and prepare the set again.'
        )
    if 'token' in data:
      where, size = there.folder / split / 'token.npy', facts.num_tokens(card.facts)
      files.check_labels(np.asarray(data['token']), size, where, what='tokens')
    for field, x in data.items():
      where = there.folder / split / f'{field}.npy'
      files.check_finite(where, x, may_lack=field == 'features')
    if there.pictures is not None:
      data = {'image': _pictures(there, split, data), 'label': data['label']}
    sums = {p: x['sha256'] for p, x in there.files.items() if p.startswith(split + '/')}
    origin = {
      'name': card.name,
      'split': split,
      'kind': 'own',
      'size': card.facts['sizes'][split],
      'path': str(there.folder),
      'sha256': sums,
      'card': dict(card.facts),
    }
    return Loaded(data, origin)

  size = card.facts['sizes'][split]
  on_demand = 'decoded' in card.facts
  made = Source(card.name, split, card.shapes, size, read_split, on_demand)
  if split == 'train' and 'validation' in card.facts['sizes']:
    made = dataclasses.replace(made, held=source(card, 'validation'))
  return made


def damaged(card: Card) -> str | None:
  """The first file that is not as the card says, whatever its size; None: all are.

  Of pictures that are decoded when they are asked for, their files, too.
  """
  try:
    for path in card.files:
      _rows(card, path, up_to=None)
    for split in card.facts['sizes'] if card.pictures is not None else ():
      data = stored(card, split)
      if fault := _pictures(card, split, data).damaged(data['sha256']):
        return fault
  except DataError as error:
    return str(error)
  return None


def stored(card: Card, split: str) -> dict[str, np.ndarray]:
  """The fields of a split that lie in its folder, see `facts.stored`, mapped."""
  return {x: _rows(card, f'{split}/{x}.npy') for x in facts.stored(card.facts)}


def _pictures(card: Card, split: str, data: Mapping[str, np.ndarray]) -> PictureFiles:
  """The images of a split whose pictures are decoded when they are asked for."""
  assert card.folder is not None and card.pictures is not None
  size, _, channels = card.shapes['image'].shape
  n = card.facts['sizes'][split]
  found = {x: (data[x].dtype, data[x].shape) for x in ('file', 'bytes', 'sha256')}
  wanted = {
    'file': (np.uint8, (n, *data['file'].shape[1:2])),
    'bytes': (np.int64, (n,)),
    'sha256': (np.uint8, (n, 32)),
  }
  if found != wanted or data['file'].ndim != 2:
    raise DataError(
      f'{card.folder / split}: file, bytes or sha256 are no arrays of {n} pictures: '
      'remove the folder and prepare the set again.'
    )
  return PictureFiles(
    os.path.normpath(os.path.join(os.fspath(card.folder), card.pictures)),
    data['file'],
    data['bytes'],
    size=size,
    channels=channels,
    short_side=card.facts['decoded']['short_side'],
    crop=Crop(),
  )


def _told(error: Exception) -> str:
  return f'no {error}' if isinstance(error, KeyError) else str(error)


def _rows(card: Card, path: str, up_to: int | None = _HASHED) -> np.ndarray:
  assert card.folder is not None
  file, known = card.folder.joinpath(*path.split('/')), card.files[path]
  try:
    size = file.stat().length
  except OSError as error:
    raise DataError(f'{file}: cannot be read: {error.strerror or error}.') from None
  remedy = 'remove the folder and prepare the set again'
  if size != known['bytes']:
    raise DataError(f'{file}: has {size} bytes, not {known["bytes"]}: {remedy}.')
  try:
    if up_to is None or size <= up_to:
      with file.open('rb') as opened:
        reads: Any = opened
        found = hashlib.file_digest(reads, 'sha256').hexdigest()
      if found != known['sha256']:
        raise DataError(f'{file}: sha256 is not that of its {FILE}: {remedy}.')
    if '://' in str(file):
      return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    return np.load(os.fspath(file), mmap_mode='r', allow_pickle=False)
  except OSError as error:
    raise DataError(f'{file}: cannot be read: {error.strerror or error}.') from None
  except ValueError as error:
    raise DataError(f'{file}: is no array ({error}): {remedy}.') from None


def _parsed(name: str, raw: bytes, folder: epath.Path) -> Card:
  """A card from what its file holds; it may come from anywhere."""
  try:
    text = json.loads(raw)
    if text['format'] != FORMAT:
      raise ValueError(f'format is {text["format"]!r}, not {FORMAT}')
    kept = text['files']
    pictures = text.get('pictures')
    card = Card(name, text['facts'], kept, folder, pictures)
    facts.check(card.facts, card.shapes)
    if isinstance(pictures, str) != ('decoded' in card.facts):
      raise ValueError(f'pictures are in {pictures!r}')
    fields = facts.stored(card.facts)
    paths = {f'{split}/{x}.npy' for split in card.facts['sizes'] for x in fields}
    if set(kept) != paths:
      raise ValueError(f'files are {sorted(kept)}')
    for known in kept.values():
      if not isinstance(known['bytes'], int) or len(known['sha256']) != 64:
        raise ValueError('a file has no size or sha256')
  except _WRONG as error:
    raise DataError(
      f'{folder / FILE}: is no card of a prepared set ({_told(error)}): remove the '
      'folder and prepare the set again with `python -m launch.data`.'
    ) from None
  return card
