"""Tests for launch/inspect.py: the pages of an untrained run, and what it refuses."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

import dlx
from dlx.data.sets.images import images
from dlx.data.sources import read
from dlx.inspect.maps import Model
from dlx.run.opened import Run
from experiments.foundations import curve
from experiments.vision import cnn
from launch import inspect
from launch.machine import devices


@pytest.fixture(scope='module')
def made():
  """(config, experiment, state) by name."""
  found = {}
  for name, module in (('cnn', cnn), ('curve', curve)):
    experiment = module.build(module.SMALL)
    state = jax.jit(experiment.init)(jax.random.key(0))
    found[name] = module.SMALL, experiment, state
  return found


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch, made):
  """Runs `cnn` and `curve`, and pictures beside them."""
  for name in made:
    (tmp_path / name).mkdir()
    text = json.dumps({'experiment': name, 'config': {}})
    (tmp_path / name / 'config.json').write_text(text)
  grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  Image.new('L', (4, 2), 0).save(tmp_path / 'large.png')
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)
  monkeypatch.chdir(tmp_path)

  def opened(workdir, **options):
    run = Run(workdir, **options)
    config, experiment, state = made[run.record['experiment']]
    vars(run).update(config=config, _opened=(config, experiment), state=state, step=3)
    return run

  monkeypatch.setattr(dlx, 'open', opened)
  return tmp_path


def said(capsys, *args, run='cnn'):
  assert inspect.main(['inspect', f'--workdir={run}', *args]) == 0
  return capsys.readouterr().out.splitlines()


def picture(path):
  """Pixels of a PNG, whose colours are more than one."""
  with Image.open(path) as found:
    assert found.format == 'PNG'
    pixels = np.asarray(found.convert('RGB'))
  assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
  return pixels


def test_layers(capsys):
  lines = said(capsys)
  assert lines[0] == 'predict: layers and what they give for an image'
  assert lines[1].split() == ['conv_0', '8', 'x', '8', 'x', '4']
  assert lines[-1].split() == ['head', '10']


def test_grad_cam_of_the_test_split(capsys, workdir):
  lines = said(capsys, '--what=grad_cam', '--num=3', '--sanity', '--target=7')
  assert lines[0].startswith('Grad-CAM of norm_1, by the logit')
  assert lines[-1] == 'wrote cnn/inspect/grad_cam/report.html'
  folder = workdir / 'cnn' / 'inspect' / 'grad_cam'
  assert (
    picture(folder / 'grad_cam.png').shape[1] > picture(folder / 'sanity.png').shape[1]
  )
  with np.load(folder / 'maps.npz') as found:
    assert found['map'].shape == (3, 8, 8) and found['class'].tolist() == [7, 7, 7]
    assert found['map'].min() >= 0 and found['map'].max() > 0
  page = (folder / 'report.html').read_text()
  for part in ('Grad-CAM of cnn', "default-src 'none'", 'shuffled up to', '>conv_0<'):
    assert part in page
  assert page.count('data:image/png;base64') == 2


def test_attributions_of_a_file(capsys, workdir):
  said(capsys, '--what=integrated_gradients', 'grey.png', '--out=here')
  page = (workdir / 'here' / 'report.html').read_text()
  assert 'Completeness' in page and 'grey.png' in page
  picture(workdir / 'here' / 'integrated_gradients.png')


@pytest.mark.parametrize(
  ('args', 'files'),
  [
    (['filters'], {'filters': None}),
    (['filters', '--layer=conv_1'], {'filters': None}),
    (['activations'], {'activations': None}),
    (['features', 'grey.png', '--layer=conv_1'], {'features_1': (1, 4, 4, 8)}),
    (['features', '--layer=hidden'], {'features': (2, 16)}),
    (['patches', '--layer=conv_0', '--channels=0,2'], {'patches': None}),
    (['embedding', '--num=40'], {'pca': None, 'tsne': None}),
  ],
)
def test_views(capsys, workdir, args, files):
  what, *rest = args
  said(capsys, f'--what={what}', *rest)
  folder = workdir / 'cnn' / 'inspect' / what
  for name, shape in files.items():
    picture(folder / f'{name}.png')
    if shape is not None:
      with np.load(folder / 'maps.npz') as found:
        assert found['features'].shape == shape
  assert (folder / 'report.html').exists()


def test_histograms_are_of_what_the_layers_give(capsys, workdir, made):
  """Those of the head, against the model's own logits."""
  said(capsys, '--what=activations', '--num=5')
  _, experiment, state = made['cnn']
  rows = read(images('digits').test).data['image'][:5]
  model = Model(experiment.functions['predict'], state)
  image = model.unit(rows)
  logits = np.asarray(model.value(model.layer('head'), state, image))
  with np.load(workdir / 'cnn' / 'inspect' / 'activations' / 'maps.npz') as found:
    assert found['head/counts'].sum() == 5 * 10
    for part, expected in (
      ('mean', logits.mean()),
      ('deviation', logits.std()),
      ('low', logits.min()),
      ('high', logits.max()),
    ):
      np.testing.assert_allclose(found[f'head/{part}'], expected, rtol=1e-4, atol=1e-5)


def test_examples_of_another_split(capsys, workdir):
  args = '--what=saliency', '--num=2', '--dataset=:train'
  said(capsys, *args)
  with np.load(workdir / 'cnn' / 'inspect' / 'saliency' / 'maps.npz') as found:
    train = found['map']
  said(capsys, *args[:-1])
  with np.load(workdir / 'cnn' / 'inspect' / 'saliency' / 'maps.npz') as found:
    assert found['map'].shape == train.shape and (found['map'] != train).any()
  page = workdir / 'cnn' / 'inspect' / 'saliency' / 'report.html'
  assert page.exists()


@pytest.mark.parametrize(
  ('args', 'says'),
  [
    (['--workdir='], '--workdir is missing'),
    (['--workdir=none'], 'none holds no run'),
    (['--workdir=curve'], 'gives no pictures to look at'),
    (['--what=cam'], '--what=cam is not allowed: must be one of filters, features'),
    (['--what=grad_cam', '--layer=conv_9'], 'must be one of conv_0, norm_0, conv_1'),
    (['--what=grad_cam', '--layer=hidden'], 'which is no map of places'),
    (['--what=grad_cam', '--function=encode'], '--function=encode is not allowed'),
    (['--what=grad_cam', '--target=cat'], '--target=cat is not allowed'),
    (['--what=grad_cam', 'none.png'], 'none.png: no such file'),
    (['--what=grad_cam', 'large.png'], 'has 4 x 2 pixels: must have 8 x 8'),
    (['--what=grad_cam', 'grey.png', '--num=2'], '--num is not allowed beside'),
    (['--what=grad_cam', '--channels=1'], '--channels is not read by --what=grad_cam'),
    (['--what=features', '--sanity'], '--sanity is not read by --what=features'),
    (['--what=saliency', '--layer=conv_0'], '--layer is not read by --what=saliency'),
    (['--what=filters', '--channels=a'], '--channels=a is not allowed'),
    (['--what=filters', '--channels=4'], 'must lie in [0, 4)'),
    (['--what=filters', 'grey.png'], 'filters are of no picture'),
    (['--what=filters', '--dataset=digits'], 'not allowed with --what=filters'),
    (
      ['--what=grad_cam', 'grey.png', '--dataset=digits'],
      'not allowed beside grey.png',
    ),
    (['--what=grad_cam', '--dataset=digits:valid'], 'dataset=digits:valid'),
    (['--what=grad_cam', '--dataset=iris'], 'iris:test'),
    (['--what=rollout', 'grey.png'], 'no attention that can be seen'),
    (['--what=embedding', 'grey.png'], '1 images are not allowed'),
  ],
)
def test_bad_input(capsys, workdir, args, says):
  args = args if args[0].startswith('--workdir') else ['--workdir=cnn', *args]
  assert inspect.main(['inspect', *args]) == 2
  told = capsys.readouterr().err
  assert told.startswith('error: ') and told.count('\n') == 1 and says in told, told
  assert not (workdir / 'cnn' / 'inspect').exists()


def test_code_that_is_not_trusted(capsys, workdir, monkeypatch):
  monkeypatch.setattr(dlx, 'open', Run)
  text = json.dumps({'experiment': 'by_hand', 'config': {}})
  (workdir / 'cnn' / 'config.json').write_text(text)
  assert inspect.main(['inspect', '--workdir=cnn', '--what=filters']) == 2
  assert 'the code of the run does not run' in capsys.readouterr().err
