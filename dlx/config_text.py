"""The value of one field of a Config as text, as it stands on a command line.

value_from_text(tuple[int, ...], '32,64') -> (32, 64)
value_to_text((32, 64)) -> '32,64'
"""

import math
from typing import Any

from dlx import config_json

_BOOL = {
  **dict.fromkeys(('true', 't', '1'), True),
  **dict.fromkeys(('false', 'f', '0'), False),
}


def value_from_text(type_: Any, text: str) -> Any:
  """The value that a text on the command line stands for.

  Whole numbers may have underscores, 1_000. Items of tuples are separated by commas;
  no text is no item.

  Raises:
    ValueError: the text stands for no value of this type.
  """
  inner, optional = config_json.without_none(type_)
  if optional:
    return None if text.lower() == 'none' else value_from_text(inner, text)
  if (named := config_json.choices(type_)) is not None:
    if text not in named:
      raise ValueError(text)
    return named[text]
  if (items := config_json.tuple_items(type_)) is not None:
    parts = [part.strip() for part in text.split(',')] if text.strip() else []
    if items[1] not in (None, len(parts)):
      raise ValueError(text)
    return tuple(value_from_text(items[0], part) for part in parts)
  if type_ is bool:
    if (lower := text.lower()) not in _BOOL:
      raise ValueError(text)
    return _BOOL[lower]
  if type_ is float:
    if not math.isfinite(value := float(text)):
      raise ValueError(text)
    return value
  return type_(text)


def value_to_text(value: Any) -> str:
  """The inverse of `value_from_text`; none for None."""
  if value is None:
    return 'none'
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, tuple):
    return ','.join(map(value_to_text, value))
  return str(getattr(value, 'name', value))  # The name of an enum's member.
