"""The command: what is refused in one line, before anything is compiled or written."""

import importlib.util
import subprocess
import sys

import pytest

from launch import sweep

EXP = ('--exp=mlp', '--metric=test/loss')
LR = '--sweep=config.lr=0.1,0.2'


def refused(capfd, *args):
  assert sweep.main(['sweep.py', *args]) == 2
  out, err = capfd.readouterr()
  assert out == '' and err.count('\n') == 1 and err.startswith('error: ')
  return err


@pytest.mark.parametrize(
  ('args', 'told'),
  [
    (EXP, '--sweep is missing: give --sweep=config.FIELD=RANGE'),
    ((*EXP, '--sweep=config.lrr=1,2'), 'did you mean config.lr?'),
    ((*EXP, '--sweep=config.lr=log(0,1,3)'), 'log has no logarithm of 0'),
    ((*EXP, '--sweep=config.lr=0.1,-1'), '--config.lr=-1.0 is not allowed'),
    (('--exp=mlp', LR), '--metric is missing: give what is searched for'),
    ((*EXP, LR, '--search=best'), 'search=best'),
    ((*EXP, LR, '--config.lr=fast'), 'must be a finite number'),
    ((*EXP, LR, '--study=a'), '--study is not allowed without --storage'),
    ((*EXP, LR, '--storage=mysql://u:geheim@h/d'), 'mysql://u:***@h/d is not allowed'),
    ((*EXP, LR, '--storage=geheim://x', '--study=b'), 'must be postgresql://USER@HOST'),
    (
      ('--exp=dropout_rate', '--metric=test/loss', LR),
      '--exp=dropout_rate is a study of many runs',
    ),
  ],
)
def test_bad_input_is_one_line(args, told, capfd, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  said = refused(capfd, *args)
  assert told in said
  assert 'u:geheim' not in said
  assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_remedy(capfd, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == 'optuna' else found(n)
  )
  told = refused(capfd, *EXP, LR)
  assert (
    "launch.sweep needs optuna: pip install -c constraints.txt -e '.[sweep]'" in told
  )


def test_help_imports_no_jax():
  code = (
    'import sys; from launch import sweep; sweep.main(["sweep.py", "--help"]); '
    'print([m for m in ("jax", "numpy", "optuna") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert '--sweep' in done.stdout and done.stdout.splitlines()[-1] == '[]'
