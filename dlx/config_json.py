"""A Config as JSON and back, exactly: what config.json holds and evaluate rebuilds.

  config_to_json(config) -> dict            tuples become lists, enums their names
  config_from_json(Config, obj) -> Config   by the types of the fields

The types that a field may have stand in `describe`; flags are made from the same ones.
"""

import dataclasses
import difflib
import enum
import math
import types
import typing
from typing import Any, Mapping, TypeVar

from dlx.errors import ConfigError, FieldError

_T = TypeVar('_T')
_PLAIN = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a finite number',
  str: 'text',
}
_MANY = {int: 'whole numbers', float: 'finite numbers', str: 'words'}


def field_types(cls: type) -> dict[str, Any]:
  """Types of the fields that a dataclass takes, by name, in order of declaration.

  Annotations that are text (postponed ones) are evaluated in the module of the class,
  which must stand in sys.modules.
  """
  hints = typing.get_type_hints(cls)
  return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def is_nested(type_: Any) -> bool:
  """Whether a field of this type is a dataclass of its own."""
  return isinstance(type_, type) and dataclasses.is_dataclass(type_)


def without_none(type_: Any) -> tuple[Any, bool]:
  """(T, True) of `T | None`, (T, False) of all else."""
  if typing.get_origin(type_) in (typing.Union, types.UnionType):
    rest = [t for t in typing.get_args(type_) if t is not type(None)]
    if len(rest) == 1 and len(typing.get_args(type_)) == 2:
      return rest[0], True
  return type_, False


def tuple_items(type_: Any) -> tuple[Any, int | None] | None:
  """(type of an item, length or None for any) of a tuple type; None: no such type."""
  args = typing.get_args(type_)
  if typing.get_origin(type_) is not tuple or not args or args[0] not in _MANY:
    return None
  if len(args) == 2 and args[1] is Ellipsis:
    return args[0], None
  return (args[0], len(args)) if set(args) == {args[0]} else None


def choices(type_: Any) -> dict[str, Any] | None:
  """Values of a Literal or an Enum by their text; None: neither of the two."""
  if typing.get_origin(type_) is typing.Literal:
    return {str(v): v for v in typing.get_args(type_)}
  if isinstance(type_, type) and issubclass(type_, enum.Enum):
    return dict(type_.__members__)
  return None


def describe(type_: Any) -> str:
  """What a field of this type takes, in words that complete "must be".

  Raises:
    ConfigError: a type that neither a flag nor JSON can carry.
  """
  inner, optional = without_none(type_)
  if optional:
    return describe(inner) + ', or none for off'
  if type_ in _PLAIN:
    return _PLAIN[type_]
  if (named := choices(type_)) is not None:
    return 'one of ' + ', '.join(named)
  if (items := tuple_items(type_)) is not None:
    number = '' if items[1] is None else f'{items[1]} '
    return f'{number}{_MANY[items[0]]} separated by commas'
  name = getattr(type_, '__name__', None) if isinstance(type_, type) else None
  raise ConfigError(
    f'type {name or type_} is not allowed in a Config: must be bool, int, float, '
    'str, a Literal, an Enum, a tuple of int, float or str, one of these or None, or a '
    'dataclass.'
  )


def config_to_json(config: Any) -> dict[str, Any]:
  """All fields as JSON values; nested dataclasses become nested objects.

  Floats are written by repr and read back to the bit.

  Raises:
    ConfigError: a value that JSON cannot carry exactly, e.g. an array or inf.
  """
  return {
    name: _value_to_json(f'config.{name}', getattr(config, name))
    for name in field_types(type(config))
  }


def _value_to_json(name: str, value: Any) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      inner: _value_to_json(f'{name}.{inner}', getattr(value, inner))
      for inner in field_types(type(value))
    }
  if isinstance(value, enum.Enum):
    return value.name
  if isinstance(value, tuple):
    return [_value_to_json(name, item) for item in value]
  if value is None or type(value) in (bool, int, str):
    return value
  if isinstance(value, float) and math.isfinite(value):
    return value
  raise ConfigError(
    f'{name}={value} is not allowed: {type(value).__name__} cannot stand in '
    'config.json; must be a finite number, text, true or false, None, an enum or a '
    'tuple of these.'
  )


def config_from_json(
  cls: type[_T], obj: Any, *, name: str = 'config', added: list[str] | None = None
) -> _T:
  """The Config that `config_to_json` wrote; its `__post_init__` runs.

  Args:
    cls: the Config class, or that of a nested field.
    obj: its JSON object.
    name: how messages call it.
    added: takes the names of fields that are not in `obj` and have a default, which
      they get; None: every field must be there.

  Raises:
    ConfigError: unknown or missing fields (all are named), or a wrong type.
  """
  if not isinstance(obj, Mapping):
    raise ConfigError(
      f'{name}={obj!r} is not allowed: must be an object with the '
      f'fields of {cls.__name__}.'
    )
  known = field_types(cls)
  faults = []
  if unknown := sorted(set(obj) - set(known)):
    faults.append('unknown: ' + ', '.join(unknown))
  missing = sorted(set(known) - set(obj))
  if added is not None:
    new = [field for field in missing if field in _with_default(cls)]
    added += [f'{name}.{field}' for field in new]
    missing = [field for field in missing if field not in new]
  if missing:
    faults.append('missing: ' + ', '.join(missing))
  if faults:
    raise ConfigError(
      f'The fields of {name} are not those of {cls.__name__} ({"; ".join(faults)}): '
      'the experiment has changed since; check out the commit named in config.json.'
    )
  given = {
    field: _value_from_json(f'{name}.{field}', type_, obj[field], added)
    for field, type_ in known.items()
    if field in obj
  }
  return build_at(cls, given, name)


def config_of_fields(cls: type[_T], given: Mapping[str, Any], base: Any = None) -> _T:
  """A Config of fields that a person gives by name, as a call does.

  Args:
    cls: the Config class.
    given: values of fields; of a group a mapping of some of its fields, or the group.
      A list is taken for a tuple.
    base: a Config whose fields the others are; None: the defaults.

  Raises:
    ConfigError: an unknown or missing field, a wrong type, an impossible value.
  """
  then = {} if base is None else config_to_json(base)
  return config_from_json(cls, _merged(cls, then, given, 'config'), added=[])


def _merged(cls: type, then: Mapping[str, Any], given: Mapping[str, Any], name: str):
  """The JSON object of a config, with what is given in it."""
  import numpy as np  # Not for flags and help.

  known, found = field_types(cls), dict(then)
  for field, value in given.items():
    if field not in known:
      near = difflib.get_close_matches(field, known, n=1)
      raise ConfigError(
        f'{name}.{field} is not allowed: '
        f'{f"did you mean {near[0]}? M" if near else "m"}ust be one of '
        f'{", ".join(known)}.'
      )
    if is_nested(known[field]) and isinstance(value, Mapping):
      inner = found.get(field, _defaults(cls).get(field, {}))
      found[field] = _merged(known[field], inner, value, f'{name}.{field}')
    else:
      value = tuple(value) if isinstance(value, list) else value
      value = value.item() if isinstance(value, np.generic) else value
      found[field] = _value_to_json(f'{name}.{field}', value)
  missing = [x for x in known if x not in found and x not in _with_default(cls)]
  if missing:
    raise ConfigError(
      f'{name}.{missing[0]} is missing: it has no default; must be '
      f'{describe(known[missing[0]])}.'
    )
  return found


def build_at(cls: type[_T], given: Mapping[str, Any], name: str) -> _T:
  """`cls(**given)`, the config or a group in it; an error names the flag --NAME.FIELD.

  Raises:
    ConfigError: from `__post_init__`.
  """
  try:
    return cls(**given)
  except FieldError as e:
    raise e.within(f'--{name}') if e.owner is cls else e from None


def _defaults(cls: type) -> dict[str, Any]:
  """JSON of the groups that a Config has by default, which may be no class defaults."""
  return {
    f.name: config_to_json(f.default)
    for f in dataclasses.fields(cls)  # type: ignore[arg-type]
    if dataclasses.is_dataclass(f.default) and not isinstance(f.default, type)
  }


def _with_default(cls: type) -> set[str]:
  none = dataclasses.MISSING
  return {
    f.name
    for f in dataclasses.fields(cls)  # type: ignore[arg-type]
    if f.default is not none or f.default_factory is not none
  }


def _value_from_json(
  name: str, type_: Any, value: Any, added: list[str] | None = None
) -> Any:
  if is_nested(type_):
    return config_from_json(type_, value, name=name, added=added)
  wrong = ConfigError(f'{name}={value!r} is not allowed: must be {describe(type_)}.')
  type_, optional = without_none(type_)
  if optional and value is None:
    return None
  if (named := choices(type_)) is not None:
    for choice in named.values():
      written = _value_to_json(name, choice)
      if type(written) is type(value) and written == value:
        return choice
    raise wrong
  if (items := tuple_items(type_)) is not None:
    if not isinstance(value, list) or items[1] not in (None, len(value)):
      raise wrong
    return tuple(_value_from_json(name, items[0], item) for item in value)
  if type_ is float and type(value) in (int, float) and math.isfinite(value):
    return float(value)
  if type_ is float or type(value) is not type_:
    raise wrong
  return value
