"""A column of numbers at equal distances in time as a series to forecast."""

import os
import re
from typing import Any, Sequence

import numpy as np

from dlx.data.prepare import columns, dates, readers
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.sets.facts import LONGEST_SERIES
from dlx.data.sets.series import ENDS
from dlx.errors import ConfigError, DataError

_LEAST = 10  # Numbers of a series.
_SHORT = re.compile(r'[0-9]{4}(?:-[0-9]{2})?')  # A year, or a month of one.
# By days, of what is no whole number of months: its name and period.
_DAYS = {
  1 / 1440: ('minute', 60),
  1 / 24: ('hour', 24),
  1.0: ('day', 7),
  7.0: ('week', 52),
}
_MONTHS = {1: ('month', 12), 3: ('quarter', 4), 12: ('year', 1)}
_CLOSE = 1e-3  # Share of a step by which dates may be off: a second has 12 digits.


def prepare(
  paths: Any,
  name: str,
  data_dir: Any = None,
  *,
  target: str | None = None,
  date: str | None = None,
  period: int | None = None,
  unit: str | None = None,
  leave_out: Sequence[str] = (),
  encoding: str = 'utf-8',
) -> Made:
  """Makes a series of N numbers, in the order of the rows; `value` float64 [N].

  Args:
    paths: a file of columns, or several whose rows follow each other, see
      `readers.read`.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    target: column of the numbers; None: the only one besides the dates.
    date: column of ISO 8601 dates or times, or of years or months (2026, 2026-11), that
      rise by equal steps; None: the first column, where it has them. Without one, rows
      are steps.
    period: steps after which the series comes back to where it was, about; None: of
      minutes 60, hours 24, days 7, weeks 52, months 12, quarters 4, of others 1.
    unit: what is counted or measured; None: the name of the column.
    leave_out: columns that are not used.
    encoding: of the file.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file, line or column that cannot be taken; names it.
  """
  check_name(name, data_dir)
  if period is not None and period < 1:
    raise ConfigError(f'--period={period} is not allowed: must be at least 1.')
  notes: list[str] = []
  table = readers.read(paths, encoding)
  named = {'target': target, 'date': date}
  table.check(
    leave_out=leave_out, **{flag: x for flag, x in named.items() if x is not None}
  )
  left = [column for column in table.names if column not in leave_out]
  if date is None and len(left) > 1 and left[0] != target:
    date = left[0] if _are_dates(table.column(left[0])) else None
  target = _target(table, [column for column in left if column != date], target)
  value_N = _values(table, target)
  step, usual = 'step', 1
  if date is not None:
    step, usual = _step(table, date)
  if period is None:
    period = usual
    if period == 1:
      notes.append(
        f'No period of a {step} is known: 1, so that the period before is the number '
        'before; give --period.'
      )
  seen_N = value_N[: round(ENDS['train'] * len(value_N))]
  if period > len(seen_N):
    raise ConfigError(
      f'--period={period} is not allowed: the training part has {len(seen_N)} numbers: '
      'give a smaller one.'
    )
  if seen_N.min() == seen_N.max():
    raise DataError(
      f'{table.path}, column {target!r}: the first {len(seen_N)} numbers, those for '
      f'training, are all {seen_N[0]:g}: there is nothing to learn.'
    )
  with draft(name, data_dir) as new:
    new.add('train', value=value_N)
    facts = {
      'values': ' '.join(map(repr, value_N.tolist())),
      'unit': target if unit is None else unit,
      'step': step,
      'period': period,
    }
    several = isinstance(paths, (list, tuple))
    made = {
      'by': 'series',
      'source': [os.path.abspath(path) for path in (paths if several else [paths])],
      **{'target': target, 'date': date, 'leave_out': list(leave_out)},
      **{'encoding': encoding, 'notes': notes},
    }
    new.finish('series', facts, made)
  return made_of(name, data_dir, notes)


def _target(table: columns.Table, left: Sequence[str], target: str | None) -> str:
  """The column of the numbers."""
  if target is not None and target not in left:
    raise ConfigError(
      f'--target={target} is not allowed: it is the date, or left out: name another '
      'column.'
    )
  if target is None and len(left) != 1:
    raise ConfigError(
      f'--target is missing: {table.path} has, beside dates, the columns '
      f'{", ".join(left) or "none"}: name that of the numbers.'
    )
  return left[0] if target is None else target


def _values(table: columns.Table, target: str) -> np.ndarray:
  """float64 [N], all of them finite."""
  cells = table.column(target)
  value_N, wrong = columns.numbers(cells)
  wrong += np.flatnonzero(~np.isfinite(value_N)).tolist()
  if wrong:
    row = min(wrong)
    raise table.wrong(
      row, target, f'{cells[row]!r} is no number: each row of a series must have one'
    )
  if not _LEAST <= len(value_N) <= LONGEST_SERIES:
    raise DataError(
      f'{table.path}: has {len(value_N)} rows, must have {_LEAST} to '
      f'{LONGEST_SERIES}: of a longer series take the end, or means of some rows.'
    )
  return value_N


def _whole_dates(cells: Sequence[str]) -> list[str]:
  """Of a year or a month its first day; others as they are."""
  return [
    cell + '-01-01'[3 * (len(cell) == 7) :] if _SHORT.fullmatch(cell) else cell
    for cell in cells
  ]


def _are_dates(cells: Sequence[str]) -> bool:
  day_N, wrong = dates.days(_whole_dates(cells))
  return not wrong and not np.isnan(day_N).any()


def _step(table: columns.Table, name: str) -> tuple[str, int]:
  """What lies between two rows, and its usual period."""
  cells = table.column(name)
  day_N, wrong = dates.days(_whole_dates(cells))
  wrong += np.flatnonzero(np.isnan(day_N)).tolist()
  if wrong:
    row = min(wrong)
    raise table.wrong(
      row,
      name,
      f'{cells[row]!r} is no date: must be as 2026, 2026-11, {dates.EXAMPLES}',
    )
  step_N = np.diff(day_N)
  if (early := np.flatnonzero(step_N <= 0)).size:
    row = int(early[0]) + 1
    raise table.wrong(
      row,
      name,
      f'{cells[row]!r} is not after {cells[row - 1]!r} of the row before: sort the '
      'rows, each date once',
    )
  if (months := _months(day_N)) is not None:
    return _MONTHS.get(months, (f'{months} months', 1))
  usual = float(np.median(step_N))
  off = np.flatnonzero(np.abs(step_N - usual) > _CLOSE * usual)
  if off.size:
    row = int(off[0]) + 1
    raise table.wrong(
      row,
      name,
      f'{cells[row]!r} is {step_N[row - 1]:g} days after the row before, half of the '
      f'rows are {usual:g} or less: give a row for each step, or '
      f'--leave_out={name} to take rows as steps',
    )
  for days, known in _DAYS.items():
    if abs(usual - days) <= _CLOSE * days:
      return known
  return (f'{usual:g} days', 1) if usual >= 1 else (f'{usual * 24:g} hours', 1)


def _months(day_N: np.ndarray) -> int | None:
  """Months between rows, where they are equally many: the same day of the month.

  The last days of months are the same day, too.
  """
  at_N = day_N.astype('datetime64[D]')
  month_N = at_N.astype('datetime64[M]')
  first_N = (at_N - month_N.astype('datetime64[D]')).astype(int)
  next_N = (month_N + np.timedelta64(1, 'M')).astype('datetime64[D]')
  last = bool((next_N - at_N == np.timedelta64(1, 'D')).all())
  step_N = np.diff(month_N.astype(int))
  alike = bool((first_N == first_N[0]).all()) or last
  return int(step_N[0]) if alike and step_N[0] and (step_N == step_N[0]).all() else None
