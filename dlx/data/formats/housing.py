"""California housing (Pace and Barry 1997): one row a block group of the 1990 census.

Read from cal_housing.data (StatLib's table, also inside cal_housing.tgz) or from
housing.csv, which has a header, one more column and 207 counts of bedrooms removed.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from dlx.data.formats import files
from dlx.errors import DataError

NAME = 'california_housing'
NUM_ROWS = 20640
FEATURES = (
  'longitude',
  'latitude',
  'housing_median_age',
  'total_rooms',
  'total_bedrooms',
  'population',
  'households',
  'median_income',
)
TARGET = 'median_house_value'
WANTED = 'cal_housing.data, cal_housing.tgz or housing.csv'
# sha256 of the table as little-endian float32, without the column of bedrooms: equal
# for both files and for every way of writing the same numbers.
VALUES_SHA256 = '8bcd319118a5b9c76e5e9cedb4b7fa9076e65fa155e3d1ad5713eb3d451fa8f2'
# The same of the column of bedrooms, -1 for a missing count: whole, or without 207.
BEDROOMS_SHA256 = (
  'd156b0786cb80549e76427b465bff23610c218eeb941383e8530832cf01b2bb6',
  'dada8abbe7ef01380b3717426900a963cd78166109e0a1c4bf3a8ca1a0741329',
)
_BEDROOMS = FEATURES.index('total_bedrooms')


class Table(NamedTuple):
  """features f64 [N, 8], target f64 [N] in dollars, and the record of the file."""

  features: np.ndarray
  target: np.ndarray
  record: dict[str, Any]


def parse(payload: bytes, path: Any) -> np.ndarray:
  """Rows float64 [N, 9] of either file; nan for a missing number.

  Raises:
    DataError: a row of another width, or a cell that is no number.
  """
  try:
    lines = payload.decode('ascii').split()
  except UnicodeDecodeError as e:
    raise DataError(f'{path}: not a table of numbers: {e}.') from e
  columns = len(FEATURES) + 1
  if payload[:9] == b'longitude':
    # The last column, ocean_proximity, may hold a space: cut by lines and by commas.
    lines = [','.join(s.split(',')[:columns]) for s in payload.decode().splitlines()]
    if lines[0].split(',') != [*FEATURES, TARGET]:
      raise DataError(f'{path}: expected the columns {", ".join((*FEATURES, TARGET))}.')
    lines = lines[1:]
  rows = [line.split(',') for line in lines]
  for n, row in enumerate(rows):
    if len(row) != columns:
      raise DataError(
        f'{path}: row {n + 1}: expected {columns} cells, found {len(row)}.'
      )
  try:
    return np.array([[float(c) if c else np.nan for c in row] for row in rows])
  except ValueError as e:
    raise DataError(f'{path}: {e}.') from e


def read(data_dir: Any, num_rows: int = NUM_ROWS) -> Table | None:
  """The whole table; None: no raw files.

  A missing count of bedrooms is nan: whoever splits the rows fills it, so that nothing
  of the test rows leaks.

  Raises:
    DataError: truncated, or other numbers than the published ones.
  """
  for folder in files.folders(data_dir, (NAME,)):
    present = files.listing(folder)
    for file in ('cal_housing.data', 'cal_housing.tgz', 'housing.csv'):
      if file not in present:
        continue
      path = folder / file
      if file.endswith('.tgz'):
        payload = files.read_archive(path, ['cal_housing.data'])['cal_housing.data']
        record = files.describe(path / 'cal_housing.data', payload)
      else:
        payload, record = files.read(path)
      return _check(parse(payload, path), path, len(payload), record, num_rows)
  return None


def _check(rows, path, size: int, record: dict[str, Any], num_rows: int) -> Table:
  if len(rows) != num_rows:
    raise DataError(
      f'{path}: truncated: expected {num_rows} rows, found {len(rows)} in {size} '
      'bytes; fetch the file again.'
    )
  if num_rows == NUM_ROWS:
    sha256 = values_sha256(rows)
    if sha256 != VALUES_SHA256:
      raise DataError(
        f'{path}: not the published numbers: expected sha256 {VALUES_SHA256} of the '
        f'values, found {sha256}; fetch the file again.'
      )
    bedrooms = np.nan_to_num(rows[:, _BEDROOMS], nan=-1).astype('<f4')
    if (found := hashlib.sha256(bedrooms.tobytes()).hexdigest()) not in BEDROOMS_SHA256:
      raise DataError(
        f'{path}: not the published numbers in total_bedrooms: expected sha256 '
        f'{" or ".join(BEDROOMS_SHA256)} of the column, found {found}; fetch the file '
        'again.'
      )
    record = record | {'verified': True}
  return Table(rows[:, : len(FEATURES)], rows[:, len(FEATURES)], record)


def values_sha256(rows: np.ndarray) -> str:
  """sha256 of the rows as float32, without the column of bedrooms."""
  kept = np.delete(rows, _BEDROOMS, axis=1).astype('<f4')
  return hashlib.sha256(np.ascontiguousarray(kept).tobytes()).hexdigest()
