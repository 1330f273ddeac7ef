"""A folder of pictures as a set of its files: no pixel is copied.

The card lists files, labels and sums; rows are decoded when they are asked for, see
dlx/data/pictures. For sets that are large or whose training crops are of the original
pictures, as ImageNet's.
"""

import hashlib
import os
import pathlib
from typing import Any, Callable, Sequence
import warnings

import numpy as np

from dlx.data.pictures import decode
from dlx.data.pictures.crops import Crop
from dlx.data.pictures.files import PictureFiles
from dlx.data.prepare import folders, picture_sources, pictures, rows
from dlx.data.prepare.draft import Draft, Made, check_name, draft, made_of
from dlx.errors import ConfigError

SAMPLE = 4096  # Pictures of which mean and deviation are.
_SHORT_SIDE = 256 / 224  # Of a picture in evaluations, over the size that is cut out.


def prepare(
  places: Any,
  name: str,
  data_dir: Any = None,
  *,
  size: int | None = None,
  grey: bool = False,
  test: float = 0.2,
  seed: int = 0,
  repeats: str = 'refuse',
  skip_bad: bool = False,
  workers: int | None = None,
  tick: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
  """Makes a set of picture files: `image` uint8 [size, size, 3 or 1], `label` int32 [].

  Each file is decoded once, a JPEG at 1/8 of its size, so that a damaged one shows
  here and not in a run. In evaluations a row is the middle of a picture whose shorter
  side is resized to size * 8/7; in training see `crops.Crop`.

  Args:
    places: a folder as of `pictures.prepare`; it must stay where it is, or move with
      the data folder where it lies in it.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    size: height and width of a row; None: 224.
    grey: one channel in place of three.
    test, seed, repeats, skip_bad, workers, tick: as of `pictures.prepare`; files
      repeat where all their bytes are equal.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a folder or picture that cannot be taken; names it.
  """
  size = 224 if size is None else size
  pictures.check_size(size)
  rows.check_share(test)
  rows.check_choices(repeats=repeats)
  target = check_name(name, data_dir)
  places = places if isinstance(places, (list, tuple)) else [places]
  found, folder, shape = picture_sources.find(places)
  if shape or any(not isinstance(x.path, pathlib.Path) for x in found.files):
    raise ConfigError(
      f'--keep=files is not allowed: {folder} holds no files of single pictures; leave '
      'it out.'
    )
  splits, notes = pictures.assigned(found, folder, test, seed)
  channels = 1 if grey else 3
  with draft(name, data_dir) as new, warnings.catch_warnings():
    from PIL import Image

    # A picture of too many pixels is refused before it is unpacked.
    warnings.simplefilter('error', Image.DecompressionBombWarning)
    total, done = sum(map(len, splits.values())), 0
    for split, labelled in splits.items():
      _add(new, split, labelled, folder)
      fields = new.rows[split]

      def look(row: int, path: pathlib.Path, fields=fields):
        raw = path.read_bytes()
        decode.check(raw, grey)
        fields['bytes'][row] = len(raw)
        digest = hashlib.sha256(raw).digest()
        fields['sha256'][row] = np.frombuffer(digest, np.uint8)

      told = lambda n, before=done: tick(before + n, total)
      faults = pictures.each(labelled, look, workers, told)
      splits[split] = pictures.left(new, split, labelled, faults, skip_bad, notes)
      done += len(labelled)
    path_of = lambda split, row: str(splits[split][row].path)
    rows.settle_repeats(new, repeats, path_of, notes)
    short_side = round(size * _SHORT_SIDE)
    train = new.rows['train']
    image = PictureFiles(
      str(folder.resolve()),
      train['file'],
      train['bytes'],
      size=size,
      channels=channels,
      short_side=short_side,
      crop=Crop(),
    )
    if len(image) > SAMPLE:
      rng = np.random.default_rng(seed)
      image = image.pick(np.sort(rng.choice(len(image), SAMPLE, replace=False)))
      notes.append(f'Mean and deviation are of {SAMPLE} of the training pictures.')
    facts = {
      **pictures.image_facts(new, found.classes, folder, notes, image),
      'fields': {
        'image': {'shape': [size, size, channels], 'dtype': 'uint8'},
        'label': {'shape': [], 'dtype': 'int32'},
      },
      'decoded': {'short_side': short_side},
    }
    made = {
      'by': 'images',
      'source': [os.path.abspath(x) for x in places],
      **{'keep': 'files', 'size': size, 'grey': grey, 'test': test, 'seed': seed},
      **{'repeats': repeats, 'notes': notes},
    }
    new.finish('images', facts, made, _seen_from(target, folder))
  return made_of(name, data_dir, notes)


def _add(
  new: Draft, split: str, labelled: Sequence[folders.Labelled], folder: pathlib.Path
):
  """The fields of a split: names and labels, and room for bytes and sums."""
  names = [os.fsencode(x.path.relative_to(folder).as_posix()) for x in labelled]
  longest = max(map(len, names))
  file_NL = np.array(names, f'S{longest}').view(np.uint8).reshape(-1, longest)
  label_N = np.array([x.label for x in labelled], np.int32)
  new.add(split, file=file_NL, label=label_N)
  new.new(split, 'bytes', (len(names),), np.int64)
  new.new(split, 'sha256', (len(names), 32), np.uint8)


def _seen_from(target: pathlib.Path, folder: pathlib.Path) -> str:
  """Where pictures lie: from the set where both are in one data folder, else as it is.

  Then the data folder can be moved as a whole.
  """
  at, base = folder.resolve(), target.resolve().parent
  if at.is_relative_to(base):
    return os.path.relpath(at, target.resolve())
  return str(at)
