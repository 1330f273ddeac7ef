"""Tests for launch/machine/compile_cache.py."""

import os
import subprocess
import sys
import zlib

import jax
import pytest

from launch.machine import compile_cache, devices

PROGRAM = """
import sys, warnings, jax
from launch.machine import devices
devices.use_compile_cache(sys.argv[1], {})
with warnings.catch_warnings(record=True) as seen:
  warnings.simplefilter('always')
  jax.jit(lambda x: x * 3 + 1)(1.0)
print(sum('Error reading' in str(w.message) for w in seen))
"""


def entry(folder, name, size, age):
  """A whole entry of about so many bytes, unused for `age` seconds."""
  path = folder / f'{name}-cache'
  path.write_bytes(zlib.compress(os.urandom(size)))
  old = os.stat(path).st_mtime - age
  os.utime(path, (old, old))
  return path


def names(folder):
  return sorted(p.name for p in folder.iterdir() if p.name.endswith('-cache'))


def test_what_is_cut_short_goes_and_is_looked_at_once(tmp_path, monkeypatch):
  whole, cut, empty, young = (
    entry(tmp_path, name, 1000, age)
    for name, age in (('whole', 60), ('cut', 60), ('empty', 60), ('young', 0))
  )
  for path, data in ((cut, cut.read_bytes()[:500]), (empty, b'')):
    times = os.stat(path).st_mtime
    path.write_bytes(data)
    os.utime(path, (times, times))
  (tmp_path / 'other').write_text('kept')
  compile_cache.tidy(str(tmp_path))
  assert names(tmp_path) == ['whole-cache', 'young-cache']
  assert (tmp_path / 'other').exists()
  seen = []
  monkeypatch.setattr(compile_cache, '_whole', lambda data: seen.append(data) or True)
  compile_cache.tidy(str(tmp_path))
  assert seen == []


def test_the_oldest_go_beyond_the_bound(tmp_path):
  for i in range(10):
    entry(tmp_path, f'p{i}', 1000, 100 + i)
  compile_cache.tidy(str(tmp_path), most_bytes=20_000)
  assert len(names(tmp_path)) == 10
  compile_cache.tidy(str(tmp_path), most_bytes=9_000)  # 10 x 1011 bytes; to 7200.
  assert names(tmp_path) == [f'p{i}-cache' for i in range(7)]


def test_only_dlx_own_folder_is_tidied(tmp_path, monkeypatch):
  done = []
  monkeypatch.setattr(compile_cache, 'tidy', done.append)
  monkeypatch.setattr(jax.config, 'update', lambda *setting: None)
  own, others = str(tmp_path / 'a'), str(tmp_path / 'b')
  devices.use_compile_cache(None, {'JAX_COMPILATION_CACHE_DIR': others})
  devices.use_compile_cache(None, {'DLX_CACHE_DIR': own})
  assert done == [own]


def test_a_program_that_is_cut_short_is_replaced(tmp_path):
  """JAX alone complains at every start."""
  environ = os.environ | {'JAX_COMPILATION_CACHE_DIR': '', 'PYTHONPATH': os.getcwd()}

  def start():
    command = [sys.executable, '-c', PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)

  assert start() == 0
  for path in tmp_path.glob('*-cache'):
    path.write_bytes(path.read_bytes()[:-20])
    os.utime(path, (path.stat().st_mtime - 60,) * 2)
  os.utime(tmp_path / '.checked', (0, 0))
  assert start() == 0


if __name__ == '__main__':
  sys.exit(pytest.main([__file__]))
