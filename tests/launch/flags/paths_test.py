"""Tests for launch/flags/paths.py, and that the launchers' flags use it."""

import os
import subprocess
import sys

from absl import flags
import pytest

from launch import bench, evaluate, plan, report, train
from launch.flags import paths

# What is a path by the name of its flag; `exp` is one or a name.
PATHS = {'workdir', 'data_dir', 'out', 'compile_cache'}


def parsed(define, *argv):
  values = flags.FlagValues()
  define(values)
  values(['launcher', *argv])
  return values


@pytest.mark.parametrize(
  ('given', 'wanted'),
  [
    ('~/runs/x', '/home/me/runs/x'),
    ('~', '/home/me'),
    ('runs/~x', 'runs/~x'),
    ('/a/b', '/a/b'),
    ('gs://bucket/~/x', 'gs://bucket/~/x'),
    ('off', 'off'),
  ],
)
def test_a_leading_tilde_is_the_home_folder(monkeypatch, given, wanted):
  monkeypatch.setenv('HOME', '/home/me')
  define = lambda values: paths.define(values, 'workdir', None, 'Where.')
  assert parsed(define, f'--workdir={given}').workdir == wanted
  assert parsed(define).workdir is None


@pytest.mark.parametrize('launcher', [bench, evaluate, plan, report, train])
def test_every_path_flag_of_a_launcher(monkeypatch, launcher):
  monkeypatch.setenv('HOME', '/home/me')
  names = PATHS & set(parsed(launcher.define))
  assert names
  values = parsed(launcher.define, *(f'--{name}=~/x' for name in names))
  assert {name: values[name].value for name in names} == dict.fromkeys(
    names, '/home/me/x'
  )


def test_a_run_in_the_home_folder(tmp_path):
  home, here = tmp_path / 'home', tmp_path / 'here'
  home.mkdir()
  here.mkdir()
  root = os.path.dirname(os.path.dirname(os.path.abspath(train.__file__)))
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'launch.train', '--exp=softmax_regression'),
      *('--config.num_steps=2', '--workdir=~/run', '--compile_cache=off'),
    ],
    cwd=here,
    env=os.environ | {'HOME': str(home), 'PYTHONPATH': root},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert (home / 'run' / 'result.json').exists()
  assert list(here.iterdir()) == []
  folder = [sys.executable, '-m', 'launch.checkpoint', 'ls', '~/run']
  done = subprocess.run(
    folder,
    cwd=here,
    env=os.environ | {'HOME': str(home), 'PYTHONPATH': root},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
