"""Tests for launch/doctor.py: what it refuses, and that planted faults are named.

All faults and healthy experiments are slow (`-m slow`): minutes of training.
"""

import json
import subprocess
import sys

import pytest

from dlx.inspect.findings import Finding, Report
from launch import doctor
from launch.diagnosis import page, recipe, room
from tests.launch import planted_faults
from tests.launch.planted_faults import FAULTS, HEALTHY

# Quick ones: what they need is data alone, or the program of one forward pass.
QUICK = ('leak of the test set', 'unnormalised input')


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch):
  monkeypatch.setattr(sys, 'path', list(sys.path))  # A fork's folder joins it.


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--checks=rates', '--checks=rates is not allowed: must be of environment, data'),
    ('--out=page.txt', '--out=page.txt is not allowed: must end in .html or .json.'),
    ('--out=nowhere/a.html', 'nowhere is no folder'),
    ('--steps=1', 'steps'),
    ('--config.lr=-1', '--config.lr=-1.0 is not allowed'),
    ('--exp=nothing', '--exp=nothing is no experiment'),
    ('--gan', '--gan is not allowed: softmax_regression declares no metrics loss, g_'),
    ('--checks=players', 'memory; players with --gan.'),
  ],
)
def test_bad_input_is_one_line(flag, said, capsys):
  assert doctor.main(['doctor', '--exp=softmax_regression', flag]) == 2
  told = capsys.readouterr()
  assert told.out == '' and told.err.count('\n') == 1 and said in told.err


def test_help_needs_no_jax():
  code = (
    'import sys; from launch import doctor; status = doctor.main(["doctor", "--help"]);'
    'sys.exit(status or bool({"jax", "numpy"} & set(sys.modules)))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'Exit status: 0 no error' in done.stdout


@pytest.mark.parametrize('name', QUICK)
def test_a_planted_fault_is_named_with_its_fix_and_line(name, tmp_path, capsys):
  fault, path = FAULTS[name], planted_faults.written(name, tmp_path)
  out = tmp_path / 'found.json'
  status = doctor.main(
    ['doctor', f'--exp={path}', f'--checks={fault.checks}', f'--out={out}']
  )
  told = capsys.readouterr().out
  (found,) = json.loads(out.read_text())['findings']
  assert (status, found['name'], found['severity']) == (1, fault.finding, 'error')
  assert fault.fix in found['fix'] and found['evidence'] in told
  file, _, line = found['where'].partition(':')
  assert file == path.name and 'data = ' in path.read_text().splitlines()[int(line) - 1]


def test_a_fault_of_two_players_is_named_with_its_line(tmp_path, capsys):
  fault = FAULTS['noise that is ignored']
  path, out = planted_faults.written('noise that is ignored', tmp_path), tmp_path / 'a'
  small = '--config.generator_features=16', '--config.discriminator_features=16'
  argv = ['doctor', f'--exp={path}', '--gan', '--config.num_steps=50', *small]
  argv += ['--checks=players,samples', '--config.judge.num_steps=0']
  assert doctor.main([*argv, f'--out={out}.json']) == 1
  assert 'two players: told right: real ' in capsys.readouterr().out
  found, _ = json.loads((tmp_path / 'a.json').read_text())['findings']
  assert (found['name'], found['severity']) == (fault.finding, 'error')
  line = int(found['where'].partition(':')[2])
  assert path.read_text().splitlines()[line - 1].startswith('  def generate(')


def test_a_healthy_one_has_a_clean_bill_and_a_page(tmp_path, capsys):
  out = tmp_path / 'page.html'
  argv = ['doctor', '--exp=softmax_regression', '--steps=60', f'--out={out}']
  assert doctor.main([*argv, '--checks=environment,data,finite,gradients,rate']) == 0
  told = capsys.readouterr().out
  assert 'gradients: 2 tensors' in told and 'learning rate: suggests' in told
  assert 'data: 1,437 of train, 360 of test; 0 of 360 rows of test are in train' in told
  html = out.read_text()
  assert html.count('data:image/png') == 1 and '<h1>softmax_regression</h1>' in html
  assert 'head/kernel' in html and 'src="http' not in html


def test_what_is_shown_is_data():
  bad = Finding('leak', 'error', '<script>\x1b[31m\nline', 'a & b', where='f.py:1')
  reports = {'data': Report([bad], 'said <b>', tables={'T<': [('a<',), ('b',)]})}
  facts = {'experiment': '<i>', 'dataset': '"'}
  html = page.as_html(facts, [bad], reports, {'data': 'data'})
  for text in ('<script>', '<i>', '<b>', 'T<', 'a<<'):
    assert text not in html
  told = page.summary([bad])
  assert '\x1b' not in told and told.splitlines() == [
    'ERROR  leak  (f.py:1)',
    '       <script> [31m line',
    '       fix: a & b',
  ]
  assert page.line('data', reports['data'], 1.0) == 'ERROR    1.0 s  data: said <b>'
  assert page.line('data', Report(skipped='why'), 0).startswith('skip ')


def test_the_largest_batch_lies_on_the_line_through_two():
  # 100 bytes and 10 an example.
  assert room.largest(8, 180, 260, 1000) == 90
  assert room.largest(8, 180, 260, 50) == 0
  assert room.largest(8, 180, 180, 1000) is None


def test_the_command_keeps_what_was_given():
  given = ['doctor', '--exp=a', '--recipe', '--config.width=8', '--config.lr=1']
  given += ['--config.dropout', '0.5', '--steps=90', '--noconfig.curves']
  assert recipe.command('a', given, {'lr': 2e-3}) == (
    'python -m launch.train --exp=a --config.width=8 --config.dropout 0.5 '
    '--noconfig.curves --config.lr=0.002'
  )
  spread = ['doctor', '--config.lr', '1', '--exp', 'a']
  assert recipe.command('a', spread, {'lr': 2e-3}).endswith('--exp=a --config.lr=0.002')


@pytest.mark.parametrize('name', FAULTS)
def test_every_fault_can_be_planted(name, tmp_path):
  text = planted_faults.written(name, tmp_path).read_text()  # Its lines are there.
  compile(text, name, 'exec')


@pytest.mark.slow
@pytest.mark.parametrize('name', FAULTS)
def test_every_planted_fault_is_named(name, tmp_path):
  path = planted_faults.written(name, tmp_path)
  options = planted_faults.options(name)
  status, found = planted_faults.examined(str(path), tmp_path / 'found.json', *options)
  fixes = {f['name']: f['fix'] for f in found['findings']}
  print(name, status, sorted(fixes))
  assert status == 1
  assert FAULTS[name].fix in fixes.get(FAULTS[name].finding, '')


@pytest.mark.slow
@pytest.mark.parametrize('name', HEALTHY)
def test_healthy_experiments_have_a_clean_bill(name, tmp_path):
  options = planted_faults.options(name)
  status, found = planted_faults.examined(name, tmp_path / 'found.json', *options)
  assert (status, found['findings']) == (0, [])


@pytest.mark.slow
def test_the_recipe_ends_with_a_command(tmp_path, capsys):
  out = tmp_path / 'recipe.html'
  argv = ['doctor', '--exp=softmax_regression', '--recipe', '--steps=60']
  assert doctor.main([*argv, f'--out={out}']) == 0
  told = capsys.readouterr().out
  assert [line for line in told.splitlines() if line.startswith('python -m')]
  for i in range(1, 8):
    assert f's  {i} ' in told
  assert out.read_text().count('data:image/png') == 2  # Range test and curves.
