"""Expensive tests that take turns: in CI each runs in one of a few commits in a row.

The turn is $DLX_TURN, in CI the number of commits. Outside CI it is not set. Who takes
turns does not wait for its own when what it tests changed: else the commit that breaks
it passes, and another one, some commits later, fails.
"""

from collections.abc import Collection
import os

import pytest

TURN = int(os.environ['DLX_TURN']) if os.environ.get('DLX_TURN') else None


def has_it(number: int, turns: int, turn: int | None = TURN) -> bool:
  """Whether `number` has its turn: once in `turns` in a row; never outside CI."""
  return turn is not None and (turn - number) % turns == 0


def seldom(number: int, turns: int = 4, files: Collection[str] = ()):
  """A mark of a test: slow but in its turn, and where its file, a module that its file
  names, or one of `files` differs from the base commit (changes.waits).

  Args:
    number: any; tests of different numbers have different turns.
    turns: how many commits there are from one run to the next.
    files: from the root of the repository.
  """
  return pytest.mark.seldom(number, turns, tuple(files))
