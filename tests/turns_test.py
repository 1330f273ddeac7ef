"""Each has its turn, and the others are slow."""

import pytest

from tests import turns


def test_one_of_them_is_fast_and_each_in_its_turn():
  fast = []
  for turn in (None, 0, 1, 2, 3):
    found = turns.one_of('a', 'b', 'c', turn=turn)
    (one,) = (x for x in found if isinstance(x, str))
    marked = [(x.values, x.marks[0].name) for x in found if not isinstance(x, str)]
    assert marked == [((x,), 'slow') for x in 'abc' if x != one]
    fast.append(one)
  assert fast == ['a', 'a', 'b', 'c', 'a']


@pytest.mark.parametrize('number', (0, 3, 7))
def test_seldom_is_once_in_as_many_turns(number):
  test = object()
  fast = [turns.seldom(number, 4, turn)(test) is test for turn in range(8)]
  assert fast == [turn % 4 == number % 4 for turn in range(8)]
  assert turns.seldom(number, 4, None).name == 'slow'
