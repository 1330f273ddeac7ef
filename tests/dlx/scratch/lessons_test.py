"""Lessons: their doctests run, they are short, the index names each and its test."""

import doctest
import importlib
import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[3]
FOLDER = ROOT / 'dlx' / 'scratch'
LESSONS = sorted(p.stem for p in FOLDER.glob('*.py') if p.stem != '__init__')
INDEX = (FOLDER / 'README.md').read_text(encoding='utf-8')
MAX_LINES = 150
ROW = re.compile(r'^\| .* \| \[(\w+)\.py\]\(\1\.py\) \| `(.*?)` \|$', re.M)


@pytest.mark.parametrize('name', LESSONS)
def test_numbers_of_doctests_are_computed_anew(name):
  module = importlib.import_module(f'dlx.scratch.{name}')
  # As at a reader's prompt, where arrays of other ranks broadcast.
  with jax.numpy_rank_promotion('allow'):
    failed, attempted = doctest.testmod(module)
  assert attempted > 0
  assert failed == 0


@pytest.mark.parametrize('name', LESSONS)
def test_a_lesson_is_short(name):
  lines = (FOLDER / f'{name}.py').read_text(encoding='utf-8').splitlines()
  assert len(lines) <= MAX_LINES


def test_index_names_each_lesson_once_with_its_test():
  rows = ROW.findall(INDEX)
  assert sorted(name for name, _ in rows) == LESSONS
  for name, tests in rows:
    text = (ROOT / tests).read_text(encoding='utf-8')
    assert re.search(rf'\b{name}\b', text), f'{tests} does not name {name}'


def test_a_lesson_builds_on_those_above_it_alone():
  order = [name for name, _ in ROW.findall(INDEX)]
  for name in LESSONS:
    text = (FOLDER / f'{name}.py').read_text(encoding='utf-8')
    used = re.findall(r'^from dlx\.scratch(?:\.(\w+))? import (.*)$', text, re.M)
    for module, names in used:
      for other in [module] if module else names.split(', '):
        assert order.index(other) < order.index(name), (name, other)
