"""A file of columns as a set of rows: numbers, dates, categories, one target."""

import os
from typing import Any, NamedTuple, Sequence

import numpy as np

from dlx.data.prepare import columns, dates, readers, rows
from dlx.data.prepare.draft import Draft, Made, check_name, draft, made_of
from dlx.data.sets import tables
from dlx.errors import DataError

_IDS = frozenset(('id', 'ids', 'index', 'row', 'no', ''))
_MOST = 64  # Categories of a column.


class Features(NamedTuple):
  """Columns as numbers.

  Attributes:
    features: float64 [N, F], NaN where a number is missing.
    names: F of them.
    columns: what they stand for, see `facts.columns`.
  """

  features: np.ndarray
  names: list[str]
  columns: list[dict[str, Any]]


def prepare(
  path: Any,
  name: str,
  data_dir: Any = None,
  *,
  target: str,
  predict: str | None = None,
  categories: Sequence[str] = (),
  leave_out: Sequence[str] = (),
  test: float = 0.2,
  seed: int = 0,
  repeats: str = 'keep',
  encoding: str = 'utf-8',
) -> Made:
  """Makes a set of `features` float64 [F], and of `target` float64 [] or `label` int32.

  Numbers stay as they are, NaN where one is missing; dates become days, see
  `dates.days`; a category becomes one feature for each of its values in the training
  rows, 1 or 0.

  Args:
    path: of a .csv, .tsv, .jsonl or .parquet, or a list of such of the same columns.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    target: the column to predict.
    predict: 'classes' or 'numbers'; None: numbers where all of the target are.
    categories: columns of numbers or dates that are codes of categories.
    leave_out: columns that are not used. One of ids is found and left out, too.
    test: share of the rows that test.
    seed: by which those are chosen, class by class.
    repeats: training rows that also stand in the test split: refuse, drop or keep.
    encoding: of the file.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file, line or column that cannot be taken; names it.
  """
  rows.check_share(test)
  rows.check_choices(predict=predict, repeats=repeats)
  check_name(name, data_dir)
  table = readers.read(path, encoding)
  path = table.path
  table.check(target=target, categories=categories, leave_out=leave_out)
  notes: list[str] = []
  wanted, classes = _target(table, target, predict)
  if classes:
    rows.check_classes(path, wanted, classes, least=2)
  elif len(wanted) < 2 or wanted.min() == wanted.max():
    raise DataError(f'{path}: column {target!r} has one value: nothing to predict.')
  of_test = rows.divided(len(wanted), test, seed, wanted if classes else None)
  unused = {target, *leave_out}
  found = _features(table, unused, set(categories), ~of_test, notes)
  with draft(name, data_dir) as new:
    at = {'train': np.flatnonzero(~of_test), 'test': np.flatnonzero(of_test)}
    field = 'label' if classes else 'target'
    for split, index in at.items():
      new.add(split, features=found.features[index], **{field: wanted[index]})
    line_of = lambda split, row: table.place(int(at[split][row]))
    rows.settle_repeats(new, repeats, line_of, notes)
    made = {
      'by': 'table',
      'source': [os.path.abspath(x) for _, x, _ in table.shards]
      or os.path.abspath(path),
      **{'target': target, 'predict': predict, 'categories': list(categories)},
      **{'leave_out': list(leave_out), 'test': test, 'seed': seed},
      **{'repeats': repeats, 'encoding': encoding, 'notes': notes},
    }
    facts = table_facts(new, found.names, target, classes, path, notes)
    facts['columns'] = found.columns
    new.finish('tables', facts, made)
  return made_of(name, data_dir, notes)


def table_facts(
  new: Draft,
  names: Sequence[str],
  target: str,
  classes: Sequence[str] | None,
  where: Any,
  notes: list[str],
) -> dict[str, Any]:
  """The facts of a table: what the training split alone gives, and least squares."""
  train, test = new.rows['train'], new.rows['test']
  measured = np.asarray(train['features'])
  empty = np.isnan(measured).all(0)
  if empty.any():
    raise DataError(
      f'{where}: column {names[int(empty.argmax())]!r} has no number in the training '
      'rows: --leave_out it.'
    )
  filled, absent = tables.fill(measured, measured)
  if absent:
    notes.append(f'{absent} missing number(s) in training take the median of a column.')
  rows.note_few(new, notes)
  constant = np.ptp(filled, 0) <= 8 * np.finfo(np.float64).eps * np.abs(filled).max(0)
  with_one = lambda x: np.column_stack([x, np.ones(len(x))])
  inputs = with_one(tables.standardized(filled, filled))
  other = tables.fill(np.asarray(test['features']), measured)[0]
  scored = with_one(tables.standardized(other, filled))
  facts: dict[str, Any] = {
    'feature_names': list(names),
    'target_name': target,
    'missing': np.isnan(measured).sum(0).tolist(),
    'median': np.nanmedian(measured, 0).tolist(),
    'mean': filled.mean(0).tolist(),
    'std': np.where(constant, 1, filled.std(0)).tolist(),
  }
  if classes is None:
    y = np.asarray(train['target'])
    guess = scored @ np.linalg.lstsq(inputs, y - y.mean(), rcond=None)[0] + y.mean()
    rmse = np.sqrt(((guess - test['target']) ** 2).mean())
    if y.std() == 0:
      raise DataError(f'{where}: column {target!r} has one value in training.')
    return {
      **facts,
      'target_mean': float(y.mean()),
      'target_std': float(y.std()),
      'baseline': {'rmse': float(rmse)},
    }
  label = {split: np.asarray(x['label']) for split, x in new.rows.items()}
  rows.check_classes(where, label['train'], classes, least=1)
  rows.note_absent(label, classes, notes)
  weights = np.linalg.lstsq(inputs, np.eye(len(classes))[label['train']], rcond=None)[0]
  accuracy = ((scored @ weights).argmax(1) == label['test']).mean()
  return {
    **facts,
    'classes': list(classes),
    'counts': {s: rows.class_counts(x, len(classes)) for s, x in label.items()},
    'baseline': {'accuracy': float(accuracy)},
  }


def _target(
  table: columns.Table, name: str, predict: str | None
) -> tuple[np.ndarray, list[str] | None]:
  """float64 [N] and None, or int32 [N] and the classes."""
  cells = table.column(name)
  for row, cell in enumerate(cells):
    if columns.is_missing(cell):
      raise table.wrong(row, name, 'the target is missing: leave the line out')
  value, wrong = columns.numbers(cells)
  if predict is None:
    _mixed(table, name, cells, wrong, 'number', '--predict=classes')
    predict = 'classes' if wrong else 'numbers'
  if predict == 'numbers':
    if wrong:
      raise table.wrong(wrong[0], name, f'{cells[wrong[0]]!r} is no number')
    _finite(table, name, value)
    return value, None
  order = float if not wrong else str
  classes = sorted(set(cells), key=lambda cell: (order(cell), cell))
  place = {cell: i for i, cell in enumerate(classes)}
  return np.array([place[cell] for cell in cells], np.int32), classes


def _features(
  table: columns.Table,
  unused: set[str],
  categories: set[str],
  train_N: np.ndarray,
  notes: list[str],
) -> Features:
  parts, names, kept = [], [], []
  for name in table.names:
    if name in unused:
      continue
    cells = table.column(name)
    value, date = None, False
    if name not in categories:
      value, date = _numbers(table, name, cells, train_N)
    if value is not None and not date and _are_ids(name, value):
      notes.append(f'Column {name!r} is left out: it numbers the rows.')
    elif value is not None:
      if date:
        notes.append(f'Column {name!r} is a date: days since {dates.SINCE}.')
      parts.append(value[:, None])
      names.append(name)
      kept.append({'name': name, 'date': True} if date else {'name': name})
    else:
      values = sorted({cells[i] for i in np.flatnonzero(train_N)} - _absent(cells))
      if name not in categories and len(values) > _MOST:
        notes.append(
          f'Column {name!r} is left out: {len(values)} values are more than {_MOST} '
          f'(--categories={name} takes them).'
        )
      elif len(values) < 2:
        notes.append(
          f'Column {name!r} is left out: {len(values)} value(s) in training.'
        )
      else:
        new = set(cells) - _absent(cells) - set(values)
        if new:
          notes.append(
            f'Column {name!r}: {len(new)} value(s) stand in the test rows alone, e.g. '
            f'{min(new)!r}: all of the features of the column are 0 there.'
          )
        parts.append((np.array(cells)[:, None] == np.array(values)).astype(np.float64))
        names += [f'{name}={value}' for value in values]
        kept.append({'name': name, 'values': values})
  if not parts:
    raise DataError(f'{table.path}: no column is left to predict from.')
  return Features(np.concatenate(parts, 1), names, kept)


def _absent(cells: list[str]) -> set[str]:
  return {cell for cell in cells if columns.is_missing(cell)}


def _are_ids(name: str, value_N: np.ndarray) -> bool:
  """Whether a column numbers the rows: whole, each once; by its name, or in order."""
  whole = np.isfinite(value_N).all() and (value_N == np.floor(value_N)).all()
  if not whole or len(value_N) < 3 or len(np.unique(value_N)) < len(value_N):
    return False
  named = name.lower() in _IDS or name.lower().startswith(('unnamed', 'id_'))
  named |= name.lower().endswith('_id')
  return named or bool((np.diff(value_N) == 1).all())


def _numbers(
  table: columns.Table, name: str, cells: list[str], train_N: np.ndarray
) -> tuple[np.ndarray | None, bool]:
  """float64 [N] of a column of numbers or dates, and whether it is of dates.

  None where it is neither.

  Raises:
    DataError: a cell that is no number or date where all but a few are, or that is no
      date where all of training are; an infinite number.
  """
  if all(map(columns.is_missing, cells)):
    return None, False
  remedy = f'--categories={name}'
  value, wrong = columns.numbers(cells)
  if not wrong:
    _finite(table, name, value)
    return value, False
  _mixed(table, name, cells, wrong, 'number', remedy)
  value, wrong = dates.days(cells)
  if np.isnan(value[train_N]).all():
    return None, False
  _mixed(table, name, cells, wrong, 'date', remedy)
  if not wrong:
    return value, True
  if not train_N[wrong].any():
    raise table.wrong(
      wrong[0],
      name,
      f'{cells[wrong[0]]!r} is no date, as all of training are: mend it, or {remedy}',
    )
  return None, False


def _mixed(
  table: columns.Table,
  name: str,
  cells: list[str],
  wrong: list[int],
  what: str,
  remedy: str,
):
  """Refuses a column of numbers or dates (`what`) but for a few cells."""
  known = sum(not columns.is_missing(cell) for cell in cells)
  if 0 < len(wrong) <= 0.1 * known:
    raise table.wrong(
      wrong[0],
      name,
      f'{cells[wrong[0]]!r} is no {what}, as {known - len(wrong)} others are: mend it, '
      f'or {remedy}',
    )


def _finite(table: columns.Table, name: str, value_N: np.ndarray):
  wrong = np.flatnonzero(np.isinf(value_N))
  if wrong.size:
    raise table.wrong(int(wrong[0]), name, f'{value_N[wrong[0]]} is not finite')
