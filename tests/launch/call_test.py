"""Tests for launch/call.py: what a model by hand is given and says."""

import json

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import dlx
from dlx.experiment import Experiment, Field, Function
from dlx.run.opened import Run
from experiments.foundations import softmax_regression
from launch import call
from launch.machine import devices

IMAGE = Field('image', (1, 2, 1), 'uint8')
SEED = Field('seed', (), 'uint32')


class Letters:
  def encode(self, text):
    return [ord(c) for c in text]

  def decode(self, tokens):
    return ''.join(map(chr, tokens))


def bright(state, inputs):
  white_B = inputs['image'].mean((1, 2, 3)) / 255
  return {'probabilities': jnp.stack([1 - white_B, white_B], 1)}


WORDS = Field('tokens', ('length',), 'int32', vocabulary=lambda data_dir: Letters())
ODDS = Field('probabilities', (2,), 'float32', names=('dark', 'bright'))
PICTURE = Field('image', (1, 2, 1), 'float32')
FUNCTIONS = {
  'predict': Function(bright, {'image': IMAGE}, {'probabilities': ODDS}),
  'generate': Function(
    lambda state, x, *, by=1: {'tokens': x['prompt'] + by},
    {'prompt': WORDS, 'seed': SEED},
    {'tokens': WORDS},
    {'by': 1},
  ),
  'sample': Function(
    lambda state, x: {'image': jnp.zeros((len(x['seed']), 1, 2, 1))},
    {'seed': SEED},
    {'image': PICTURE},
  ),
}


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
  """A run of functions by hand; records how it is opened."""
  text = json.dumps({'experiment': 'by_hand', 'config': {}})
  (tmp_path / 'config.json').write_text(text)
  Image.new('L', (2, 1), 255).save(tmp_path / 'white.png')
  Image.new('L', (4, 2), 0).save(tmp_path / 'large.png')
  made = Experiment(None, None, None, functions=FUNCTIONS)  # type: ignore[arg-type]
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)
  monkeypatch.chdir(tmp_path)

  def opened(workdir, **options):
    run = Run(workdir, **options)
    config = softmax_regression.SMALL
    vars(run).update(config=config, _opened=(config, made), _used=jnp.int32(0))
    return run

  monkeypatch.setattr(dlx, 'open', opened)
  return tmp_path


def said(capsys, *args):
  assert call.main(['call', '--workdir=.', *args]) == 0
  return capsys.readouterr().out.splitlines()


def test_what_it_can_do(capsys):
  assert said(capsys)[:5] == [
    'predict',
    '  inputs   image (image, uint8 [1, 2, 1])',
    '  outputs  probabilities (probabilities, float32 [2])',
    'generate',
    '  inputs   prompt (tokens, int32 [length]), seed (seed, uint32)',
  ]


def test_a_table_of_pictures(capsys, workdir):
  found = said(capsys, 'predict', 'white.png', 'large.png', '--resize')
  assert found == [
    'input      class   probabilities',
    'white.png  bright  1',
    'large.png  dark    1',
  ]
  assert said(capsys, 'predict', 'white.png', '--out=a.jsonl') == []
  told = json.loads((workdir / 'a.jsonl').read_text())
  assert told['probabilities'] == {'dark': 0.0, 'bright': 1.0}


def test_text(capsys):
  assert said(capsys, 'generate', 'prompt=HAL', 'by=1', 'seed=4') == ['IBM']
  assert said(capsys, 'generate', 'prompt=HAL', '--num=2') == ['IBM', '', 'IBM']


def test_samples(capsys, workdir):
  assert said(capsys, 'sample', '--num=3', '--out=a.npz') == []
  with np.load(workdir / 'a.npz') as found:
    assert found['image'].shape == (3, 1, 2, 1)


def test_examples_of_a_set(capsys, workdir):
  args = ('predict', '--dataset=digits', '--num=2', '--resize')
  lines = [line.split() for line in said(capsys, *args)]
  assert lines[0] == ['input', 'true_label', 'class', 'probabilities']
  true = load_digits_test()[:2]
  assert [line[:2] for line in lines[1:]] == [
    ['digits:test:1', str(true[0])],
    ['digits:test:2', str(true[1])],
  ]
  for ending in ('csv', 'jsonl', 'npz'):
    assert said(capsys, *args, f'--out=a.{ending}') == []
  row = json.loads((workdir / 'a.jsonl').read_text().splitlines()[1])
  assert (row['input'], row['true_label']) == ('digits:test:2', str(true[1]))
  head = (workdir / 'a.csv').read_text().splitlines()[0]
  assert head == 'input,true_label,class,probabilities/dark,probabilities/bright'
  with np.load(workdir / 'a.npz') as found:
    assert found['true_label'].tolist() == true.tolist()


def load_digits_test():
  from dlx.data.sets.images import images
  from dlx.data.sources import read

  return read(images('digits').test).data['label']


@pytest.mark.parametrize(
  ('args', 'says'),
  [
    (['--workdir='], '--workdir is missing'),
    (['--workdir=none', 'predict'], 'none holds no run'),
    (['--workdir=.', 'decode'], 'decode is no function of by_hand'),
    (['--workdir=.', 'predict', 'large.png'], 'has 4 x 2 pixels: must have 2 x 1'),
    (['--workdir=.', 'predict'], 'predict: image is missing'),
    (['--workdir=.', 'sample'], 'gives images: needs --out=FILE.png'),
    (['--workdir=.', 'sample', '--num=0'], 'is not a positive'),
    (['--workdir=.', 'predict', 'white.png', '--out=a.doc'], 'must end in .csv'),
    (['--workdir=.', 'predict', 'white.png', '--dataset=digits'], 'beside white.png'),
    (['--workdir=.', 'predict', '--dataset=digits'], 'or add --resize'),
    (['--workdir=.', 'predict', '--step=newest'], '--step=newest is not allowed'),
  ],
)
def test_bad_input(capsys, args, says):
  assert call.main(['call', *args]) == 2
  told = capsys.readouterr().err
  assert told.startswith('error: ') and told.count('\n') == 1 and says in told


def test_code_that_is_not_trusted(capsys, workdir, monkeypatch):
  monkeypatch.setattr(dlx, 'open', Run)
  assert call.main(['call', '--workdir=.', 'predict']) == 2
  assert 'the code of the run does not run' in capsys.readouterr().err
