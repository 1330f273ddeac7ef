"""Tests for launch/evaluate.py, with a loop that records how it is called."""

import json
import sys
import types

import pytest

from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from dlx.run.records.config_file import read_run
from launch import evaluate
from launch.machine import devices

FORK = """
import dataclasses
from dlx import experiment

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  widths: tuple[int, ...] = (1,)

def build(config):
  return config.widths
"""


@pytest.fixture
def loop(monkeypatch):
  fake = types.ModuleType('dlx.run.reopen')
  calls = []

  def fake_evaluate(*args, **kwargs):
    calls.append((args, kwargs))
    return {'test/loss': float('nan'), 'test/accuracy': 0.5}

  vars(fake).update(evaluate=fake_evaluate, calls=calls)
  monkeypatch.setitem(sys.modules, 'dlx.run.reopen', fake)
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)
  return fake


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  """A workdir whose config.json names a fork."""
  path = tmp_path / 'fork_of_evaluate.py'
  path.write_text(FORK)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  found = experiments_by_name.load(str(path))
  config = config_to_json(found.config_class(widths=(3, 4), seed=5))
  folder = tmp_path / 'run'
  folder.mkdir()
  run = {'experiment': found.name, 'config': config, 'argv': []}
  (folder / 'config.json').write_text(json.dumps(run))
  yield folder
  sys.modules.pop(path.stem, None)


@pytest.mark.parametrize(
  'args, step',
  [([], 'latest'), (['--step=latest'], 'latest'), (['--step=best'], 'best'),
   (['--step=20'], 20)],
)  # fmt: skip
def test_what_reaches_the_loop(loop, workdir, args, step):
  argv = ['evaluate', f'--workdir={workdir}', '--data_dir=D', '--mesh=data=1', *args]
  assert evaluate.main(argv) == 0
  ((experiment, config, where), kwargs) = loop.calls[0]
  assert experiment == config.widths == (3, 4)
  assert (config.seed, where) == (5, str(workdir))
  assert kwargs == dict(step=step, data_dir='D', mesh='data=1')


def test_members_are_listed():
  assert evaluate.table({'test/loss': [0.25, 0.75]}) == 'test/loss  0.25  0.75'


def test_table_and_json(loop, workdir, tmp_path, capsys):
  out = tmp_path / 'metrics.json'
  assert evaluate.main(['evaluate', f'--workdir={workdir}', f'--out={out}']) == 0
  *table, line = capsys.readouterr().out.splitlines()
  assert table == ['test/accuracy  0.5', 'test/loss      nan']
  assert json.loads(line) == json.loads(out.read_text())
  metrics = {'test/accuracy': 0.5, 'test/loss': None}
  told = dict(workdir=str(workdir), step='latest', metrics=metrics)
  told['not_finite'] = [[['metrics', 'test/loss'], 'NaN']]
  assert json.loads(line) == told


def refused(capsys, *args):
  assert evaluate.main(['evaluate', *args]) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith('error: ') and captured.err.count('\n') == 1
  return captured.err


def test_no_run(loop, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  for folder in (tmp_path, tmp_path / 'none', tmp_path / 'file'):
    assert 'holds no run' in refused(capsys, f'--workdir={folder}')
  assert '--workdir is missing' in refused(capsys)
  assert loop.calls == []


def test_code_that_came_with_the_workdir(loop, workdir, capsys):
  path = workdir / 'source' / 'strangers_fork.py'
  path.parent.mkdir()
  path.write_text(FORK + f'open({str(workdir / "marker")!r}, "w").close()\n')
  run = read_run(str(workdir)) | {'experiment': str(path)}
  (workdir / 'config.json').write_text(json.dumps(run))
  said = refused(capsys, f'--workdir={workdir}')
  assert 'came with the workdir: give --exp=PATH' in said
  assert not (workdir / 'marker').exists()


@pytest.mark.parametrize('text', ['{', '[]', '{"config": {}}'])
def test_broken_config_json(loop, workdir, capsys, text):
  (workdir / 'config.json').write_text(text)
  assert 'config.json is no' in refused(capsys, f'--workdir={workdir}')


@pytest.mark.parametrize('step', ['-1', 'newest', '1.5', ''])
def test_bad_step(loop, workdir, capsys, step):
  said = refused(capsys, f'--workdir={workdir}', f'--step={step}')
  assert f'--step={step} is not allowed: must be latest, best' in said


def test_fields_that_changed_since(loop, workdir, capsys):
  run = read_run(str(workdir))
  run['config']['momentum'] = run['config'].pop('widths')
  (workdir / 'config.json').write_text(json.dumps(run))
  said = refused(capsys, f'--workdir={workdir}')
  assert 'unknown: momentum' in said


def test_a_new_field_takes_its_default(loop, workdir, capsys):
  run = read_run(str(workdir))
  del run['config']['widths']
  (workdir / 'config.json').write_text(json.dumps(run))
  assert evaluate.main(['evaluate', f'--workdir={workdir}']) == 0
  assert '--config.widths is new since the run' in capsys.readouterr().err


def test_fork_that_is_gone(loop, workdir, tmp_path, capsys):
  (tmp_path / 'fork_of_evaluate.py').rename(tmp_path / 'moved.py')
  sys.modules.pop('fork_of_evaluate')
  said = refused(capsys, f'--workdir={workdir}')
  assert 'no such file' in said and 'give --exp=PATH where it is now' in said
  moved = f'--exp={tmp_path / "moved.py"}'
  assert evaluate.main(['evaluate', f'--workdir={workdir}', moved]) == 0
  sys.modules.pop('moved')


def test_a_fork_that_has_changed_since(loop, workdir, tmp_path, capsys):
  from dlx.run.records import sources

  path = tmp_path / 'fork_of_evaluate.py'
  then = {'fork_of_evaluate': path.read_bytes()}
  run = {**read_run(str(workdir)), 'source': sources.record(then)}
  (workdir / 'config.json').write_text(json.dumps(run))
  assert evaluate.main(['evaluate', f'--workdir={workdir}']) == 0
  assert 'source' not in capsys.readouterr().err
  path.write_text(path.read_text() + '# A line.\n')
  assert evaluate.main(['evaluate', f'--workdir={workdir}']) == 0
  said = capsys.readouterr().err
  assert 'The source is not that of the run: fork_of_evaluate' in said


def test_words_and_help(loop, capsys):
  assert "'x' belongs to no flag" in refused(capsys, 'x')
  assert evaluate.main(['evaluate', '--help']) == 0
  assert '--step: Which checkpoint' in capsys.readouterr().out


def test_config_error_of_the_loop(loop, workdir, capsys):
  def no_checkpoint(*args, **kwargs):
    raise ConfigError('no checkpoint')

  vars(loop).update(evaluate=no_checkpoint)
  assert refused(capsys, f'--workdir={workdir}') == 'error: no checkpoint\n'
