"""Tests for dlx/run/records/lasting.py: a stream that is lost costs nothing."""

import io
import subprocess
import sys

import pytest

from dlx.run.records.lasting import Lasting, standard_streams
from dlx.run.records.progress import Progress

PRINTS = """
import sys
from dlx.run.records.lasting import standard_streams
from dlx.run.records.progress import Progress
with standard_streams():
  with Progress(9, terminal=False) as progress:
    for i in range(20000):
      print('out', i, flush=True)
      progress.note(f'a note {i}')
"""


@pytest.mark.parametrize(
  'redirect', ['2>&1 | head -1', '2>&-', '>&- 2>&-', '2>/dev/full']
)
def test_a_process_ends_well_whatever_becomes_of_its_streams(redirect):
  script = f'set -o pipefail; "{sys.executable}" -c "$0" {redirect} >/dev/null'
  if '|' in redirect:
    script = f'set -o pipefail; "{sys.executable}" -c "$0" {redirect}'
  done = subprocess.run(['bash', '-c', script, PRINTS], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]


def test_what_works_is_passed_on():
  stream = io.StringIO()
  lasting = Lasting(stream)
  print('a', file=lasting, flush=True)
  assert stream.getvalue() == 'a\n'
  assert not lasting.isatty() and lasting.writable()
  stream.close()
  print('b', file=lasting, flush=True)
  assert not lasting.isatty()
  with pytest.raises(OSError):
    Lasting(None).fileno()


def test_the_former_streams_come_back():
  before = sys.stdout, sys.stderr
  with standard_streams():
    assert isinstance(sys.stderr, Lasting)
  assert (sys.stdout, sys.stderr) == before


def test_progress_goes_on_without_its_terminal():
  stream = io.StringIO()
  for terminal in (False, True):
    progress = Progress(9, terminal=terminal, stream=stream)
    progress.update(1, {'loss': 1.0}, 2.0)
    stream.close()
    progress.update(2, {'loss': 1.0}, 2.0)
    progress.evaluation(2, {'test/loss': 1.0})
    progress.close()
    stream = io.StringIO()
