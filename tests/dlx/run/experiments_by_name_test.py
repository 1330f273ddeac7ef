"""Tests for dlx/run/experiments_by_name.py."""

import pickle
import re
import subprocess
import sys
import types

import pytest

from dlx.errors import ConfigError
from dlx.run import experiments_by_name

# Postponed annotations: dataclasses look the module up in sys.modules.
TOY = """
from __future__ import annotations
import dataclasses
from dlx import experiment

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  lr: float = 0.5  # Rate.

def build(config):
  return config.lr
"""


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
  """Forks enter sys.modules and sys.path: take them out again."""
  before = set(sys.modules)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  yield
  for name in set(sys.modules) - before:
    if not name.startswith(('dlx', 'jax')):  # Imported late; there is one of each.
      del sys.modules[name]


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A package of experiments: two areas, a toy in each, a private module."""
  folder = tmp_path / 'toy_experiments'
  for area, name in (('vision', 'resnet'), ('graphs', 'convnet')):
    (folder / area).mkdir(parents=True)
    (folder / area / '__init__.py').write_text('')
    (folder / area / f'{name}.py').write_text(f'"""A {name}.\n\nMore."""' + TOY)
  (folder / '__init__.py').write_text('')
  (folder / 'vision' / '_private.py').write_text('')
  (folder / 'vision' / 'README.md').write_text('')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(experiments_by_name, 'PACKAGE', 'toy_experiments')
  return folder


class TestNames:
  def test_found(self, package):
    found = experiments_by_name.load('convnet')
    assert found.name == found.short == 'convnet'
    assert found.module.__name__ == 'toy_experiments.graphs.convnet'
    assert found.build(found.config_class()) == 0.5

  def test_listing_imports_none(self, package):
    assert experiments_by_name.names() == ['convnet', 'resnet']
    assert 'toy_experiments.graphs.convnet' not in sys.modules

  def test_areas(self, package):
    assert experiments_by_name.by_area() == {
      'graphs': ['convnet'],
      'vision': ['resnet'],
    }

  def test_listing_has_the_first_line_of_each(self, package):
    assert experiments_by_name.listing().splitlines() == [
      'graphs', '  convnet  A convnet.', 'vision', '  resnet  A resnet.'
    ]  # fmt: skip
    assert 'toy_experiments.graphs.convnet' not in sys.modules

  def test_a_name_in_two_areas_is_refused(self, package):
    (package / 'graphs' / 'resnet.py').write_text(TOY)
    with pytest.raises(ConfigError, match='graphs/resnet.py and .*vision/resnet.py'):
      experiments_by_name.load('convnet')

  def test_unknown_gets_the_nearest_and_the_list(self, package):
    with pytest.raises(
      ConfigError, match='--exp=covnet .*mean convnet.* one of convnet, resnet,'
    ):
      experiments_by_name.load('covnet')

  def test_nothing_near(self, package):
    with pytest.raises(ConfigError, match='--exp=zzz is no experiment. Must be one of'):
      experiments_by_name.load('zzz')

  @pytest.mark.parametrize('exp', [None, ''])
  def test_missing(self, package, exp):
    with pytest.raises(ConfigError, match='--exp is missing.*convnet, resnet'):
      experiments_by_name.load(exp)

  def test_a_bug_inside_is_no_unknown_name(self, package):
    (package / 'vision' / 'buggy.py').write_text('import no_such_module_at_all')
    with pytest.raises(ModuleNotFoundError, match='no_such_module_at_all'):
      experiments_by_name.load('buggy')


class TestForks:
  @pytest.mark.parametrize('relative', [False, True])
  def test_found_by_path(self, tmp_path, monkeypatch, relative):
    path = tmp_path / 'fork_by_path.py'
    path.write_text(TOY)
    monkeypatch.chdir(tmp_path)
    found = experiments_by_name.load('./fork_by_path.py' if relative else str(path))
    assert found.name == str(path)  # Absolute: evaluate finds it from elsewhere.
    assert found.short == 'fork_by_path'
    assert found.build(found.config_class()) == 0.5
    assert experiments_by_name.load(str(path)).config_class is found.config_class

  def test_workers_find_its_functions(self, tmp_path):
    path = tmp_path / 'fork_with_function.py'
    path.write_text(TOY)
    found = experiments_by_name.load(str(path))
    program = 'import pickle, sys; print(pickle.load(sys.stdin.buffer).__name__)'
    # What multiprocessing does in a spawned worker: the same sys.path, then pickle.
    out = subprocess.run(
      [sys.executable, '-c', f'import sys; sys.path[:] = {sys.path}; {program}'],
      input=pickle.dumps(found.module.build),
      capture_output=True,
      check=True,
    )
    assert out.stdout.decode().strip() == 'build'

  @pytest.mark.parametrize('exp', ['{}/missing.py', '{}/', '{}/notes.txt', '{}'])
  def test_no_such_file(self, tmp_path, exp):
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(ConfigError, match='no such file'):
      experiments_by_name.load(exp.format(tmp_path))

  @pytest.mark.parametrize(
    'source, message',
    [
      ('x = 1', 'has no Config'),
      ('class Config: pass', 'has no build'),
      (TOY.replace('def build', 'def make'), 'has no build'),
      ('class Config: pass\ndef build(c): pass', 'its Config is not allowed'),
      (
        TOY.replace('@dataclasses.dataclass(frozen=True, kw_only=True)', ''),
        'Config is',
      ),
      (TOY.replace('experiment.Config', 'object'), 'its Config is not allowed'),
      (TOY.replace(', kw_only=True', ''), 'its Config is not allowed'),
    ],
  )
  def test_file_that_is_no_experiment(self, tmp_path, source, message):
    path = tmp_path / 'fork_that_is_none.py'
    path.write_text(source)
    with pytest.raises(ConfigError, match=message) as caught:
      experiments_by_name.load(str(path))
    assert '\n' not in str(caught.value)

  @pytest.mark.parametrize(
    'source, error',
    [
      ('def build(:', SyntaxError),
      ('import no_such_module_at_all', ImportError),
      ('1 / 0', ZeroDivisionError),
    ],
  )
  def test_its_bugs_stay_bugs(self, tmp_path, source, error):
    path = tmp_path / 'fork_with_bug.py'
    path.write_text(source)
    with pytest.raises(error):
      experiments_by_name.load(str(path))
    assert 'fork_with_bug' not in sys.modules

  @pytest.mark.parametrize('stem', ['json', 'test', 'jax', 'launch', 'a.b'])
  def test_name_of_another_module(self, tmp_path, stem):
    path = tmp_path / f'{stem}.py'
    path.write_text(TOY)
    with pytest.raises(ConfigError, match=re.escape(stem) + '.*rename the file'):
      experiments_by_name.load(str(path))

  def test_name_of_a_module_made_at_run_time(self, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'made_up', types.ModuleType('made_up'))
    (tmp_path / 'made_up.py').write_text(TOY)
    with pytest.raises(ConfigError, match='made_up.*rename the file'):
      experiments_by_name.load(str(tmp_path / 'made_up.py'))
