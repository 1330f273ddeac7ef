"""Tests for launch/train.py: what reaches the loop, and what a person sees.

The loop is replaced by one that records how it is called; bad_input_test.py and the
tests of the experiments run the real one.
"""

import os
import subprocess
import sys
import types
from typing import Any, NamedTuple

import pytest

from dlx.errors import ConfigError
from launch import train
from launch.machine import devices

FORK = """
import dataclasses
from dlx import experiment

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  lr: float = 0.5  # Rate.

def build(config):
  config.require('lr', config.lr != 3, 'anything but 3')
  if config.lr == 4:
    raise ZeroDivisionError('a bug in build')
  return 'built with %r' % config.lr
"""


class Outcome(NamedTuple):
  status: str = 'finished'
  step: int = 7
  metrics: Any = {}


class FakeLoop(types.ModuleType):
  """Stands for dlx.run.loop and dlx.report."""

  def __init__(self):
    super().__init__('dlx.run.loop')
    self.calls = []
    self.rendered = []
    self.outcome = Outcome()
    self.error = None

  def fit(self, *args, **kwargs):
    self.calls.append((args, kwargs))
    if self.error is not None:
      raise self.error
    return self.outcome

  def render(self, workdir):
    self.rendered.append(workdir)


@pytest.fixture
def loop(monkeypatch):
  fake = FakeLoop()
  monkeypatch.setitem(sys.modules, 'dlx.run.loop', fake)
  monkeypatch.setitem(sys.modules, 'dlx.report', fake)
  monkeypatch.setattr('dlx.run.opened.keep_vocabulary', lambda *args: None)
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)
  return fake


@pytest.fixture
def fork(tmp_path, monkeypatch):
  path = tmp_path / 'fork_of_train.py'
  path.write_text(FORK)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  yield path
  sys.modules.pop(path.stem, None)


def test_what_reaches_the_loop(loop, fork):
  argv = ['train', f'--exp={fork}', '--workdir=W', '--config.lr=2', '--data_dir=D']
  argv += ['--mesh=data=2,tensor=1', '--stop_at=5', '--trace_steps=10:20', '--extend']
  argv += ['--debug', '--init_from=A:best', '--init_skip=head/*,.*bias']
  assert train.main(argv) == 0
  ((experiment, config, workdir), kwargs) = loop.calls[0]
  assert (experiment, config.lr, workdir) == ('built with 2.0', 2.0, 'W')
  assert kwargs == dict(
    name=str(fork),
    module='fork_of_train',
    data_dir='D',
    mesh='data=2,tensor=1',
    stop_at=5,
    fresh=False,
    extend=True,
    data_changed=False,
    init_from='A:best',
    init_skip='head/*,.*bias',
    debug=True,
    argv=argv,
    trace_steps=(10, 20),
  )


def test_defaults(loop, fork):
  assert train.main(['train', f'--exp={fork}']) == 0
  ((_, config, workdir), kwargs) = loop.calls[0]
  assert workdir == os.path.join('runs', 'fork_of_train')
  assert config.lr == 0.5
  for name in ('data_dir', 'mesh', 'stop_at', 'trace_steps', 'init_from'):
    assert kwargs[name] is None


def test_finished_run_is_reported(loop, fork, capsys):
  metrics = {'train/loss': 0.1, 'test/loss': 0.25, 'test/accuracy': 0.99167}
  loop.outcome = Outcome(metrics=metrics)
  assert train.main(['train', f'--exp={fork}', '--workdir=W']) == 0
  assert loop.rendered == ['W']
  out = capsys.readouterr().out
  assert out == 'test/accuracy 0.9917  test/loss 0.25  report: W/report.html\n'


def test_figures_of_members_are_told_as_their_mean():
  assert train.figures({'test/loss': [0.25, 0.75]}) == 'test/loss 0.5'


def test_training_figures_where_nothing_is_evaluated():
  assert train.figures({'train/loss': 0.125}) == 'train/loss 0.125'


@pytest.mark.parametrize('status, code', [('stopped', 0), ('interrupted', 42)])
def test_unfinished_run(loop, fork, capsys, status, code):
  loop.outcome = Outcome(status=status)
  assert train.main(['train', f'--exp={fork}', '--workdir=W']) == code
  assert loop.rendered == []
  without = ' without --stop_at' if status == 'stopped' else ''
  assert capsys.readouterr().out == (
    f'{status} at step 7, saved in W; the same command{without} goes on\n'
  )


@pytest.mark.parametrize(
  'arg, message',
  [
    ('--config.lr=3', '--config.lr=3.0 is not allowed: must be anything but 3'),
    (
      '--config.num_steps=0',
      '--config.num_steps=0 is not allowed: must be in [1, 2**31)',
    ),
    ('--config.lr=x', 'flag --config.lr=x: must be a finite number'),
    ('--stop_at=0', 'flag --stop_at=0: 0 is not a positive integer'),
    ('--trace_steps=5', '--trace_steps=5 is not allowed: must be FIRST:END'),
    ('--trace_steps=5:5', '--trace_steps=5:5 is not allowed'),
    ('word', "'word' belongs to no flag"),
  ],
)
def test_bad_input_never_reaches_the_loop(loop, fork, capsys, arg, message):
  assert train.main(['train', f'--exp={fork}', arg]) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith(f'error: {message}')
  assert captured.err.count('\n') == 1
  assert captured.out == ''
  assert loop.calls == []


def test_config_error_of_the_loop_is_one_line(loop, fork, capsys):
  loop.error = ConfigError('--workdir=W belongs to another run.')
  assert train.main(['train', f'--exp={fork}']) == 2
  assert capsys.readouterr().err == 'error: --workdir=W belongs to another run.\n'


@pytest.mark.parametrize('in_build', [True, False])
def test_a_bug_keeps_its_stack_trace(loop, fork, in_build):
  loop.error = None if in_build else ZeroDivisionError('a bug in the loop')
  lr = 4 if in_build else 5
  with pytest.raises(ZeroDivisionError):
    train.main(['train', f'--exp={fork}', f'--config.lr={lr}'])


def test_help_and_bad_flags_do_not_import_jax():
  program = """
import sys
from launch import train
assert train.main(['train', '--help']) == 0
assert train.main(['train', '--exp=cnn', '--wrokdir=W']) == 2
assert train.main(['train', '--exp=no_such_experiment']) == 2
assert not {'jax', 'numpy', 'flax', 'tensorflow', 'torch'} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', program], check=True, capture_output=True)


def run_process(fork, body: str, *args: str):
  """A real process whose loop is `body`, the body of `fit`."""
  program = f"""
import sys, types
loop = types.ModuleType('dlx.run.loop')
def fit(*args, **kwargs):
  {body}
loop.fit = fit
sys.modules['dlx.run.loop'] = loop
from launch import train
sys.exit(train.main(sys.argv))
"""
  return subprocess.run(
    [sys.executable, '-c', program, f'--exp={fork}', '--compile_cache=off', *args],
    capture_output=True,
    text=True,
  )


def test_exit_status_of_a_bug(fork):
  done = run_process(fork, 'raise RuntimeError("broken")')
  assert done.returncode == 1
  assert 'Traceback' in done.stderr and 'RuntimeError: broken' in done.stderr


def test_exit_status_of_an_interrupted_run(fork):
  done = run_process(
    fork, 'return types.SimpleNamespace(status="interrupted", step=3, metrics={})'
  )
  assert done.returncode == 42, done.stderr


def test_float64_config_runs_in_64_bit_mode(fork):
  done = run_process(
    fork,
    'import jax; raise SystemExit(5 if jax.config.jax_enable_x64 else 6)',
    '--config.compute_dtype=float64',
  )
  assert done.returncode == 5, done.stderr
