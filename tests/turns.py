"""Expensive tests that take turns: in CI each runs in one of a few commits in a row.

The turn is $DLX_TURN, in CI the number of commits. Outside CI nobody has a turn.
"""

import os
from typing import Any

import pytest

TURN = int(os.environ['DLX_TURN']) if os.environ.get('DLX_TURN') else None


def seldom(number: int, turns: int = 4, turn: int | None = TURN):
  """A mark: slow but in one of `turns` commits.

  Args:
    number: any; tests of different numbers have different turns.
    turns: how many commits there are from one run to the next.
    turn: of now; None: the test is slow.
  """
  has_it = turn is not None and (turn - number) % turns == 0
  return (lambda test: test) if has_it else pytest.mark.slow


def one_of(*values: Any, turn: int | None = TURN) -> list[Any]:
  """Parameters of a test: one is fast, in CI each in its turn; the others are slow."""
  chosen = (turn or 0) % len(values)
  return [
    value if i == chosen else pytest.param(value, marks=pytest.mark.slow)
    for i, value in enumerate(values)
  ]
