"""Flags of launch.evaluate that combine runs, through the launcher."""

import dataclasses
import json

from PIL import Image
import pytest

from dlx.run.loop import fit
from experiments.foundations import curve, softmax_regression
from launch import evaluate
from launch.machine import devices


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two runs that classify, and one that does not."""
  folder = tmp_path_factory.mktemp('runs')
  for name, module, changes in (
    ('soft_0', softmax_regression, {}),
    ('soft_1', softmax_regression, {'seed': 1}),
    ('line', curve, {}),
  ):
    config = dataclasses.replace(module.SMALL, num_steps=2, **changes)
    experiment = module.build(config)._replace(figures={})
    short = module.__name__.rpartition('.')[2]
    fit(experiment, config, folder / name, name=short, terminal=False)
  return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)


def run(*args):
  return evaluate.main(['evaluate', *args])


def test_an_ensemble_by_a_pattern(folder, capsys):
  first, out = f'--workdir={folder}/soft_0', f'--out={folder}/found.json'
  args = f'--members={folder}/soft_*', '--tta=flip', '--temperature=fit'
  assert run(first, out, *args) == 0
  said = capsys.readouterr()
  *table, line = said.out.splitlines()
  found = json.loads(line)
  assert found == json.loads((folder / 'found.json').read_text())
  assert found['members'] == [f'{folder}/soft_0', f'{folder}/soft_1']
  assert found['views'] == 2 and found['held_out'] == 'a half of test, drawn by seed 0'
  rows = {x.split()[0]: x.split()[1:] for x in table}
  assert rows.keys() == found['metrics'].keys()
  assert len(rows['test_half/nll_members']) == 2
  for name in ('test/accuracy', 'test_half/ece_calibrated', 'test_half/brier_tta'):
    assert name in rows
  assert (
    'temperature is fitted on a half of test, drawn by seed 0: test_half is the rest'
    in said.err
  )


def test_a_reliability_diagram_of_a_single_run(folder, tmp_path):
  out = tmp_path / 'reliability.png'
  first = f'--workdir={folder}/soft_0'
  assert run(first, '--show=reliability', f'--out={out}') == 0
  with Image.open(out) as picture:
    assert min(picture.size) > 300


@pytest.mark.parametrize(
  'args, wanted',
  [
    (['--soup=greedy'], '--soup=greedy needs --members=WORKDIR,...'),
    (['--save={}/new'], 'is of averaged weights: give --average or --soup, too.'),
    (['--soup=all'], 'uniform|greedy'),
    (['--temperature=0'], '--temperature=0 is not allowed: must be fit or a number'),
    (['--temperature=inf'], '--temperature=inf is not allowed'),
    (['--temperature=hot'], '--temperature=hot is not allowed'),
    (['--tta=spin'], '--tta=spin is not allowed: must be flip, shifts'),
    (['--tta=flip', '--show=confusion'], '--show=confusion is a figure of one run'),
    (['--norm_batches=0'], 'norm_batches'),
    (['--members={}/none'], 'no folder of a run is there'),
    (['--members={}/soft_0'], 'soft_0 alone: give others.'),
    (['--members={}/line'], 'needs probabilities of classes, which no function of'),
    (['--average=last:3'], 'has checkpoints of the steps 2, and two or more are'),
    (['--average=swa'], '--average=swa is not allowed: must be last:N, from:STEP'),
  ],
)
def test_what_is_refused(folder, capsys, args, wanted):
  args = [x.format(folder) for x in args]
  assert run(f'--workdir={folder}/soft_0', *args) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith('error: ') and captured.err.count('\n') == 1
  assert wanted in captured.err
