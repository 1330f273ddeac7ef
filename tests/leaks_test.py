"""What a test leaves changed in its process is put back, and named."""

import logging
import os
import signal
import sys

import jax
from jax.experimental.compilation_cache import compilation_cache
import matplotlib
import numpy as np
import pytest

from tests import leaks


def environ():
  os.environ['DLX_LEFT'] = '1'
  del os.environ['HOME']


def folder():
  os.chdir('/')


def removed_folder():
  os.mkdir('left')
  os.chdir('left')
  os.rmdir('../left')


def path():
  sys.path.insert(0, '/left')


def handler():
  signal.signal(signal.SIGUSR1, lambda *_: None)


def logger():
  logging.getLogger('absl').setLevel(1)
  logging.root.addHandler(logging.NullHandler())


def printing():
  np.set_printoptions(precision=1)
  np.seterr(all='ignore')


def precision():
  jax.config.update('jax_enable_x64', True)


def style():
  matplotlib.rcParams['lines.linewidth'] = 17


@pytest.mark.parametrize(
  ('change', 'told'),
  (
    (environ, ['environ: DLX_LEFT', 'environ: HOME']),
    (folder, ['folder']),
    (removed_folder, ['folder']),
    (path, ['sys.path']),
    (handler, [f'signals: {signal.SIGUSR1:d}']),
    (logger, ['loggers: root', 'loggers: absl']),
    (printing, ['numpy']),
    (precision, ['jax: jax_enable_x64']),
    (style, ['matplotlib: lines.linewidth']),
    (lambda: None, []),
  ),
)
def test_what_was_changed_is_put_back(change, told, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  before = leaks.saved()
  change()
  assert leaks.restore(before) == told
  assert leaks.saved() == before
  assert leaks.restore(before) == []


def test_programs_are_kept_after_a_test_that_kept_none(tmp_path):
  before = leaks.saved()
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  inside = leaks.saved()
  try:
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()
    jax.jit(lambda x: x + 1)(np.ones(3))
    assert leaks.restore(inside) == ['jax: jax_enable_compilation_cache']
    assert not list(tmp_path.iterdir())
    jax.jit(lambda x: x + 2)(np.ones(3))
    assert list(tmp_path.iterdir())
  finally:
    leaks.restore(before)


def test_what_a_library_set_when_it_was_imported_stays(monkeypatch):
  monkeypatch.delenv('KMP_OF_A_LIBRARY', raising=False)
  before = leaks.saved()
  os.environ['KMP_OF_A_LIBRARY'] = '1'
  assert leaks.restore(before) == []
  assert os.environ['KMP_OF_A_LIBRARY'] == '1'


def test_that_leaves_something():
  os.environ['DLX_LEFT'] = '1'
  sys.path.append('/left')


def test_after_one_that_left_something():
  assert 'DLX_LEFT' not in os.environ and '/left' not in sys.path
