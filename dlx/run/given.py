"""What a person gives a function of a trained model, as arrays; and back.

By the kind of a `Field`: a file, a picture, a text, the name of a class or a number
becomes an array, with or without a leading axis of rows. What cannot be is refused, one
line.
"""

import datetime
import os
from typing import Any, Mapping, NamedTuple, Sequence

from absl import logging
import numpy as np

from dlx.data.prepare import columns, dates
from dlx.errors import ConfigError
from dlx.experiment import Field


class Rows(NamedTuple):
  """An input: an array [rows, ...], or one array a row where their sizes differ.

  Attributes:
    rows: the arrays.
    many: False where one example was given, without an axis of rows.
  """

  rows: Any
  many: bool


def read(
  name: str, field: Field, value: Any, *, vocabulary: Any = None, resize: bool = False
) -> Rows:
  """An input as rows of the declared shape and dtype.

  Args:
    name: of the input, for messages.
    field: what is declared.
    value: an image may be an array of pixels as read, a PIL picture, the path of a file
      or a list of these; tokens an array or, with a vocabulary, a text or a list of
      texts; a label its number or name; a column of words the word, or its code where
      no word is a number: one that training did not have is code 0, with a warning; a
      column of numbers NaN where it is missing; one of dates ISO 8601 texts, dates of
      datetime, NumPy or pandas, or days since 1970-01-01; all else numbers.
    vocabulary: of tokens, where it is known.
    resize: whether pictures of another size are brought to that of the field
      (bilinear); their proportions may change.

  Raises:
    ConfigError: what cannot be such an input.
  """
  if field.kind == 'image' and _are(value, (str, os.PathLike), _is_picture):
    pictures = value if isinstance(value, (list, tuple)) else [value]
    rows = np.stack([_picture(name, field, p, resize) for p in pictures])
    return Rows(rows, isinstance(value, (list, tuple)))
  if field.kind == 'tokens' and _are(value, str):
    if vocabulary is None:
      raise ConfigError(
        f'{name}: a text is not allowed, as the model states no vocabulary: give the '
        'numbers of its tokens.'
      )
    texts = value if isinstance(value, (list, tuple)) else [value]
    rows = [np.asarray(vocabulary.encode(text), field.dtype) for text in texts]
    if any(row.size == 0 for row in rows):
      raise ConfigError(f'{name} is an empty text: must have one token or more.')
    return Rows(_stacked(rows), isinstance(value, (list, tuple)))
  if field.kind == 'column' and field.names:
    return _codes(name, field, value)
  if field.since is not None:
    return _days(name, field, field.since, value)
  if field.kind == 'label' and _are(value, str):
    names = [value] if isinstance(value, str) else value
    numbers = [_class(name, field, text) for text in names]
    return Rows(np.array(numbers, field.dtype), not isinstance(value, str))
  if field.kind == 'tokens' and isinstance(value, (list, tuple)) and len(value):
    if all(np.ndim(row) == 1 for row in value):  # Of any lengths.
      each = [_array(name, field, row, vocabulary) for row in value]
      return Rows(_stacked([one.rows[0] for one in each]), True)
  return _array(name, field, value, vocabulary)


def spread(seed: np.ndarray, count: int) -> np.ndarray:
  """One seed a row, uint32 [count], out of one; a longer list begins with a shorter."""
  return np.random.SeedSequence(int(seed)).generate_state(count)


def check_option(name: str, default: Any, value: Any):
  """Raises ConfigError where an option is of another type than its default.

  A default of None says nothing but that the option is no word.
  """
  if isinstance(default, (bool, str)):
    kinds, allowed = type(default), 'true or false'
    if isinstance(default, str):
      allowed = 'a word'
  elif isinstance(default, int):
    kinds, allowed = int, 'a whole number'
  else:
    kinds, allowed = (int, float), 'a number' + ', or none' * (default is None)
  fits = isinstance(value, kinds) and isinstance(value, bool) == (kinds is bool)
  if not fits and not (value is None and default is None):
    raise ConfigError(f'{name}={value} is not allowed: must be {allowed}.')


def _are(value: Any, kinds: Any, more: Any = lambda _: False) -> bool:
  """Whether a value, or all of a list that is not empty, are of some kinds."""
  is_one = lambda x: isinstance(x, kinds) or more(x)
  if isinstance(value, (list, tuple)):
    return len(value) > 0 and all(map(is_one, value))
  return is_one(value)


def _stacked(rows: Sequence[np.ndarray]) -> Any:
  return np.stack(rows) if len({row.shape for row in rows}) == 1 else list(rows)


def _is_picture(value: Any) -> bool:
  return hasattr(value, 'convert') and hasattr(value, 'getbands')


def _picture(name: str, field: Field, value: Any, resize: bool) -> np.ndarray:
  """A PIL picture, or the file of one, as the model reads pixels."""
  from PIL import Image

  label = 'a picture' if _is_picture(value) else os.fspath(value)
  try:
    if _is_picture(value):
      return _pixels(name, field, value, label, resize)
    with Image.open(os.path.expanduser(value)) as found:
      return _pixels(name, field, found, label, resize)
  except FileNotFoundError:
    raise ConfigError(f'{name}: {label}: no such file.') from None
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ConfigError(f'{name}: {label} is no picture ({error}).') from None


def _pixels(name: str, field: Field, found: Any, label: str, resize: bool) -> Any:
  from PIL import Image, ImageOps

  height, width, channels = (int(n) for n in field.shape)
  mode = {1: 'L', 3: 'RGB', 4: 'RGBA'}.get(channels)
  if mode is None:
    raise ConfigError(f'{name}: {label}: no picture has {channels} channels.')
  if found.mode.startswith(('I', 'F')):
    raise ConfigError(
      f'{name}: {label} has more than 8 bits a pixel: must have 8: convert it first.'
    )
  found = ImageOps.exif_transpose(found).convert(mode)
  if found.size != (width, height):
    if not resize:
      raise ConfigError(
        f'{name}: {label} has {found.size[0]} x {found.size[1]} pixels: must have '
        f'{width} x {height}; resize=True (--resize) brings it to that size.'
      )
    found = found.resize((width, height), Image.Resampling.BILINEAR)
  pixels = np.asarray(found).reshape(height, width, channels)
  if np.issubdtype(field.dtype, np.floating):
    return (pixels / 255).astype(field.dtype)
  return np.round(pixels * (field.max_value / 255)).astype(field.dtype)


def _class(name: str, field: Field, text: str) -> int:
  if text in field.names:
    return field.names.index(text)
  if text.isdecimal():
    return int(text)
  raise ConfigError(
    f'{name}={text} is not allowed: must be '
    f'{"one of " + ", ".join(field.names) if field.names else "the number of a class"}.'
  )


def _codes(name: str, field: Field, value: Any) -> Rows:
  """Of words of a column: k + 1 of names[k], 0 of what is missing or unknown."""
  cells = np.asarray(value, object)
  number, wrong = columns.numbers(list(field.names))
  of_text = {text: code for code, text in enumerate(field.names, 1)}
  of_number = {} if wrong else dict(zip(number.tolist(), of_text.values()))
  found, unknown = [], []
  for cell in cells.reshape(-1) if cells.ndim < 2 else [value]:
    if isinstance(cell, str):
      cell = cell.strip()
      code = 0 if columns.is_missing(cell) else of_text.get(cell)
      if code is None and of_number:
        code = of_number.get(float(columns.numbers([cell])[0][0]))
    elif cell is None:
      code = 0
    elif not isinstance(cell, (int, float, np.number)):
      raise ConfigError(
        f'{name}={_short(cell)} is not allowed: must be a word or number a row.'
      )
    elif np.isnan(cell):
      code = 0
    elif of_number:
      code = of_number.get(float(cell))
    elif cell in range(len(field.names) + 1):
      code = int(cell)
    else:
      raise ConfigError(
        f'{name}={cell} is not allowed: must be one of {", ".join(field.names)}, or a '
        f'code in [0, {len(field.names)}].'
      )
    unknown += [cell] if code is None else []
    found.append(code or 0)
  if not found:
    raise ConfigError(f'{name} has no rows: must have one or more.')
  if unknown:
    logging.warning(
      '%s: training had no %s (%d row(s)): taken as missing.',
      name,
      ', '.join(dict.fromkeys(_short(cell) for cell in unknown[:5])),
      len(unknown),
    )
  return Rows(np.array(found, field.dtype), cells.ndim > 0)


def _days(name: str, field: Field, since: float, value: Any) -> Rows:
  """Dates, or days since 1970-01-01, as days since `since`; NaN for a missing one."""
  array = np.asarray(value, None if hasattr(value, 'dtype') else object)
  if array.dtype.kind not in 'biuf' and array.ndim < 2:
    found = [_day(name, cell) for cell in array.reshape(-1)]
    array = np.array(found, np.float64).reshape(array.shape)
  # Before float32, to which days since 1970 are minutes.
  rows, many = _array(name, field._replace(dtype='float64'), array, None)
  return Rows((rows - since).astype(field.dtype), many)


def _day(name: str, cell: Any) -> float:
  """Days since 1970-01-01 of one date."""
  if cell is None or str(cell) == 'NaT':  # Of NumPy and pandas.
    return np.nan
  if isinstance(cell, (int, float, np.number)):
    return float(cell)
  of_kind = isinstance(cell, (str, datetime.date, np.datetime64))
  day, wrong = dates.days([str(cell).strip()])
  if wrong or not of_kind:
    raise ConfigError(
      f'{name}={_short(cell)} is not allowed: must be a date, e.g. {dates.EXAMPLES}.'
    )
  return float(day[0])


def _array(name: str, field: Field, value: Any, vocabulary: Any) -> Rows:
  """Numbers, checked against what is declared."""
  try:
    array = np.asarray(value)
  except ValueError:
    array = np.asarray(None)
  shape, dtype = field.shape, np.dtype(field.dtype)
  may_lack = field.kind == 'column'
  if array.dtype.kind not in 'biuf':
    raise ConfigError(
      f'{name}={_short(value)} is not allowed: must be numbers ({_wanted(field)}).'
    )
  if field.kind == 'image' and shape[-1] == 1 and array.shape[-2:] == shape[:2]:
    if array.shape[-3:] != shape:
      array = array[..., None]
  single = array.ndim == len(shape)
  fits = array.ndim in (len(shape), len(shape) + 1) and all(
    n == m or (isinstance(m, str) and n)
    for n, m in zip(array.shape[array.ndim - len(shape) :], shape)
  )
  if not fits or (not single and not len(array)):
    raise ConfigError(
      f'{name}: shape {array.shape} is not allowed: must be {_wanted(field)}, or with '
      'an axis of rows before it.'
    )
  if dtype.kind in 'iu':
    low, high = _range(field, vocabulary)
    whole = array.dtype.kind in 'biu'
    if not whole or array.min() < low or array.max() > high:
      raise ConfigError(
        f'{name}: {array.dtype} from {array.min()} to {array.max()} is not allowed: '
        f'must be whole numbers in [{low}, {high}].'
      )
  elif not np.isfinite(array[~np.isnan(array)] if may_lack else array).all():
    held = 'inf' if may_lack else 'NaN or inf'
    raise ConfigError(f'{name} holds {held}: must be finite numbers.')
  array = array.astype(dtype)
  return Rows(array[None] if single else array, not single)


def _range(field: Field, vocabulary: Any) -> tuple[int, int]:
  """The least and the largest whole number that an input may have."""
  info = np.iinfo(field.dtype)
  if field.kind == 'image':
    return 0, field.max_value
  if field.kind == 'label':
    return 0, len(field.names) - 1 if field.names else int(info.max)
  if field.kind == 'tokens':
    return 0, len(vocabulary) - 1 if vocabulary is not None else int(info.max)
  return int(info.min), int(info.max)


def _wanted(field: Field) -> str:
  shape = ', '.join(map(str, field.shape))
  return f'{field.kind}, {field.dtype} [{shape}]'


def _short(value: Any) -> str:
  text = ' '.join(repr(value).split())
  return text if len(text) <= 40 else f'{text[:40]}...'


def described(fields: Mapping[str, Field]) -> str:
  """Inputs or outputs, as a person reads them: `image uint8 [8, 8, 1]`."""

  def tell(field: Field) -> str:
    if field.kind == 'column' and field.names:
      return f'one of {len(field.names)} words'
    if field.since is not None:
      return 'date'
    sizes = ', '.join(map(str, field.shape))
    return f'{field.dtype} [{sizes}]' if field.shape else field.dtype

  return ', '.join(f'{name} ({f.kind}, {tell(f)})' for name, f in fields.items())
