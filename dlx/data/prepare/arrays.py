"""An .npz of arrays as a set: pictures with classes, or rows with a target."""

import os
import re
from typing import Any, Sequence
import zipfile

import numpy as np

from dlx.data.formats import expansion, files
from dlx.data.prepare import rows, table
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.prepare.pictures import image_facts
from dlx.data.sets import cards
from dlx.errors import DataError

_INPUTS = ('x', 'image', 'images', 'features', 'data')
_OUTPUTS = ('y', 'label', 'labels', 'target', 'targets')


def prepare(
  path: Any,
  name: str,
  data_dir: Any = None,
  *,
  predict: str | None = None,
  classes: Sequence[str] = (),
  test: float = 0.2,
  seed: int = 0,
  repeats: str | None = None,
) -> Made:
  """Makes a set of the arrays x and y, or x_train, y_train, x_test, y_test.

  uint8 [N, H, W] or [N, H, W, 1 or 3] are images, with classes; numbers [N, F] are rows
  of a table. `image`, `features`, `label`, `target` are other words for x and y.

  Args:
    path: of the .npz.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    predict: 'classes' or 'numbers'; None: classes where y is whole numbers.
    classes: names of the classes; none: their numbers.
    test: share of the rows that test, where the file has no splits.
    seed: by which those are chosen, class by class.
    repeats: training rows that are also in another split: refuse, drop or keep; None:
      refuse images, keep rows of a table.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file or array that cannot be taken; names it, and the row.
  """
  rows.check_share(test)
  rows.check_choices(predict=predict, repeats=repeats)
  check_name(name, data_dir)
  notes: list[str] = []
  splits = _named(path, _read(path))
  first, y = splits['train']
  is_image = first.ndim > 2
  if predict is None:
    predict = 'classes' if y.dtype.kind in 'iub' else 'numbers'
  if is_image and predict == 'numbers':
    raise DataError(
      f'{path}: y of images is {y.dtype}: must be whole numbers, classes.'
    )
  for split, (x, y) in splits.items():
    splits[split] = _checked(f'{path}: {split}', x, y, predict, first.shape[1:])
  most = max(int(y.max()) for _, y in splits.values()) if predict == 'classes' else 0
  found = list(classes) or [str(k) for k in range(most + 1)]
  if most >= len(found):
    for split, (_, y) in splits.items():
      if (y >= len(found)).any():
        raise DataError(
          f'{path}: {split}: row {int((y >= len(found)).argmax())} (from 0) has the '
          f'label {y.max()}: {len(found)} classes have 0 to {len(found) - 1}.'
        )
  if predict == 'classes':
    rows.check_classes(path, splits['train'][1], found, least=1)
  at = {split: np.arange(len(x)) for split, (x, _) in splits.items()}
  if 'test' not in splits and 'validation' in splits:
    notes.append('There is no test split: the validation split is the test split.')
    splits['test'], at['test'] = splits.pop('validation'), at.pop('validation')
  if 'test' not in splits:
    x, y = splits['train']
    if predict == 'classes':
      rows.check_classes(path, y, found, least=2)
    chosen = rows.divided(len(y), test, seed, y if predict == 'classes' else None)
    at = {'train': np.flatnonzero(~chosen), 'test': np.flatnonzero(chosen)}
    splits = {split: (x[index], y[index]) for split, index in at.items()}
  with draft(name, data_dir) as new:
    names = (
      ('image' if is_image else 'features'),
      ('label' if predict == 'classes' else 'target'),
    )
    for split in (s for s in cards.SPLITS if s in splits):
      new.add(split, **dict(zip(names, splits[split], strict=True)))
    row_of = lambda split, row: f'row {at[split][row]}'
    repeats = repeats or ('refuse' if is_image else 'keep')
    rows.settle_repeats(new, repeats, row_of, notes)
    if is_image:
      facts = image_facts(new, found, path, notes)
    else:
      features = [f'x{i}' for i in range(splits['train'][0].shape[1])]
      of_class = found if predict == 'classes' else None
      facts = table.table_facts(new, features, 'y', of_class, path, notes)
    made = {
      'by': 'arrays',
      'source': os.path.abspath(path),
      **{'predict': predict, 'test': test, 'seed': seed, 'repeats': repeats},
      'notes': notes,
    }
    new.finish('images' if is_image else 'tables', facts, made)
  return made_of(name, data_dir, notes)


def _read(path: Any) -> dict[str, np.ndarray]:
  try:
    expansion.check_zip(path)
    with np.load(path, allow_pickle=False) as archive:
      return {key: archive[key] for key in archive.files}
  except FileNotFoundError:
    raise DataError(f'{path}: no such file.') from None
  except (zipfile.BadZipFile, ValueError, EOFError) as error:
    # NumPy's own words for objects speak of pickles: never read here.
    raise DataError(
      f'{path}: is no .npz of numbers ({error}): write one with numpy.savez.'
    ) from None


def _named(
  path: Any, arrays: dict[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """(inputs, outputs) by split, from the names of the arrays."""
  found: dict[tuple[str, str], np.ndarray] = {}
  for key, x in arrays.items():
    words = [word for word in re.split(r'[_./-]', key.lower()) if word]
    split = [rows.SPLIT_NAMES[w] for w in words if w in rows.SPLIT_NAMES] or ['train']
    part = ['x' if w in _INPUTS else 'y' for w in words if w in (*_INPUTS, *_OUTPUTS)]
    if len(split) > 1 or len(part) != 1 or (split[0], part[0]) in found:
      raise DataError(
        f'{path}: an array called {key!r} is not allowed: must be x and y, or x_train, '
        'y_train, x_test, y_test, with x_validation, y_validation where there are some.'
      )
    found[split[0], part[0]] = x
  for split in {split for split, _ in found} | {'train'}:
    for part in 'xy':
      if (split, part) not in found:
        raise DataError(
          f'{path}: has no {part} of the split {split}, but {", ".join(arrays)}.'
        )
  names = [s for s in cards.SPLITS if (s, 'x') in found]
  return {split: (found[split, 'x'], found[split, 'y']) for split in names}


def _checked(
  where: str, x: np.ndarray, y: np.ndarray, predict: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
  """Inputs and outputs in the dtypes of a set."""
  if not (x.ndim and y.ndim) or len(x) != len(y) or not len(x):
    raise DataError(
      f'{where}: x of shape {list(x.shape)} and y of {list(y.shape)}: must have the '
      'same number of rows, at least 1.'
    )
  y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
  if y.ndim != 1 or y.dtype.kind not in 'iubf':
    raise DataError(
      f'{where}: y is {y.dtype} {list(y.shape)}: must be one number a row.'
    )
  if x.shape[1:] != shape:
    raise DataError(
      f'{where}: x has rows of {list(x.shape[1:])}, not {list(shape)} as of training.'
    )
  if x.ndim == 2 and x.shape[1] and x.dtype.kind in 'iubf':
    x = x.astype(np.float64)
  elif x.dtype == np.uint8 and x.ndim in (3, 4) and min(x.shape[1:]):
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[-1] not in (1, 3):
      first = '; channels come last: x.transpose(0, 2, 3, 1)'
      raise DataError(
        f'{where}: x is {list(x.shape)}, of {x.shape[-1]} channels: must be 1 or 3'
        f'{first if x.shape[1] in (1, 3) else ""}.'
      )
  else:
    raise DataError(
      f'{where}: x is {x.dtype} {list(x.shape)}: must be uint8 [N, H, W] or '
      '[N, H, W, C] (of floats in [0, 1]: (255 * x).round().astype("uint8")), or '
      'numbers [N, F].'
    )
  files.check_finite(f'{where}: x', x)
  files.check_finite(f'{where}: y', y)
  if predict == 'numbers':
    return x, y.astype(np.float64)
  wrong = np.flatnonzero((y != np.floor(y)) | (y < 0) | (y >= 1 << 31))
  if wrong.size:
    raise DataError(
      f'{where}: row {wrong[0]} (from 0) has the label {y[wrong[0]]}: must be whole, '
      'from 0.'
    )
  return x, y.astype(np.int32)
