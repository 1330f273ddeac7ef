"""A folder of pictures, one folder a class, as a set of images.

DIR/CLASS/...                 split here, class by class, by a seed
DIR/train/CLASS/...           and DIR/validation, DIR/test: as they are
"""

from concurrent import futures
import os
import pathlib
from typing import Any, Callable, Iterable, Iterator, Sequence
import warnings

import numpy as np

from dlx.data.pictures.decode import FORMATS, upright
from dlx.data.prepare import folders, picture_sources, rows
from dlx.data.prepare.draft import CHUNK, Draft, Made, check_name, draft, made_of
from dlx.errors import DISK, ConfigError, DataError


def prepare(
  places: Any,
  name: str,
  data_dir: Any = None,
  *,
  format: str | None = None,
  label: str | None = None,
  size: int | None = None,
  fit: str = 'crop',
  grey: bool | None = None,
  test: float = 0.2,
  seed: int = 0,
  repeats: str | None = None,
  skip_bad: bool = False,
  workers: int | None = None,
  tick: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
  """Makes a set of images: `image` uint8 [size, size, 3 or 1], `label` int32 [].

  Args:
    places: a folder of folders, one a class, or of train, validation and test with such
      in it; the folder or files of a known set; or Parquet files.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    format: one of `picture_sources.FORMATS`; None: seen by the files.
    label: of Parquet, the column of the classes; None: the only one that can be.
    size: height and width; None: those that all have, else 64.
    fit: what is not square: 'crop' its middle, 'pad' with black, or 'stretch'.
    grey: one channel in place of three; None: as they are, where all are alike.
    test: share of each class that tests, where the folder has no splits.
    seed: by which those are chosen.
    repeats: training pictures that are also in another split: refuse, drop or keep;
      None: refuse, but keep what is published so.
    skip_bad: leave out what cannot be read, in place of refusing the folder.
    workers: threads that decode; None: one a CPU.
    tick: called with the pictures that are done, and all.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a folder or picture that cannot be taken; names it.
  """
  check_size(size)
  rows.check_share(test)
  rows.check_choices(fit=fit, repeats=repeats)
  check_name(name, data_dir)
  places = places if isinstance(places, (list, tuple)) else [places]
  found, folder, shape = picture_sources.find(places, format, label)
  size = size or (shape[0] if shape else 64)
  grey = bool(shape and shape[1] == 1) if grey is None else grey
  repeats = repeats or ('keep' if shape else 'refuse')
  splits, notes = assigned(found, folder, test, seed)
  channels = 1 if grey else 3
  with draft(name, data_dir) as new, warnings.catch_warnings():
    from PIL import Image

    # A picture of too many pixels is refused before it is unpacked.
    warnings.simplefilter('error', Image.DecompressionBombWarning)
    total, done = sum(map(len, splits.values())), 0
    for split, pictures in splits.items():
      image = new.new(split, 'image', (len(pictures), size, size, channels), np.uint8)
      label_N = new.new(split, 'label', (len(pictures),), np.int32)
      label_N[...] = [p.label for p in pictures]

      def fill(row: int, path: Any, image=image):
        image[row] = decode(path, size, fit, grey)

      told = lambda n, before=done: tick(before + n, total)
      faults = each(pictures, fill, workers, told)
      done += len(pictures)
      splits[split] = left(new, split, pictures, faults, skip_bad, notes)
    path_of = lambda split, row: str(splits[split][row].path)
    rows.settle_repeats(new, repeats, path_of, notes)
    facts = image_facts(new, found.classes, folder, notes)
    made = {
      'by': 'images',
      'source': [os.path.abspath(x) for x in places],
      **{
        'format': format,
        'size': size,
        'fit': fit,
        'grey': grey,
        'test': test,
        'seed': seed,
      },
      **{'repeats': repeats, 'notes': notes},
    }
    new.finish('images', facts, made)
  return made_of(name, data_dir, notes)


def check_size(size: int | None):
  """Refuses a height and width that images cannot have; None is allowed."""
  if size is not None and not 1 <= size <= 4096:
    raise ConfigError(f'--size={size} is not allowed: must be in [1, 4096].')


def image_facts(
  new: Draft, classes: Sequence[str], where: Any, notes: list[str], image: Any = None
) -> dict[str, Any]:
  """The facts of labelled images: classes, their counts, mean and deviation.

  Args:
    new: with the labels of all splits.
    classes: by label.
    where: names the set in errors.
    notes: gets a sentence on what a person should know.
    image: uint8 [N, H, W, C], of which mean and deviation are, exact, from counts of
      the values; None: the images of the training split.
  """
  from PIL import Image

  label = {split: np.asarray(fields['label']) for split, fields in new.rows.items()}
  rows.check_classes(where, label['train'], classes, least=1)
  rows.note_absent(label, classes, notes)
  rows.note_few(new, notes)
  image = new.rows['train']['image'] if image is None else image
  channels, counts = image.shape[-1], np.zeros((image.shape[-1], 256), np.int64)
  for start in range(0, len(image), CHUNK):
    # One below the other: Pillow counts four times as fast as NumPy.
    tall = np.asarray(image[start : start + CHUNK]).reshape(-1, *image.shape[2:])
    tall = Image.fromarray(tall[..., 0] if channels == 1 else tall)
    counts += np.array(tall.histogram()).reshape(channels, 256)
  value = np.arange(256) / 255
  mean = counts @ value / counts.sum(1)
  std = np.sqrt((counts * (value - mean[:, None]) ** 2).sum(1) / counts.sum(1))
  return {
    'classes': list(classes),
    'counts': {s: rows.class_counts(x, len(classes)) for s, x in label.items()},
    'max_value': 255,
    'mean': mean.tolist(),
    'std': np.where(std > 0, std, 1).tolist(),  # Nothing is divided by 0.
  }


def decode(path: Any, size: int, fit: str, grey: bool) -> np.ndarray:
  """One picture, uint8 [size, size, 1 or 3]; see dlx/data/pictures/decode.py.

  Args:
    path: of a file; a file in memory; or pixels, uint8 [H, W, 1 or 3].

  Raises:
    Whatever Pillow raises of a damaged file.
  """
  from PIL import Image, ImageOps

  if isinstance(path, np.ndarray):
    pixels = Image.fromarray(path[..., 0] if path.shape[-1] == 1 else path)
    image = upright(pixels, grey)
  else:
    with Image.open(path, formats=FORMATS) as opened:
      image = upright(opened, grey)
  if fit == 'crop':
    image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
  elif fit == 'pad':
    image = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC)
  else:
    image = image.resize((size, size), Image.Resampling.BICUBIC)
  return np.asarray(image).reshape(size, size, -1)


def assigned(
  found: folders.Found, folder: pathlib.Path, test: float, seed: int
) -> tuple[dict[str, list[folders.Labelled]], list[str]]:
  """`folders.assigned`, with a note on files that were passed over."""
  splits, notes = folders.assigned(found, folder, test, seed)
  if found.passed:
    notes.append(
      f'{found.passed} file(s) passed over: not {", ".join(picture_sources.SUFFIXES)}.'
    )
  return splits, notes


def left(
  new: Draft,
  split: str,
  pictures: Sequence[folders.Labelled],
  faults: Iterable[str | None],
  skip_bad: bool,
  notes: list[str],
) -> list[folders.Labelled]:
  """The pictures of a split that can be read; the rows of others are taken out.

  Args:
    new: has a row for each picture, once its fault is told.
    split: of the set.
    pictures: of the split.
    faults: of each picture, in order, or None.
    skip_bad: False: a fault is an error.
    notes: gets a sentence for each that is left out.
  """
  bad = []
  for row, fault in enumerate(faults):
    if fault and not skip_bad:
      raise DataError(f'{fault}: mend it, or leave out such files by --skip_bad.')
    if fault:
      bad.append(row)
      notes.append(f'Left out: {fault}.')
  if not bad:
    return list(pictures)
  kept = np.setdiff1d(np.arange(len(pictures)), bad)
  if not kept.size:
    raise DataError(f'No picture of the split {split} can be read: {pictures[0].path}.')
  new.keep(split, kept)
  return [pictures[i] for i in kept.tolist()]


def each(
  pictures: Sequence[folders.Labelled],
  work: Callable[[int, Any], None],
  workers: int | None,
  tick: Callable[[int], None],
) -> Iterator[str | None]:
  """Calls `work` for each picture; gives what is wrong with it, in order, or None.

  Args:
    pictures: files, or places in them.
    work: (row, file or what lies in a file); raises where the picture cannot be taken.
    workers: threads; None: one a CPU.
    tick: called with the pictures that are done.
  """

  def one(row: int) -> str | None:
    path = pictures[row].path
    inside = isinstance(path, picture_sources.Inside)
    raw = path.read() if inside else path
    try:
      work(row, raw)
    except Exception as error:  # Pillow raises many kinds, all of them the file's.
      if isinstance(error, OSError) and error.errno in DISK:
        return f'{path}: {DISK[error.errno]}'
      if not (raw.getbuffer().nbytes if inside else path.stat().st_size):
        return f'{path}: is empty'
      return f'{path}: is no picture that can be read ({error or type(error).__name__})'
    return None

  with futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
    try:
      for row, fault in enumerate(pool.map(one, range(len(pictures)))):
        yield fault
        tick(row + 1)
    finally:
      pool.shutdown(cancel_futures=True)
