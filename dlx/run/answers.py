"""What functions of a trained model read from files and words, and say in tables.

picture.png       an image
lines.txt         tokens: a text a line
rows.csv          rows, features, codes: one a line; a header is left out
table.csv         columns of a table by the names in its first line; not all are read
arrays.npy        any input: one example or many
arrays.npz        all inputs, by their names
"""

import csv
import io
import itertools
import json
import os
from typing import Any, Iterable, Mapping, Sequence
import zipfile

import numpy as np

from dlx.data.formats import expansion
from dlx.data.prepare import columns as csv_columns
from dlx.data.prepare import dates
from dlx.errors import ConfigError, DataError
from dlx.experiment import Field, Function
from dlx.run.drawing import to_png
from dlx.run.records.json_files import plain, write_bytes

ENDINGS = ('.csv', '.jsonl', '.npz', '.png')
SHOWN = 6  # Numbers of a vector in a table on the terminal.


def inputs_of_words(
  function: Function, words: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
  """Inputs and options from the words of a command line.

  Args:
    function: whose they are.
    words: NAME=VALUE of an input or an option; all else are files.

  Returns:
    Inputs and options by name, and what each row is called; [] without files.

  Raises:
    ConfigError: a word or file that cannot be, or two that speak of one input.
  """
  found: dict[str, Any] = {}
  files = []
  for word in words:
    name, equals, text = word.partition('=')
    if equals and name in function.options:
      found[name] = _option(text)
    elif equals and name in function.inputs:
      found[name] = _value(name, function.inputs[name], text)
    else:
      files.append(word)
  if not files:
    return found, []
  if files[0].endswith('.npz'):
    arrays = _load(files[0])
    if len(files) > 1 or not isinstance(arrays, dict):
      raise ConfigError(f'{files[0]}: a file .npz holds all inputs: give it alone.')
    return {**arrays, **found}, []
  if function.of_table:
    return _of_tables(function, files, found)
  name, field = _main(function, files[0])
  if name in found:
    raise ConfigError(f'{files[0]}: {name} is given twice: as a value and as a file.')
  values, called = [], []
  for file in files:
    rows = _rows(name, field, file)
    values += rows
    numbers = [f'{file}:{i}' for i in range(1, len(rows) + 1)]
    called += [file] if len(rows) == 1 else numbers
  found[name] = values
  return found, called


def _of_tables(
  function: Function, files: list[str], given: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
  """The columns that are inputs; those that are given as words are not read."""
  found: dict[str, list[Any]] = {k: [] for k in function.inputs if k not in given}
  called = []
  for file in files:
    _check_there(file)
  for file in files:
    table = csv_columns.read(os.path.expanduser(file))
    for name, values in found.items():
      if name not in table.names:
        raise ConfigError(
          f'{file}: has no column {name!r}, but {", ".join(table.names)}: add it, or '
          f'give {name}=VALUE for all rows.'
        )
      cells = table.column(name)
      field = function.inputs[name]
      if not field.names:
        of_date = field.since is not None
        cells, wrong = (dates.days if of_date else csv_columns.numbers)(cells)
        if wrong:
          cell = table.column(name)[wrong[0]]
          wanted = f'date, e.g. {dates.EXAMPLES}' if of_date else 'number'
          raise table.wrong(wrong[0], name, f'{cell!r} is no {wanted}')
      values += list(cells)
    called += [f'{file}:{i}' for i in range(1, len(table.cells) + 1)]
  return {**found, **given}, called


def _check_there(file: str):
  if not os.path.exists(os.path.expanduser(file)):
    raise ConfigError(f'{file}: no such file, and no NAME=VALUE of an input or option.')


def _main(function: Function, file: str) -> tuple[str, Field]:
  """The input that files are of."""
  wanted = {
    name: field
    for name, field in function.inputs.items()
    if field.kind not in ('seed', 'label') and field.default is None
  }
  if len(wanted) != 1 or function.of_graph:
    names = ', '.join(f'{name}=VALUE' for name in function.inputs)
    raise ConfigError(
      f'{file} is not allowed: no single input is read from files: give {names}, or '
      'all inputs in one file .npz.'
    )
  return next(iter(wanted.items()))


def _rows(name: str, field: Field, file: str) -> list[Any]:
  if file.endswith('.npy'):
    array = _load(file)
    return [array] if np.ndim(array) == len(field.shape) else list(array)
  if field.kind == 'image':
    return [file]
  _check_there(file)
  try:
    with open(os.path.expanduser(file), encoding='utf-8-sig', newline='') as f:
      text = f.read()
  except UnicodeDecodeError as error:
    raise ConfigError(f'{file} is no UTF-8 text ({error.reason}).') from None
  if field.kind in ('text', 'tokens'):
    rows: list[Any] = [line for line in text.splitlines() if line]
  else:
    lines = [(i, x) for i, x in enumerate(csv.reader(io.StringIO(text)), 1) if x]
    if lines and not any(map(_is_number, lines[0][1])):
      lines = lines[1:]  # The header.
    rows = [_numbers(name, field, f'{file}, line {i}', x) for i, x in lines]
  if not rows:
    raise ConfigError(f'{file} has no rows: must have one or more.')
  return rows


def _numbers(name: str, field: Field, where: str, cells: list[str]) -> np.ndarray:
  if wrong := [cell for cell in cells if not _is_number(cell)]:
    raise ConfigError(f'{where}: {wrong[0]!r} is no number.')
  sizes = [-1 if isinstance(n, str) else n for n in field.shape]
  try:
    return np.array(cells, float).reshape(sizes)
  except ValueError:
    raise ConfigError(
      f'{where} has {len(cells)} numbers: {name} has '
      f'{" x ".join(map(str, field.shape))}.'
    ) from None


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _load(file: str) -> Any:
  """An array, or arrays by name; no pickles."""
  path = os.path.expanduser(file)
  try:
    if zipfile.is_zipfile(path):
      expansion.check_zip(path)
    with open(path, 'rb') as f:
      found = np.load(f, allow_pickle=False)
      if isinstance(found, np.ndarray):
        return found
      return {name: found[name] for name in found.files}
  except DataError:
    raise
  except FileNotFoundError:
    raise ConfigError(f'{file}: no such file.') from None
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise ConfigError(f'{file} holds no arrays ({error}).') from None


def _value(name: str, field: Field, text: str) -> Any:
  words = field.names or field.since is not None
  if field.kind in ('image', 'tokens', 'text', 'label') or words:
    return text
  if field.kind == 'column' and csv_columns.is_missing(text):
    return float('nan')
  cells = text.split(',')
  if field.kind == 'graph' or not all(map(_is_number, cells)):
    raise ConfigError(f'{name}={text} is not allowed: must be numbers, or a file .npz.')
  numbers = [float(cell) for cell in cells]
  if np.issubdtype(field.dtype, np.integer) and all(x.is_integer() for x in numbers):
    numbers = [int(x) for x in numbers]
  return numbers[0] if len(numbers) == 1 and not field.shape else numbers


def _option(text: str) -> Any:
  """A number, true, false or none; else a word."""
  try:
    return json.loads({'none': 'null', 'None': 'null'}.get(text, text.lower()))
  except ValueError:
    return text


# Answers.


def columns(
  outputs: Mapping[str, Field], found: Mapping[str, Any], rows: int
) -> dict[str, list[Any]]:
  """Outputs as columns of `rows` values: texts, numbers, or lists of numbers.

  Of probabilities `class`, the likeliest by its name, stands before them; they become a
  mapping by class. A label is its name, where it has one, in a vector too.
  """
  out: dict[str, list[Any]] = {}
  for name, value in found.items():
    field, values = outputs[name], [plain(value[i]) for i in range(rows)]
    if field.kind == 'probabilities' and np.ndim(values[0]) == 1:
      classes = field.names or tuple(map(str, range(len(values[0]))))
      out['class'] = [classes[int(np.argmax(row))] for row in values]
      values = [dict(zip(classes, row, strict=True)) for row in values]
    if field.kind == 'label' and field.names:
      values = [_by_name(x, dict(enumerate(field.names))) for x in values]
    out[name] = values
  return out


def _by_name(value: Any, known: Mapping[int, str]) -> Any:
  """A label, or lists of labels, with names in place of the numbers that have one."""
  if isinstance(value, list):
    return [_by_name(x, known) for x in value]
  return known.get(value, value)


def table(found: Mapping[str, Sequence[Any]]) -> str:
  """Columns for the terminal: aligned, vectors cut, of probabilities the largest."""
  cells = [[name, *map(_cell, values)] for name, values in found.items()]
  widths = [max(map(len, column)) for column in cells]
  lines = [
    '  '.join(f'{cell:<{width}}' for cell, width in zip(line, widths)).rstrip()
    for line in zip(*cells, strict=True)
  ]
  return '\n'.join(lines)


def _cell(value: Any) -> str:
  if isinstance(value, Mapping):
    value = max(value.values())
  if isinstance(value, list):
    flat = np.ravel(value)
    words = flat.dtype.kind == 'U'
    shown = [printable(x) if words else f'{x:.4g}' for x in flat[:SHOWN]]
    if len(flat) > SHOWN:
      shown.append(f'... ({len(flat)} {"words" if words else "numbers"})')
    return ' '.join(shown)
  return f'{value:.6g}' if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
  """A text without what a terminal would obey."""
  return ''.join(c if c.isprintable() or c in '\n\t' else '\ufffd' for c in text)


def check_out(path: str, outputs: Mapping[str, Field]):
  """Raises ConfigError where answers cannot be written to such a file."""
  ending = os.path.splitext(path)[1]
  pictures = [name for name, field in outputs.items() if field.kind == 'image']
  if ending not in ENDINGS or (ending == '.png' and not pictures):
    allowed = ENDINGS if pictures else ENDINGS[:-1]
    raise ConfigError(f'--out={path} is not allowed: must end in {", ".join(allowed)}.')
  folder = os.path.dirname(os.path.abspath(path))
  if '://' not in path and not os.path.isdir(folder):
    raise ConfigError(f'--out={path}: {folder} is no folder: make it first.')


def write(
  path: str,
  outputs: Mapping[str, Field],
  found: Mapping[str, Any],
  called: Sequence[str],
):
  """Writes answers by the ending of the file.

  Args:
    path: see `check_out`.
    outputs: of the function.
    found: its outputs, with a leading axis of rows.
    called: what each row is of.
  """
  ending = os.path.splitext(path)[1]
  if ending == '.png':
    from dlx.figures.images import image_grid

    name = next(name for name, field in outputs.items() if field.kind == 'image')
    return write_bytes(path, to_png(image_grid(found[name]))[0])
  if ending == '.npz':
    buffer = io.BytesIO()
    arrays: Any = {'input': np.array(called, str), **found}
    np.savez(buffer, **arrays)
    return write_bytes(path, buffer.getvalue())
  lines = _lines(outputs, found, called)
  text = io.StringIO()
  if ending == '.jsonl':
    text.writelines(map(_json_line, lines))
  else:
    flat = [_flat(line) for line in lines]
    writer = csv.DictWriter(text, list(dict.fromkeys(k for row in flat for k in row)))
    writer.writeheader()
    writer.writerows(flat)
  write_bytes(path, text.getvalue().encode(errors='backslashreplace'))


def comes_in_parts(path: str, outputs: Mapping[str, Field]) -> bool:
  """Whether a file can grow with the answers, before the last of them is known.

  A table needs its columns with the first row: sizes that vary are not known then. An
  object store shows a file when it is whole.
  """
  ending = os.path.splitext(path)[1]
  told = lambda f: (
    (f.kind == 'tokens' and f.vocabulary is not None)
    or not any(isinstance(n, str) for n in f.shape)
  )
  fixed = ending == '.csv' and all(map(told, outputs.values()))
  return '://' not in path and (ending == '.jsonl' or fixed)


def write_parts(path: str, parts: Iterable[Any]):
  """Writes answers as they come, a line each: see `comes_in_parts`.

  The file is opened when the first of them are there, and holds whole lines at any
  time. What stops half-way leaves those that were written.

  Args:
    path: see `check_out`.
    parts: one or more, with `fields`, `found` and `called` as `write` takes them.
  """
  iterator = iter(parts)
  first = next(iterator)
  is_json = path.endswith('.jsonl')
  place = os.path.expanduser(path)
  with open(
    place, 'w', encoding='utf-8', errors='backslashreplace', newline=''
  ) as file:
    writer = None
    for part in itertools.chain([first], iterator):
      lines = _lines(part.fields, part.found, part.called)
      if is_json:
        file.writelines(map(_json_line, lines))
      else:
        flat = [_flat(line) for line in lines]
        if writer is None:
          writer = csv.DictWriter(file, list(flat[0]))
          writer.writeheader()
        writer.writerows(flat)
      file.flush()


def _lines(
  outputs: Mapping[str, Field], found: Mapping[str, Any], called: Sequence[str]
) -> list[dict[str, Any]]:
  """A mapping a row, `input` first."""
  rows = {'input': list(called), **columns(outputs, found, len(called))}
  return [dict(zip(rows, line)) for line in zip(*rows.values(), strict=True)]


def _json_line(line: Mapping[str, Any]) -> str:
  return json.dumps(line, ensure_ascii=False) + '\n'


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
  """One cell a number: `probabilities/cat`, `latent/0`."""
  out = {}
  for name, value in line.items():
    if isinstance(value, list):
      value = dict(enumerate(np.ravel(value).tolist()))
    if isinstance(value, Mapping):
      out |= {f'{name}/{key}': x for key, x in value.items()}
    else:
      out[name] = value
  return out
