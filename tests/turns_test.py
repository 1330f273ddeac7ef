"""Each has its turn, and is slow in the others."""

import pytest

from tests import turns


@pytest.mark.parametrize('number', (0, 3, 7))
def test_seldom_is_once_in_as_many_turns(number):
  test = object()
  found = [turns.has_it(number, 4, turn) for turn in range(8)]
  assert found == [turn % 4 == number % 4 for turn in range(8)]
  assert [turns.seldom(number, 4, turn)(test) is test for turn in range(8)] == found
  assert turns.seldom(number, 4, None).name == 'slow'
