"""A config as flags: what a command takes, and a file for --flagfile."""

import dataclasses
from typing import Any, Mapping

from dlx.config_json import is_nested
from dlx.config_text import value_to_text
from dlx.study.search.space import PREFIX


def flags_of(values: Mapping[str, Any]) -> list[str]:
  """--config.NAME=VALUE of each field."""
  return [f'--{PREFIX}{name}={value_to_text(x)}' for name, x in values.items()]


def changed(config: Any) -> dict[str, Any]:
  """The fields, of groups by dotted name, that are not those of the class."""
  try:
    default = type(config)()
  except TypeError:  # A field without a default: all are said.
    default = None
  return {
    name: value
    for name, value in _leaves(config).items()
    if default is None or _leaves(default)[name] != value
  }


def text(exp: str, config: Any, about: str) -> str:
  """The file: a comment, --exp and all fields that are not at their default.

  Args:
    exp: name of the experiment, or the path of its file.
    config: of the run.
    about: one line.
  """
  lines = [f'# {about}', f'--exp={exp}', *flags_of(changed(config))]
  return ''.join(f'{line}\n' for line in lines)


def _leaves(config: Any, prefix: str = '') -> dict[str, Any]:
  found: dict[str, Any] = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.init and is_nested(type(value)):
      found |= _leaves(value, f'{prefix}{field.name}.')
    elif field.init:
      found[prefix + field.name] = value
  return found
