"""Each fork holds what every experiment must, as launch.check says, and stays short."""

import pathlib
import sys

import pytest

from launch import check
from tests import turns

ROOT = pathlib.Path(__file__).parents[2]
FORKS = sorted(
  path
  for path in pathlib.Path(__file__).parent.glob('*.py')
  if path.name not in ('__init__.py', pathlib.Path(__file__).name)
)


def checked():
  """All of them; one takes 10 to 40 s, and has its turn in one commit of five."""
  for i, path in enumerate(FORKS):
    file = path.relative_to(ROOT).as_posix()
    yield pytest.param(path, id=path.stem, marks=turns.seldom(i, 5, [file]))


@pytest.mark.parametrize('path', [*checked()])
def test_is_checked(path, capsys, monkeypatch):
  monkeypatch.setattr(sys, 'path', list(sys.path))
  status = check.main(['check', f'--exp={path}'])
  told = capsys.readouterr()
  assert status == 0, told.out + told.err
  assert told.out.count('\nok  ') + told.out.startswith('ok  ') == 6, told.out


@pytest.mark.parametrize('path', FORKS, ids=lambda path: path.stem)
def test_is_short_and_says_what_it_shows(path):
  text = path.read_text(encoding='utf-8')
  assert text.startswith('"""')
  assert len([line for line in text.splitlines() if line.strip()]) <= 60
