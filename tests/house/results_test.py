"""The command of every figure in the READMEs of experiments is there, and is valid."""

import pathlib
import re
import shlex
import subprocess

import pytest

from dlx.run import experiments_by_name
from launch import train
from launch.flags import command_line, config_flags

ROOT = pathlib.Path(__file__).parents[2] / 'experiments'
PYTHON = """
set -euo pipefail
python() { printf '%q ' "$@"; echo; }
"""


def runs(row: str) -> list[str]:
  """Workdirs that a row names: `a-b / c` are a-b and a-c."""
  first, *more = row.split('|')[2].strip().split(' / ')
  stem = first
  for word in more:  # The part that the others replace: as many words as they have.
    stem = '-'.join(first.split('-')[: -len(word.split('-'))])
  found = [first, *(f'{stem}-{word}' for word in more)]
  return [f'runs/{name}-0' for name in found]


def commands(text: str) -> list[list[str]]:
  """The words of what the block of commands runs, with seed 0."""
  (block,) = re.findall(r'```bash\n(DIR=.*?)```', text, re.S)
  done = subprocess.run(
    ['bash', '-c', PYTHON + block], capture_output=True, text=True, check=True
  )
  return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize('area', sorted(experiments_by_name.by_area()))
def test_every_row_names_the_workdir_of_a_valid_command(area):
  text = (ROOT / area / 'README.md').read_text()
  named = {run for row in re.findall(r'^\| `.*', text, re.M) for run in runs(row)}
  workdirs = []
  for words in commands(text):
    assert words[:2] == ['-m', 'launch.train']
    values, found = command_line.parse(words[1:], train.define, '', studies=True)
    config_flags.build(found.config_class, values)  # Names and values are allowed.
    workdirs.append(values.workdir)
  assert len(set(workdirs)) == len(workdirs)  # All of them run one after the other.
  assert set(workdirs) == named


def test_rows_that_name_several_runs():
  row = lambda run: f'| `x` | {run} | digits |'
  assert runs(row('a-25')) == ['runs/a-25-0']
  assert runs(row('a-25-scratch / last')) == ['runs/a-25-scratch-0', 'runs/a-25-last-0']
  assert runs(row('a-1e-2 / 1e-3')) == ['runs/a-1e-2-0', 'runs/a-1e-3-0']
