"""What a sweep varies: fields of a Config and their ranges, written as text.

  config.lr=log(1e-4,1e-2,8)          8 values a constant factor apart
  config.dropout=lin(0,0.5,6)         6 values a constant difference apart
  config.lr=loguniform(1e-4,1e-2)     any number between, uniform in its logarithm
  config.dropout=uniform(0,0.5)       any number between
  config.num_layers=int(1,4)          any whole number from 1 to 4, both included
  config.lr=1e-3,3e-3                 these values
  config.features=32,64|64,64         these tuples: | separates values that have commas
  config.momentum=0.8,0.9 if config.optimizer=sgd
                                      varied where another field has this value (or one
                                      of several, sgd|lars); elsewhere as it stands

lin and log of a field of whole numbers are rounded, and equal ones dropped.
"""

import difflib
import math
import re
from typing import Any, Mapping, Sequence

import numpy as np

from dlx import config_json
from dlx.config_text import value_from_text, value_to_text
from dlx.errors import ConfigError
from dlx.study.search.space import PREFIX, Dimension, Space, at

_RANGE = re.compile(r'(lin|log|int|uniform|loguniform)\((.*)\)')
_FORMS = (
  'values by comma, lin(A,B,N), log(A,B,N), int(A,B), uniform(A,B) or loguniform(A,B)'
)


def parse(texts: Sequence[str], base: Any) -> Space:
  """The space that texts `config.FIELD=RANGE`, see above, stand for.

  Args:
    texts: one a field.
    base: Config whose other fields all runs have.

  Raises:
    ConfigError: no text, an unknown field, a range that cannot be, a value that the
      type of the field does not admit, a condition on nothing.
  """
  if not texts:
    raise ConfigError(
      f'--sweep is missing: give --sweep={PREFIX}FIELD=RANGE, once a field; RANGE is '
      f'{_FORMS}.'
    )
  types = leaves(type(base))
  found: dict[str, Dimension] = {}
  for text in texts:
    dimension = _dimension(text, types)
    if dimension.name in found:
      raise ConfigError(
        f'--sweep={text} is not allowed: {PREFIX}{dimension.name} is swept twice; '
        'give all its values at once.'
      )
    found[dimension.name] = dimension
  return Space(base, _ordered(found, base))


def leaves(cls: type, prefix: str = '') -> dict[str, Any]:
  """Types of the fields of a Config, those of groups by dotted name."""
  found: dict[str, Any] = {}
  for name, type_ in config_json.field_types(cls).items():
    if config_json.is_nested(type_):
      found |= leaves(type_, f'{prefix}{name}.')
    else:
      found[prefix + name] = type_
  return found


def _dimension(text: str, types: Mapping[str, Any]) -> Dimension:
  body, _, condition = text.partition(' if ')
  name, sign, given = body.strip().partition('=')
  if not sign:
    raise ConfigError(
      f'--sweep={text} is not allowed: must be {PREFIX}FIELD=RANGE; RANGE is {_FORMS}.'
    )
  dimension = _range(text, _field(text, name, types), given.strip(), types)
  dimension = dimension._replace(text=' '.join(text.partition('=')[2].split()))
  if not condition:
    return dimension
  of, sign, values = condition.strip().partition('=')
  if not sign or not values:
    raise ConfigError(
      f'--sweep={text} is not allowed: the condition must be {PREFIX}FIELD=VALUE, or '
      'several values, by |.'
    )
  of = _field(text, of, types)
  where = tuple(_value(text, of, types[of], part) for part in values.split('|'))
  return dimension._replace(of=of, where=where)


def _field(text: str, name: str, types: Mapping[str, Any]) -> str:
  name = name.strip()
  field = name.removeprefix(PREFIX)
  if not name.startswith(PREFIX) or field not in types:
    near = difflib.get_close_matches(field, types, n=1)
    hint = f'did you mean {PREFIX}{near[0]}? M' if near else 'm'
    raise ConfigError(
      f'--sweep={text} is not allowed: {name} is no field; {hint}ust be '
      f'{PREFIX}NAME, NAME one of {", ".join(types)}.'
    )
  return field


def _range(text: str, name: str, given: str, types: Mapping[str, Any]) -> Dimension:
  type_, _ = config_json.without_none(types[name])
  match = _RANGE.fullmatch(given)
  if match is None:
    return _list(text, name, given, types[name])
  kind = match[1]
  if type_ not in (int, float) or (type_ is int and kind in ('uniform', 'loguniform')):
    allowed = config_json.describe(types[name])
    remedy = 'int(A,B)' if type_ is int else 'a list of values'
    raise ConfigError(
      f'--sweep={text} is not allowed: {PREFIX}{name} must be {allowed}: give {remedy}.'
    )
  count = 3 if kind in ('lin', 'log') else 2
  parts = [part.strip() for part in match[2].split(',')]
  wanted = f'{kind}({"A,B,N" if count == 3 else "A,B"})'
  try:
    numbers = [float(part) for part in parts]
    whole = int(parts[2]) if len(parts) == count == 3 else 2
  except ValueError:
    numbers, whole = [], 2
  low, high = numbers[:2] if len(numbers) == count else (math.nan, math.nan)
  if not (math.isfinite(low) and math.isfinite(high) and low < high and whole >= 2):
    more = ' and N a whole number from 2 on' if count == 3 else ''
    raise ConfigError(
      f'--sweep={text} is not allowed: must be {wanted} of numbers, A below B{more}.'
    )
  if kind in ('log', 'loguniform') and low <= 0:
    raise ConfigError(
      f'--sweep={text} is not allowed: {kind} has no logarithm of {low:g}; A must be '
      f'above 0, or give {"lin" if kind == "log" else "uniform"}.'
    )
  if kind == 'int':
    if type_ is not int or low != int(low) or high != int(high):
      raise ConfigError(
        f'--sweep={text} is not allowed: int(A,B) is for fields of whole numbers, from '
        'a whole number to another.'
      )
    return Dimension(name, kind, (), low, high)
  if count == 2:
    return Dimension(name, kind, (), low, high)
  space = np.linspace if kind == 'lin' else np.geomspace
  points = space(low, high, whole).tolist()
  points[0], points[-1] = low, high
  if type_ is int:
    points = list(dict.fromkeys(round(x) for x in points))
  return Dimension(name, 'points', tuple(points))


def _list(text: str, name: str, given: str, type_: Any) -> Dimension:
  inner, _ = config_json.without_none(type_)
  many = config_json.tuple_items(inner) is not None
  mark = '|' if many or '|' in given else ','
  points = [_value(text, name, type_, part) for part in given.split(mark)]
  if len(set(map(value_to_text, points))) < len(points):
    raise ConfigError(f'--sweep={text} is not allowed: a value stands there twice.')
  if len(points) < 2:
    remedy = f'give a value to all runs by --{PREFIX}{name}={given}'
    if many:
      remedy = f'separate tuples by |, or {remedy}'
    raise ConfigError(
      f'--sweep={text} is not allowed: must be two values or more, or a range '
      f'({_FORMS}); {remedy}.'
    )
  return Dimension(name, 'points', tuple(points))


def _value(text: str, name: str, type_: Any, part: str) -> Any:
  try:
    return value_from_text(type_, part.strip())
  except ValueError:
    raise ConfigError(
      f'--sweep={text} is not allowed: {part.strip()!r} cannot be {PREFIX}{name}, '
      f'which must be {config_json.describe(type_)}; a range is {_FORMS}.'
    ) from None


def _ordered(found: Mapping[str, Dimension], base: Any) -> dict[str, Dimension]:
  """Fields after those that they depend on, else as given."""
  out: dict[str, Dimension] = {}
  left = dict(found)
  while left:
    ready = [d for d in left.values() if d.of not in left]
    if not ready:
      names = ', '.join(PREFIX + name for name in left)
      raise ConfigError(
        f'--sweep: the conditions of {names} go round in a circle: drop one.'
      )
    out[ready[0].name] = left.pop(ready[0].name)
  for dimension in out.values():
    if not dimension.of:
      continue
    parent = out.get(dimension.of)
    if parent is not None and not parent.finite:
      raise ConfigError(
        f'--sweep={PREFIX}{dimension.name}: a condition on {PREFIX}{parent.name} is '
        f'not allowed, which is {parent.kind}(A,B): give that field a list of values.'
      )
    values = [at(base, dimension.of)]
    if parent is not None:
      values = [parent.value(param) for param in parent.params()]
    if not set(values) & set(dimension.where):
      raise ConfigError(
        f'--sweep={PREFIX}{dimension.name}: its condition never holds, as '
        f'{PREFIX}{dimension.of} is {" or ".join(map(value_to_text, values))}.'
      )
  return out
