"""Trains from Python as the command does: same workdir, files, refusals."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

import dlx
from dlx import beside, runs
from dlx.errors import ConfigError
from experiments.foundations import softmax_regression
from launch import train

FIELDS = {'num_steps': 4, 'log_every_steps': 2, 'batch_size': 8}
FLAGS = [f'--config.{name}={value}' for name, value in FIELDS.items()]


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
  before = set(sys.modules)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  yield
  for name in set(sys.modules) - before:
    if name.startswith('my_'):
      del sys.modules[name]


@pytest.fixture
def bare(monkeypatch):
  """The experiment without figures: they cost seconds."""
  build = softmax_regression.build
  monkeypatch.setattr(
    softmax_regression, 'build', lambda config: build(config)._replace(figures={})
  )


def result(workdir):
  return json.loads((pathlib.Path(workdir) / 'result.json').read_text())


def test_is_the_run_of_the_command(tmp_path, monkeypatch, bare, capfd):
  monkeypatch.chdir(tmp_path)
  run = dlx.train('softmax_regression', **FIELDS, lr=0.1)
  assert run.workdir == str(tmp_path / 'runs' / 'softmax_regression')
  assert (run.config.lr, run.step) == (0.1, 4)
  assert run.metrics == result(run.workdir)['metrics']
  assert (tmp_path / run.workdir / 'source').is_dir()
  config = json.loads((tmp_path / run.workdir / 'config.json').read_text())
  assert config['experiment'] == 'softmax_regression'
  args = ['train', '--exp=softmax_regression', *FLAGS, '--compile_cache=off']
  # The command finds its run, finished.
  assert train.main([*args, '--config.lr=0.1']) == 0
  assert 'is finished' in capfd.readouterr().err
  with pytest.raises(ConfigError, match='another config .lr: 0.1 there, 0.2 here'):
    dlx.train('softmax_regression', **FIELDS, lr=0.2)


def test_stopped_and_gone_on_with(tmp_path, bare, capfd):
  asked = lambda **more: dlx.train(
    'softmax_regression', workdir=tmp_path / 'a', **FIELDS, **more
  )
  assert asked(stop_at=2).step == 2
  assert 'stopped at step 2, saved in' in capfd.readouterr().err
  run = asked()
  assert (run.step, 'test/accuracy' in run.metrics) == (4, True)
  with pytest.raises(ConfigError, match='mesh'):
    asked(fresh=True, mesh='x')
  assert (tmp_path / 'a.before_1' / 'result.json').exists()


def test_a_fork_by_its_path(tmp_path, monkeypatch):
  text = pathlib.Path(softmax_regression.__file__).read_text()
  fork = tmp_path / 'my_fork_of_runs.py'
  fork.write_text(text.replace('def build(config', 'def built(config') + (
    '\n\ndef build(config):\n  return built(config)._replace(figures={})\n'
  ))  # fmt: skip
  run = dlx.train(fork, workdir=tmp_path / 'a', **FIELDS)
  assert run.record['experiment'] == str(fork)
  assert (tmp_path / 'a' / 'source' / 'my_fork_of_runs.py').read_text() == (
    fork.read_text()
  )
  assert dlx.open(tmp_path / 'a').config.batch_size == 8  # As it was: no trust.


def test_a_config_and_build_of_a_cell(tmp_path):
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Config(softmax_regression.Config):
    shift: float = 0.0  # Of nothing.

  def build(config):
    assert config.shift == 0.5
    return softmax_regression.build(config)._replace(figures={})

  given = Config(shift=0.25, num_steps=9)
  fields = {**FIELDS, 'shift': 0.5}
  run = dlx.train(build, given, workdir=tmp_path / 'a', **fields)
  assert (run.step, run.config.shift) == (4, 0.5)
  assert len(run.functions) == 1


@pytest.mark.parametrize(
  ('exp', 'config', 'given', 'says'),
  [
    ('softmax_regressio', None, {}, 'Did you mean softmax_regression'),
    ('softmax_regression', None, {'lrr': 1}, 'config.lrr is not allowed: did you mea'),
    ('softmax_regression', None, {'lr': -1}, 'lr=-1.0 is not allowed: must be above 0'),
    ('softmax_regression', None, {'lr': 'x'}, "lr='x' is not allowed"),
    ('softmax_regression', dlx, {}, 'config=module is not allowed: must be a Config'),
    ('none.py', None, {}, 'no such file'),
    (json, None, {}, 'is no experiment: it has no Config'),
    ('softmax_regression', None, {'ema_decay': 0.5, 'stop_at': 0}, 'stop_at=0'),
  ],
)
def test_refused_in_one_line(tmp_path, exp, config, given, says):
  with pytest.raises(ConfigError, match=says) as caught:
    dlx.train(exp, config, workdir=tmp_path / 'a', **given)
  assert '\n' not in str(caught.value) and not (tmp_path / 'a').exists()


def test_a_field_that_nothing_reads(tmp_path):
  small = softmax_regression.SMALL
  with pytest.raises(ConfigError, match='--config.batch_size=16 has no effect'):
    dlx.train(
      lambda config: softmax_regression.build(small),
      dataclasses.replace(small, batch_size=16),
      workdir=tmp_path / 'a',
    )
  assert not (tmp_path / 'a').exists()


def test_the_data_folder_is_forgotten(tmp_path):
  from dlx.data.formats import files

  with pytest.raises(ConfigError):
    dlx.train('softmax_regression', dataset='none_is', data_dir=tmp_path, num_steps=1)
  assert files.root() != tmp_path


@pytest.mark.parametrize(
  'line', ['import dlx', 'from dlx import train', 'import dlx.train.steps']
)
def test_the_package_is_a_function_however_it_came(line):
  code = f"{line}\nimport sys, dlx\nprint(callable(dlx.train), 'jax' in sys.modules)"
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=beside.ROOT
  )
  light = 'steps' not in line
  assert (done.stdout.strip(), done.stderr) == (f'True {not light}', '')


def test_what_is_exported():
  assert set(runs.__all__) == {*('evaluate', 'fit', 'state', 'study', 'sweep', 'train')}
