"""Every field of a Config as an absl flag: `--config.lr`, `--config.optimizer.beta`.

The help of a flag is the comment on the line of its field, or the comment lines above
it, in the source of the class that declares it.
"""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from typing import Any, TypeVar

from absl import flags

from dlx import config_json
from dlx.config_text import value_from_text, value_to_text
from dlx.errors import ConfigError

_T = TypeVar('_T')
PREFIX = 'config'
_UNSET = object()  # A field without a default.


class FieldParser(flags.ArgumentParser):
  """Parses the text of one flag into the type of its field."""

  def __init__(self, type_: Any):
    super().__init__()
    self.type = type_
    self.syntactic_help = config_json.describe(type_)

  def parse(self, argument: Any) -> Any:
    """The value of a text; a value that is no text is a default and passes."""
    if not isinstance(argument, str):
      return argument
    try:
      return value_from_text(self.type, argument)
    except ValueError:
      raise ValueError(f'must be {self.syntactic_help}.') from None

  def flag_type(self) -> str:
    return self.syntactic_help


class FieldSerializer(flags.ArgumentSerializer):
  """Writes a value as the text that `FieldParser` reads."""

  def serialize(self, value: Any) -> str:
    return value_to_text(value)


def define(cls: type, values: flags.FlagValues, heading: str):
  """Defines one flag for every field of a Config class, nested ones included.

  Args:
    cls: the Config class.
    values: where the flags are defined.
    heading: under which --helpfull lists them.

  Raises:
    ConfigError: a field whose type cannot be a flag.
  """
  leaves = _leaves(cls, PREFIX, _UNSET)
  own = inspect.get_annotations(cls)  # Listed first: what makes this experiment.
  for name in sorted(leaves, key=lambda name: name.split('.')[1] not in own):
    type_, default, comment = leaves[name]
    try:
      parser = FieldParser(type_)
    except ConfigError as e:
      raise ConfigError(f'--{name}: {e}') from None
    default = None if default is _UNSET else default
    flag = flags.Flag(
      parser, FieldSerializer(), name, default, comment, boolean=type_ is bool
    )
    flags.DEFINE_flag(flag, values, heading)


def build(cls: type[_T], values: flags.FlagValues) -> _T:
  """The Config of parsed flags: those that were given, over the defaults.

  Raises:
    ConfigError: from `__post_init__`, or a field without default that was not given.
  """
  return _build(cls, values, PREFIX, _UNSET)


def _build(cls: type, values: flags.FlagValues, prefix: str, default: Any) -> Any:
  given = {}
  for field, type_ in config_json.field_types(cls).items():
    name = f'{prefix}.{field}'
    start = _default(cls, field, default)
    if config_json.is_nested(type_):
      given[field] = _build(type_, values, name, start)
    elif values[name].present:
      given[field] = values[name].value
    elif start is _UNSET:
      raise ConfigError(
        f'--{name} is missing: it has no default; must be '
        f'{config_json.describe(type_)}.'
      )
    elif default is not _UNSET:
      given[field] = start  # Of an instance whose values differ from its class's.
  return config_json.build_at(cls, given, prefix)


def comments(cls: type) -> dict[str, str]:
  """The help of every flag of a Config class, groups included, by flag name."""
  return {name: text for name, (_, _, text) in _leaves(cls, PREFIX, _UNSET).items()}


def _leaves(cls: type, prefix: str, default: Any) -> dict[str, tuple[Any, Any, str]]:
  """(type, default, comment) of every field that is no dataclass, by flag name."""
  found: dict[str, tuple[Any, Any, str]] = {}
  comments = field_comments(cls)
  for field, type_ in config_json.field_types(cls).items():
    name = f'{prefix}.{field}'
    start = _default(cls, field, default)
    if config_json.is_nested(type_):
      found |= _leaves(type_, name, start)
    else:
      found[name] = type_, start, comments.get(field, '')
  return found


def _default(cls: type, field: str, instance: Any) -> Any:
  """Of a field: its value in `instance`, else the default of the class, else _UNSET."""
  if instance is not _UNSET:
    return getattr(instance, field)
  (declared,) = (f for f in dataclasses.fields(cls) if f.name == field)
  if declared.default is not dataclasses.MISSING:
    return declared.default
  if declared.default_factory is not dataclasses.MISSING:
    return declared.default_factory()
  return _UNSET


def field_comments(cls: type) -> dict[str, str]:
  """What the source says about each field, base classes included, by field name.

  A subclass that only changes a default, without a comment, keeps the comment of its
  base.
  """
  found: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    if dataclasses.is_dataclass(base):
      found |= {name: text for name, text in _own_comments(base).items() if text}
  return found


def _own_comments(cls: type) -> dict[str, str]:
  try:
    source = textwrap.dedent(inspect.getsource(cls))
  except (OSError, TypeError):
    return {}  # A class made at run time: the flags work, they have no help.
  comments: dict[int, tuple[int, str, bool]] = {}  # Line: column, text, alone on it.
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      row, column = token.start
      alone = not token.line[:column].strip()
      comments[row] = column, token.string.lstrip('#').strip(), alone
  body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
  found = {}
  for node in body:
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
      continue
    # From the last line up: a formatter puts a long line and its comment in brackets.
    rows = range(node.end_lineno or node.lineno, node.lineno - 1, -1)
    beside = (text for row in rows if (text := _comment_beside(comments, row)))
    found[node.target.id] = next(beside, '') or _comment_above(
      comments, node.lineno - 1, node.col_offset
    )
  return found


def _comment_beside(comments: dict[int, tuple[int, str, bool]], row: int) -> str:
  """The comment at the end of a line, and the lines below that continue it."""
  if row not in comments:
    return ''
  column, text, _ = comments[row]
  lines = [text]
  while comments.get(row := row + 1, (-1, '', False))[::2] == (column, True):
    lines.append(comments[row][1])
  return ' '.join(lines)


def _comment_above(
  comments: dict[int, tuple[int, str, bool]], row: int, column: int
) -> str:
  """The lines of comment that end at a line and begin at a column."""
  lines: list[str] = []
  while comments.get(row, (-1, '', False))[::2] == (column, True):
    lines.insert(0, comments[row][1])
    row -= 1
  return ' '.join(lines)
