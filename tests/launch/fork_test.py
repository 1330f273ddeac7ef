"""launch.fork: a copy that runs, and the diff of it."""

import pathlib
import subprocess
import sys

import pytest

from dlx.run import experiments_by_name
from launch import check, fork
from tests.every_experiment.contract_test import load


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def test_the_copy_runs_by_its_path(capsys):
  assert fork.main(['fork', 'cnn', 'my_fork.py']) == 0
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith('my_fork.py: forked from experiments/vision/cnn.py, ')
  assert said[2] == 'python -m launch.train --exp=my_fork.py'
  found = experiments_by_name.load('my_fork.py')
  small = found.module.SMALL
  assert vars(small) == vars(load('cnn').SMALL)
  assert 'predict' in found.build(small).functions


def test_a_folder_takes_the_name_of_the_parent(capsys):
  pathlib.Path('mine').mkdir()
  assert fork.main(['fork', 'gcn', 'mine']) == 0
  assert pathlib.Path('mine/gcn.py').is_file()
  assert fork.main(['fork', 'gcn', 'mine']) == 2
  assert 'overwrites nothing' in capsys.readouterr().err


def test_diff_tells_what_changed(capsys):
  fork.main(['fork', 'cnn', 'my_net.py'])
  capsys.readouterr()
  assert fork.main(['fork', '--diff', 'my_net.py']) == 0
  assert '# your changes: none\n' in capsys.readouterr().out
  path = pathlib.Path('my_net.py')
  path.write_text(path.read_text().replace('dense: int = 128', 'dense: int = 64'))
  assert fork.main(['fork', '--diff=my_net.py']) == 0
  out = capsys.readouterr().out
  assert '\n-  dense: int = 128' in out and '\n+  dense: int = 64' in out
  assert '# changes of the parent since: none\n' in out


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['cnm', 'a.py'], 'Did you mean'),
    (['cnn'], 'must be NAME PATH'),
    (['--diff=no.py'], 'no such file'),
    (['--diff=a.py', 'cnn'], 'belongs to no flag'),
  ],
)
def test_one_line_for_what_cannot_be(words, message, capsys):
  assert fork.main(['fork', *words]) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and message in err


def test_it_needs_no_jax(tmp_path):
  code = (
    'import sys\nfrom launch import fork\n'
    "fork.main(['fork', 'cnn', 'quick.py'])\n"
    "print(sorted({'jax', 'numpy'} & set(sys.modules)))"
  )
  root = str(pathlib.Path(fork.__file__).parents[1])
  done = subprocess.run(
    [sys.executable, '-c', code], env={'PYTHONPATH': root}, capture_output=True
  )
  assert done.stdout.decode().splitlines()[-1] == '[]', done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', ['softmax_regression', 'gcn'])
def test_the_copy_passes_the_check(name, capsys):
  path = f'checked_{name}.py'
  assert fork.main(['fork', name, path]) == 0
  assert check.main(['check', f'--exp={path}']) == 0, capsys.readouterr().out
