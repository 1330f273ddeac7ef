"""Fields of configs that many experiments share, groups included."""

from collections.abc import Mapping
import dataclasses
from typing import Any, TypeVar

_T = TypeVar('_T')


def with_known(config: _T, fields: Mapping[str, Any]) -> _T:
  """The config with those of the fields that it has, `judge.num_steps` in a group.

  A value is used where the field has one of its type, or None.
  """
  changes: dict[str, Any] = {}
  for path, value in fields.items():
    name, _, rest = path.partition('.')
    old = changes.get(name, getattr(config, name, changes))
    if old is changes:
      continue  # No such field.
    if rest:
      value = with_known(old, {rest: value}) if dataclasses.is_dataclass(old) else old
    elif not isinstance(old, type(value) | None):
      continue
    changes[name] = value
  return dataclasses.replace(config, **changes)
