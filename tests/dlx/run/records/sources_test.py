"""Tests for dlx/run/records/sources.py: the user's files, and what changed in them."""

import importlib
import sys

import pytest

from dlx.run.records import sources

FORK = """import json
import numpy as np
from dlx import losses
import helper_of_sources
from package_of_sources import part
def build(config):
  import late_of_sources
"""


@pytest.fixture
def fork(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  files = {
    'fork_of_sources.py': FORK,
    'helper_of_sources.py': 'from package_of_sources.part import x\n',
    'late_of_sources.py': '',
    'unused_of_sources.py': '',
    'package_of_sources/__init__.py': '',
    'package_of_sources/part.py': 'from . import other\nx = 1\n',
    'package_of_sources/other.py': 'from . import part\n',
  }
  for name, text in files.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
  importlib.import_module('fork_of_sources')
  yield tmp_path
  for name in [name for name in sys.modules if 'of_sources' in name]:
    del sys.modules[name]


def test_the_file_and_the_users_files_that_it_imports(fork):
  found = sources.of('fork_of_sources')
  assert list(found)[0] == 'fork_of_sources'
  assert set(found) == {
    'fork_of_sources',
    'helper_of_sources',
    'package_of_sources',
    'package_of_sources.part',
    'package_of_sources.other',  # A circle ends.
  }
  assert found['fork_of_sources'].decode() == FORK
  importlib.import_module('late_of_sources')
  assert 'late_of_sources' in sources.of('fork_of_sources')


def test_of_an_experiment_its_file_alone():
  importlib.import_module('experiments.vision.cnn')
  assert list(sources.of('experiments.vision.cnn')) == ['experiments.vision.cnn']


def test_what_is_no_file_has_no_source():
  assert sources.of('no_such_module') == {}
  assert sources.record({}) == {'main': None, 'sha256': {}}


def test_same_wherever_it_lies_and_however_named():
  record = lambda **files: sources.record({k: v.encode() for k, v in files.items()})
  a = record(fork='1', helper='2', other='3')
  assert sources.same(a, record(renamed='1', o='3', h='2'))
  assert not sources.same(a, record(fork='1', helper='2'))
  assert not sources.same(a, record(fork='9', helper='2', other='3'))
  # The experiment's own file is not one that it imports.
  assert not sources.same(record(fork='1', helper='2'), record(fork='2', helper='1'))


def test_difference_counts_lines():
  then = {'fork': b'a\nb\nc\n', 'helper': b'x\n', 'gone': b''}
  now = {'renamed': b'a\nB\nc\nd\n', 'helper': b'x\n', 'new': b''}
  told = sources.difference(sources.record(then), then, now)
  assert told == 'renamed (2 lines added, 1 removed), new is new, gone is gone'
  assert sources.difference(sources.record(then), {}, now).startswith('renamed, ')
  assert sources.difference(sources.record(then), then, then) == ''
