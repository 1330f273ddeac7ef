"""Tables by columns: numbers and categories apart, for models that tell them apart.

  data = columns.table('own')        an embedded set, or one of the user's own
  Shuffled(data.train, 64, seed)     batches; ShuffledStream from the host

Each batch is a function of (seed, step), and a process reads its rows of it, as of any
source. What a number is scaled by, and what stands for a missing one, come from the
training split alone. What `missing` does with a number that is not there:

  'indicator'  the median takes its place; the field `missing` says where, of columns
               in which training lacks some
  'median'     the median takes its place
  'refuse'     one line that names split, row and column
"""

import dataclasses
import functools
import math
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.sets import cards, facts, registry, tables
from dlx.errors import DataError
from dlx.state import Array

MISSING = ('indicator', 'median', 'refuse')
_CHUNK = 1 << 14  # Rows that are in memory twice.
# Columns of known sets whose numbers are codes of categories.
_CODES = {('diabetes', 'sex'): ('1', '2')}


class Number(NamedTuple):
  """A column of numbers, or of dates as days since 1970-01-01.

  Attributes:
    name: of the column.
    fill: what stands for a missing one, in the unit of the column.
    mean: of the training rows, missing ones filled.
    std: likewise; 1 of a constant column.
    indicated: whether `missing` has a place for it.
    since: of dates a whole day near the mean, from which a row as measured counts: in
      float32 days since 1970 would be minutes off. None: it is no date.
  """

  name: str
  fill: float
  mean: float
  std: float
  indicated: bool
  since: float | None = None


class Category(NamedTuple):
  """A column of words.

  Attributes:
    name: of the column.
    values: code k stands for values[k - 1]; code 0 for a value that is missing, or that
      no training row has.
  """

  name: str
  values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ColumnData:
  """What is known of a table before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: source of `number` f32 [N], standardised; `missing` bool [M]; `code` int32
      [C], each where there are some; and of `label` int32 [] (classes) or `target` f32
      [], less `target_mean`, over `target_std`.
    test: likewise.
    numbers: N columns.
    categories: C columns.
    class_names: K names; () for regression.
    target_name: what is predicted.
    target_mean: of the training targets as measured; 0 for classes.
    target_std: likewise; 1 for classes.
    baseline: see `tables.TabularData`.
  """

  name: str
  train: Source
  test: Source
  numbers: tuple[Number, ...]
  categories: tuple[Category, ...]
  class_names: tuple[str, ...]
  target_name: str
  target_mean: float
  target_std: float
  baseline: Mapping[str, float]

  def fields(self, row: Mapping[str, Array]) -> dict[str, Array]:
    """Columns as a user has them as fields of a batch: jnp, float32.

    Args:
      row: by name of the column: numbers [B], NaN for a missing one, of dates the days
        since `Number.since`; or codes [B].
    """
    found = {}
    if self.numbers:
      x = jnp.stack([row[c.name] for c in self.numbers], 1)
      begin = [c.since or 0 for c in self.numbers]
      numbers = [
        c._replace(fill=c.fill - day, mean=c.mean - day)
        for c, day in zip(self.numbers, begin, strict=True)
      ]
      found |= _scaled(jnp, x.astype(jnp.float32), numbers)
    if self.categories:
      found['code'] = jnp.stack([row[c.name] for c in self.categories], 1)
    return found


def table(name: str, missing: str = 'indicator') -> ColumnData:
  """A table by name, see dlx/data/sets/tables.py; reads nothing.

  Args:
    name: of the kind tables, or that of a set of the user's own.
    missing: one of MISSING: what is done with a number that is not there.

  Raises:
    ConfigError: unknown name. On load DataError: a number that is missing where
      `missing` refuses it.
  """
  layout = _layout(name, missing)
  card, plain, numbers, categories, where = layout
  target = plain.target_mean or 0.0, plain.target_std or 1.0
  convert = functools.partial(_convert, numbers, categories, where, missing, target)
  kept = [number for _, number in numbers]
  return ColumnData(
    name=name,
    train=_by_columns(layout.source('train'), convert, kept, categories),
    test=_by_columns(layout.source('test'), convert, kept, categories),
    numbers=tuple(kept),
    categories=tuple(categories),
    class_names=layout.class_names,
    target_name=plain.target_name,
    target_mean=target[0],
    target_std=target[1],
    baseline=plain.baseline,
  )


class _Layout(NamedTuple):
  """A table of any kind, and where its columns are among its features.

  Attributes:
    card: of a set of the user's own, else None.
    plain: the set with features as measured.
    numbers: (feature, column) of each column of numbers.
    categories: columns of words.
    where: of each of those the features it is in.
  """

  card: cards.Card | None
  plain: tables.TabularData
  numbers: list[tuple[int, Number]]
  categories: list[Category]
  where: list[slice]

  @property
  def class_names(self) -> tuple[str, ...]:
    if self.card is not None:
      return tuple(self.card.facts.get('classes', ()))
    return tuple(map(str, range(self.plain.num_classes or 0)))

  def source(self, split: str) -> Source:
    """As it lies on the disk: of an own set missing numbers are not filled yet."""
    if self.card is not None:
      return cards.source(self.card, split)
    return {'train': self.plain.train, 'test': self.plain.test}[split]


def _layout(name: str, missing: str = 'indicator') -> _Layout:
  card = registry.check(name, 'tables')
  plain = tables.tabular(name, standardize=False)
  if card is None:
    median, lacking = plain.feature_mean, [0] * plain.num_features
    dates = frozenset()
    names = [(column, _CODES.get((name, column), ())) for column in plain.feature_names]
  else:
    median = card.facts['median']
    lacking = card.facts.get('missing', [0] * plain.num_features)
    names, dates = facts.columns(card.facts), facts.dates(card.facts)
  numbers, categories, where, at = [], [], [], 0
  for column, values in names:
    if values:
      categories.append(Category(column, values))
      # Of an own set one feature a value; of a known one the number itself.
      where.append(slice(at, at + (len(values) if card else 1)))
      at = where[-1].stop
    else:
      mean, std = plain.feature_mean[at], plain.feature_std[at]
      indicated = missing == 'indicator' and lacking[at] > 0
      since = float(math.floor(mean)) if column in dates else None
      number = Number(column, float(median[at]), mean, std, indicated, since)
      numbers.append((at, number))
      at += 1
  return _Layout(card, plain, numbers, categories, where)


def as_measured(name: str) -> dict[str, Source | None]:
  """The splits of a table with columns as a person has them; reads nothing.

  Args:
    name: see `table`.

  Returns:
    Of each split a source of all fields of `tables.tabular`, as measured, and of each
    column by `key(column)`: numbers f32 [], NaN where one is missing; dates likewise,
    f64, in days since 1970-01-01; words as text, '' where one is missing or no training
    row has it. None: no such split.

  Raises:
    ConfigError: unknown name.
  """
  layout = _layout(name)
  shape = jax.ShapeDtypeStruct
  width = lambda number: np.float32 if number.since is None else np.float64
  shapes = {key(number.name): shape((), width(number)) for _, number in layout.numbers}
  words = {key(c.name): np.array(['', *c.values]) for c in layout.categories}
  shapes |= {k: shape((), texts.dtype) for k, texts in words.items()}

  def source(plain: Source, raw: Source) -> Source:
    def read(data_dir: Any) -> Loaded:
      loaded = plain.read(data_dir)
      apart = loaded if layout.card is None else raw.read(data_dir)
      features = np.asarray(apart.data['features'])
      made: dict[str, Any] = {
        key(number.name): features[:, at].astype(width(number))
        for at, number in layout.numbers
      }
      for at, category in zip(layout.where, layout.categories, strict=True):
        codes = _codes(features[:, at], category)
        made[key(category.name)] = words[key(category.name)][codes]
      return Loaded({**loaded.data, **made}, loaded.origin)

    return dataclasses.replace(
      plain, shapes={**plain.shapes, **shapes}, read=read, held=None
    )

  train, test = layout.plain.train, layout.plain.test
  raw = layout.source('train')
  parts: dict[str, Source | None] = {
    'train': source(train, raw),
    'test': source(test, layout.source('test')),
  }
  if train.held is not None and raw.held is not None:
    parts['validation'] = source(train.held, raw.held)
  return parts


def key(column: str) -> str:
  """The field of a column, which cannot be taken for `label`, `target` or another."""
  return f'column {column}'


def _by_columns(source: Source, convert: Any, numbers: Any, categories: Any) -> Source:
  """A source of `features` as one of its columns."""
  shape = jax.ShapeDtypeStruct
  shapes = {}
  if numbers:
    shapes['number'] = shape((len(numbers),), np.float32)
  if indicated := sum(number.indicated for number in numbers):
    shapes['missing'] = shape((indicated,), np.bool_)
  if categories:
    shapes['code'] = shape((len(categories),), np.int32)
  if 'label' in source.shapes:
    shapes['label'] = shape((), np.int32)
  else:
    shapes['target'] = shape((), np.float32)

  def read(data_dir: Any) -> Loaded:
    loaded = source.read(data_dir)
    size = len(loaded.data['features'])
    made = {k: np.empty((size, *x.shape), x.dtype) for k, x in shapes.items()}
    for start in range(0, size, _CHUNK):
      part = {k: np.asarray(x[start : start + _CHUNK]) for k, x in loaded.data.items()}
      for field, x in convert(f'{source.name}/{source.split}', start, part).items():
        made[field][start : start + _CHUNK] = x
    return Loaded(made, loaded.origin)

  held = source.held
  if held is not None:
    held = _by_columns(held, convert, numbers, categories)
  return dataclasses.replace(source, shapes=shapes, read=read, held=held)


def _convert(
  numbers: list[tuple[int, Number]],
  categories: list[Category],
  where: list[slice],
  missing: str,
  target: tuple[float, float],
  split: str,
  start: int,
  part: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Some rows by fields; the first is row `start` of the split."""
  features, found = part['features'].astype(np.float64), {}
  if numbers:
    x = features[:, [at for at, _ in numbers]]
    if missing == 'refuse' and np.isnan(x).any():
      row, column = np.argwhere(np.isnan(x))[0]
      raise DataError(
        f'{split}: row {start + row} (from 0), column {numbers[column][1].name!r}: the '
        'number is missing: fill it, leave the row out, or choose '
        'missing=indicator or median.'
      )
    found |= _scaled(np, x, [number for _, number in numbers])
  if categories:
    codes = [_codes(features[:, at], c) for at, c in zip(where, categories)]
    found['code'] = np.stack(codes, 1)
  if 'label' in part:
    return {**found, 'label': part['label']}
  return {**found, 'target': (part['target'] - target[0]) / target[1]}


def _scaled(xp: Any, x_BN: Any, numbers: Any) -> dict[str, Any]:
  """`number` and, where a column has one, `missing`; NumPy or jnp."""
  fill, mean, std = (
    np.array([[getattr(c, k) for c in numbers]], x_BN.dtype)
    for k in ('fill', 'mean', 'std')
  )
  absent = xp.isnan(x_BN)
  found = {'number': (xp.where(absent, fill, x_BN) - mean) / std}
  if indicated := [i for i, c in enumerate(numbers) if c.indicated]:
    found['missing'] = absent[:, np.array(indicated)]
  return found


def _codes(features_NV: np.ndarray, category: Category) -> np.ndarray:
  """int32 [N] out of one feature a value, or of the number itself."""
  if features_NV.shape[1] == len(category.values):
    hot_NV = features_NV == 1
  else:
    hot_NV = features_NV == np.array([float(value) for value in category.values])
  return np.where(hot_NV.any(1), hot_NV.argmax(1) + 1, 0).astype(np.int32)
