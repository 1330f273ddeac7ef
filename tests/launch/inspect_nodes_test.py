"""launch.inspect --what=nodes: the wrong nodes of a run, and what it refuses."""

import pytest

import dlx
from launch import inspect
from launch.machine import devices


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp('runs') / 'gcn')
  fields = {'num_steps': 2, 'eval_every_steps': None, 'features': 2}
  dlx.train('gcn', workdir=folder, seed=1, **fields)
  return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)


def test_wrong_nodes_with_their_neighbours(run, capsys, tmp_path):
  args = ['inspect', f'--workdir={run}', '--what=nodes', f'--out={tmp_path}']
  assert inspect.main([*args, '--num=3']) == 0
  text = capsys.readouterr().out
  assert (tmp_path / 'nodes.txt').read_text() == text
  first, *nodes = text.splitlines()
  accuracy = dlx.open(run).metrics['test/accuracy']
  wrong = round((1 - accuracy) * 28)
  assert first == f'{wrong} of 28 test nodes are wrong.'
  assert len(nodes) == min(3, wrong) > 0
  for line in nodes:
    assert 'class' in line and 'neighbours (node:class)' in line


@pytest.mark.parametrize(
  ('flags', 'why'),
  [
    (['--target=1'], '--target is not read by --what=nodes'),
    (['a.png'], 'a.png is not read by --what=nodes'),
  ],
)
def test_refuses_what_is_of_pictures(run, flags, why, capsys):
  assert inspect.main(['inspect', f'--workdir={run}', '--what=nodes', *flags]) == 2
  assert why in capsys.readouterr().err


def test_refuses_a_run_without_nodes(tmp_path, capsys):
  folder = str(tmp_path / 'curve')
  dlx.train('curve', workdir=folder, num_steps=1)
  assert inspect.main(['inspect', f'--workdir={folder}', '--what=nodes']) == 2
  assert 'curve must classify the nodes' in capsys.readouterr().err
