"""python -m launch lists everything, and no list or help imports what trains."""

import os
import pathlib
import subprocess
import sys

import pytest

from dlx import commands
from dlx.run import experiments_by_name

ROOT = pathlib.Path(__file__).parents[2]

# Runs a module, then says which of the heavy libraries came in.
PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:]]
try:
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
except SystemExit as error:
  assert not error.code, error.code
print(sorted({'jax', 'numpy', 'rich'} & set(sys.modules)))
"""


def printed(*words: str) -> list[str]:
  done = subprocess.run(
    [sys.executable, '-c', PROBE, *words], capture_output=True, text=True, cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


def test_every_launcher_and_every_experiment_has_its_line():
  lines = printed('launch')
  for name, text in commands.commands().items():
    assert text and any(
      line.startswith(f'python -m launch.{name} ') and line.endswith(text)
      for line in lines
    ), name
  for area, names in experiments_by_name.by_area().items():
    assert area in lines
    for name in names:
      assert any(line.startswith(f'  {name} ') for line in lines), name
  assert lines[-1] == '[]'


def test_dlx_lists_the_same():
  mine, own = printed('dlx'), printed('launch')
  assert [line.replace('python -m launch.', 'dlx ') for line in own] == mine


@pytest.mark.parametrize('name', commands.commands())
def test_help_is_quick_as_it_imports_nothing_heavy(name):
  lines = printed(f'launch.{name}', '--help')
  assert lines[0] == commands.commands()[name]
  assert lines[-1] == '[]'


def test_a_word_is_told_where_it_belongs():
  command = [sys.executable, '-m', 'launch', 'train']
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and 'launch.NAME' in done.stderr
