"""Rows with named columns as text: CSV, TSV and JSON lines, checked line by line."""

import codecs
import csv
import io
import json
import pathlib
from typing import Any, Mapping, NamedTuple, Sequence

from etils import epath
import numpy as np

from dlx.data.formats import files
from dlx.errors import ConfigError, DataError

_NO_TEXT = {  # How files begin that are often taken for tables and texts.
  b'PK\x03\x04': 'a spreadsheet or a zip archive',
  b'\xd0\xcf\x11\xe0': 'a spreadsheet or document of Office',
  b'\x1f\x8b': 'packed by gzip',
  b'%PDF': 'a PDF',
}

MISSING = frozenset(('', 'na', 'n/a', 'nan', 'null', 'none', '?'))


class Table(NamedTuple):
  """A file as it stands there.

  Attributes:
    path: of the file.
    names: of the columns.
    cells: rows of as many cells, without the spaces around them.
    lines: the line of the file in which each row ends, from 1.
    unit: what `lines` counts.
    classes: names of the classes of a column, in their order, where the file has them.
    shards: the first row of each file, its path and unit, where there are several.
  """

  path: pathlib.Path
  names: list[str]
  cells: list[list[str]]
  lines: list[int]
  unit: str = 'line'
  classes: Mapping[str, list[str]] = {}
  shards: Sequence[tuple[int, pathlib.Path, str]] = ()

  def check(self, **named: str | None | Sequence[str]):
    """Raises ConfigError where a flag names a column that is not there.

    Args:
      named: a column, or several, by the name of the flag.
    """
    for flag, asked in named.items():
      for name in [asked] if isinstance(asked, str | None) else asked:
        if name not in self.names:
          raise ConfigError(
            f'--{flag}={name} is not allowed: {self.path} has the columns '
            f'{", ".join(self.names)}.'
          )

  def column(self, name: str) -> list[str]:
    """The cells of one column."""
    at = self.names.index(name)
    return [row[at] for row in self.cells]

  def shard(self, row: int) -> int:
    """In which of several files a row stands, from 0."""
    return max(0, sum(first <= row for first, _, _ in self.shards) - 1)

  def where(self, row: int) -> str:
    """Where a row stands, e.g. 'own.csv: line 5'."""
    path, unit = self.path, self.unit
    if self.shards:
      _, path, unit = self.shards[self.shard(row)]
    return f'{path}: {unit} {self.lines[row]}'

  def place(self, row: int) -> str:
    """The same, of a single file without its name."""
    return self.where(row) if self.shards else f'{self.unit} {self.lines[row]}'

  def wrong(self, row: int, name: str, what: str) -> DataError:
    """An error of one cell."""
    return DataError(f'{self.where(row)}, column {name!r}: {what}.')


def text_of(path: Any, encoding: str = 'utf-8') -> str:
  """The text of a file: with a byte order mark in the encoding that it tells.

  Raises:
    ConfigError: an encoding that Python does not know.
    DataError: no such file, an empty one, or other bytes than the encoding has.
  """
  try:
    codecs.lookup(encoding)
  except LookupError:
    raise ConfigError(
      f'--encoding={encoding} is not known: e.g. utf-8, utf-16, latin-1, cp1252.'
    ) from None
  raw = files.read_bytes(epath.Path(path))
  if not raw.strip():
    raise DataError(f'{path}: is empty.')
  for begin, what in _NO_TEXT.items():
    if raw.startswith(begin):
      raise DataError(f'{path}: is {what}, no text: unpack it, or save it as text.')
  if raw.startswith(codecs.BOM_UTF8):
    encoding = 'utf-8-sig'
  elif raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    encoding = 'utf-16'
  try:
    text = raw.decode(encoding)
  except UnicodeDecodeError as error:
    line = raw[: error.start].count(b'\n') + 1
    raise DataError(
      f'{path}: line {line}: byte {error.start} is not {encoding}: give its encoding, '
      'e.g. --encoding=latin-1.'
    ) from None
  if '\0' in text:
    line = text[: text.index('\0')].count('\n') + 1
    raise DataError(f'{path}: line {line}: holds a zero character: it is no text.')
  return text


def read(path: Any, encoding: str = 'utf-8') -> Table:
  """A table: the first line names the columns; separated by comma, semicolon, tab or |.

  Empty lines are passed over.

  Raises:
    DataError: names of columns that lack or occur twice, a line of another number of
      cells, or no line.
  """
  path = pathlib.Path(path)
  text = text_of(path, encoding)
  separators = '\t' if path.suffix.lower() in ('.tsv', '.tab') else ',;\t|'
  first = next(line for line in text.splitlines() if line.strip())
  cut = lambda separator: len(next(csv.reader([first], delimiter=separator)))
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=max(separators, key=cut), strict=True
  )
  names: list[str] = []
  cells, lines, read_to = [], [], 0
  try:
    for row in reader:
      read_to = reader.line_num
      row = [cell.strip() for cell in row]
      if not any(row):
        continue
      if not names:
        names = _names(path, row)
        continue
      if len(row) != len(names):
        raise DataError(
          f'{path}: line {reader.line_num}: has {len(row)} cells, the first line has '
          f'{len(names)}: mend the line.'
        )
      cells.append(row)
      lines.append(reader.line_num)
  except csv.Error as error:
    if 'end of data' in str(error):
      raise DataError(
        f'{path}: line {read_to + 1} or later: a quotation mark is not closed.'
      ) from None
    raise DataError(f'{path}: line {reader.line_num}: {error}.') from None
  if not cells:
    raise DataError(f'{path}: holds no row below its first line.')
  return Table(path, names, cells, lines)


def read_json_lines(path: Any, encoding: str = 'utf-8') -> Table:
  """A table of JSON objects, one a line; null and what lacks become ''.

  Raises:
    DataError: a line that is no object, or no line.
  """
  path = pathlib.Path(path)
  found, lines = [], []
  for number, line in enumerate(text_of(path, encoding).split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise DataError(f'{path}: line {number}: is no JSON ({error}).') from None
    if not isinstance(row, dict) or not row:
      raise DataError(
        f'{path}: line {number}: is no JSON object: each line must be one, '
        'e.g. {"text": "so good", "label": "yes"}.'
      )
    found.append(row)
    lines.append(number)
  names = list({name: None for row in found for name in row})
  cells = [[cell_of(row.get(name)) for name in names] for row in found]
  return Table(path, names, cells, lines)


def cell_of(value: Any) -> str:
  """A value as the text of a cell: '' for None, numbers in full."""
  if value is None:
    return ''
  if isinstance(value, (list, dict)):
    return json.dumps(value, default=str)
  # Half of a pair, as JSON may hold it, is no text that can be written.
  return str(value).strip().encode(errors='replace').decode()


def numbers(cells: list[str]) -> tuple[np.ndarray, list[int]]:
  """Cells as float64 [N], NaN for a missing one, and the rows that are no numbers."""
  found, wrong = np.full(len(cells), np.nan), []
  for row, cell in enumerate(cells):
    if is_missing(cell):
      continue
    try:
      found[row] = float(cell.replace('_', 'x'))  # Python's 1_000 is no number here.
    except ValueError:
      wrong.append(row)
  return found, wrong


def is_missing(cell: str) -> bool:
  """Whether a cell stands for a value that is not known."""
  return cell.lower() in MISSING


def _names(path: pathlib.Path, row: list[str]) -> list[str]:
  if not numbers(row)[1]:
    raise DataError(
      f'{path}: the first line holds no names of columns ({", ".join(row[:5])}): write '
      'them above.'
    )
  for name in row:
    if not name and row.count('') > 1:
      raise DataError(f'{path}: {row.count("")} columns have no name: give them some.')
    if row.count(name) > 1:
      raise DataError(f'{path}: two columns are called {name!r}: rename one.')
  return row
