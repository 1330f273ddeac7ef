"""Each has its turn, and is slow in the others unless what it tests changed."""

import pytest

from tests import changes, turns
from tests.planted_tree import plant

TEST = 'tests/launch/kill_test.py'
TEXT = """
from dlx.losses.huber import huber
from tests import turns
FORK = 'fork.py'
"""


@pytest.mark.parametrize('number', (0, 3, 7))
def test_one_has_its_turn_once_in_as_many(number):
  found = [turns.has_it(number, 4, turn) for turn in range(8)]
  assert found == [turn % 4 == number % 4 for turn in range(8)]
  assert not turns.has_it(number, 4, None)


@pytest.fixture
def root(tmp_path, monkeypatch):
  """The planted files with a test beside them, as the repository of this process."""
  plant(tmp_path)
  monkeypatch.setattr(changes, 'REPO', tmp_path)
  (tmp_path / TEST).parent.mkdir(parents=True)
  (tmp_path / TEST).write_text(TEXT)
  (tmp_path / 'tests/launch/fork.py').write_text('')
  changes._here.cache_clear()
  yield tmp_path
  changes._here.cache_clear()


@pytest.mark.parametrize(
  ('file', 'runs'),
  (
    (TEST, True),
    ('dlx/losses/huber.py', True),
    ('tests/launch/fork.py', True),
    ('tests/forks/own.py', True),  # Named by the mark.
    ('dlx/losses/squared.py', False),  # Only what it names itself.
    ('launch/train.py', False),
    (None, False),  # The base is not known, or nothing changed.
  ),
)
@pytest.mark.parametrize('turn', (None, 1, 4))
def test_who_waits_for_a_turn_runs_where_it_changed(
  root, file, runs, turn, monkeypatch
):
  monkeypatch.setattr(changes, 'changed_files', lambda *_, **__: file and [file])
  mark = turns.seldom(0, 4, ['tests/forks/own.py'])
  waits = changes.waits(*mark.args, root / TEST, turn)
  assert waits == (not runs and turn != 4)
