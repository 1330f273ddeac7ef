"""Flags that hold a path: `~` is the home folder there, as in a shell.

A shell itself leaves --workdir=~/runs as it is.
"""

import os

from absl import flags


class _Path(flags.ArgumentParser[str]):
  """A path or an address; only a leading `~` is read."""

  def parse(self, argument: str) -> str:
    return os.path.expanduser(argument)


def define(values: flags.FlagValues, name: str, default: str | None, help_: str):
  """A flag of a launcher that holds a path."""
  parser, serializer = _Path(), flags.ArgumentSerializer[str]()
  flags.DEFINE(parser, name, default, help_, values, serializer, module_name='launcher')
