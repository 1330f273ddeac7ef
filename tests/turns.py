"""Expensive tests that take turns: in CI each runs in one of a few commits in a row.

The turn is $DLX_TURN, in CI the number of commits. Outside CI it is not set.
"""

import os

import pytest

TURN = int(os.environ['DLX_TURN']) if os.environ.get('DLX_TURN') else None


def has_it(number: int, turns: int, turn: int | None = TURN) -> bool:
  """Whether `number` has its turn: once in `turns` in a row; never outside CI."""
  return turn is not None and (turn - number) % turns == 0


def seldom(number: int, turns: int = 4, turn: int | None = TURN):
  """A mark of a test: slow but in its turn.

  Args:
    number: any; tests of different numbers have different turns.
    turns: how many commits there are from one run to the next.
    turn: of now.
  """
  return (lambda test: test) if has_it(number, turns, turn) else pytest.mark.slow
