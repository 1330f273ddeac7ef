"""ImageNet's experiments: crops, published nets, a folder of a thousand classes."""

import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from dlx.data.images import augment, mixup
from dlx.data.prepare import picture_files
from dlx.data.sets import images
from dlx.errors import ConfigError
from dlx.run.loop import fit
from experiments.vision import imagenet_convnext, imagenet_resnet50
from launch import checks
from tests.dlx.models import by_shape

BOTH = pytest.mark.parametrize('module', [imagenet_resnet50, imagenet_convnext])


def prepared(folder: pathlib.Path, classes: int, size: int) -> pathlib.Path:
  """A data folder with the set `colours`: a colour and two pictures a class."""
  rng = np.random.default_rng(0)
  for k in range(classes):
    colour = 15 + 25 * np.array([k % 10, k // 10 % 10, k // 100])
    for split, name in (('train', 'a'), ('train', 'b'), ('val', 'c')):
      pixels = colour + rng.normal(0, 12, (40, 48, 3))
      path = folder / 'pictures' / split / f'n{k:08d}' / f'{name}.JPEG'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
  picture_files.prepare(
    folder / 'pictures', 'colours', folder / 'data', size=size, repeats='keep'
  )
  return folder / 'data'


@BOTH
def test_files_are_cropped_as_they_are_read_and_arrays_on_the_device(
  module, tmp_path, monkeypatch
):
  monkeypatch.setenv('DLX_DATA_DIR', str(prepared(tmp_path, 2, 8)))
  read, moved = [], []
  with_crop, on_device = images.with_crop, augment.random_resized_crop

  def reading(data, crop):
    read.append(crop)
    return with_crop(data, crop)

  def moving(key, image, **options):
    moved.append(options)
    return on_device(key, image, **options)

  monkeypatch.setattr(images, 'with_crop', reading)
  monkeypatch.setattr(augment, 'random_resized_crop', moving)
  small = {'blocks': (1,), 'batch_size': 2, 'min_area': 0.3, 'flip': True}
  small |= {'width': 2} if module is imagenet_resnet50 else {'features': (4,)}
  method = 'bilinear' if module is imagenet_resnet50 else 'bicubic'
  for name, side in (('colours', 8), ('cifar10', 32)):
    config = module.Config(dataset=name, **small)
    checks.traced(module.build, config)
    crop = read.pop()
    assert (crop.min_area, crop.max_area, crop.flip) == (0.3, 1.0, True)
    assert crop.method == method
    if name == 'colours':
      assert not moved
    else:
      (found,) = moved
      assert found.pop('method', 'bilinear') == method
      assert found == {'height': side, 'width': side, 'scale': (0.3, 1.0)}


def test_0_leaves_a_kind_of_mixing_out():
  of = lambda **fields: imagenet_convnext.Augment(**fields).mix
  assert of(mixup=0, cutmix=0) is None
  for mix, function, alpha in (
    (of(mixup=0.3, cutmix=0), mixup.mixup, 0.3),
    (of(mixup=0, cutmix=0.7), mixup.cutmix, 0.7),
  ):
    assert (mix.func, mix.keywords) == (function, {'alpha': alpha})
  both = of(mixup=0.3, cutmix=0.7, switch=0.1)
  assert both.func is mixup.mixup_or_cutmix
  assert both.keywords == {'mixup_alpha': 0.3, 'cutmix_alpha': 0.7, 'switch': 0.1}
  with pytest.raises(ConfigError, match='switch=0.1 .* 0.25: without mixup or CutMix'):
    imagenet_convnext.Augment(mixup=0, switch=0.1)


def test_the_nets_of_the_papers_are_a_flag_away():
  of = lambda experiment: by_shape.numbers_in(
    jax.eval_shape(experiment.init, jax.random.key(0)).params
  )
  # Of 10 classes in place of 1000: 990 rows and biases less; a stem of 3 x 3 and one
  # channel, of 1 x 1 and one channel.
  resnet = imagenet_resnet50.build(imagenet_resnet50.Config(width=64))
  assert of(resnet) == 25557032 - 990 * 2049 - 64 * (7 * 7 * 3 - 3 * 3)
  convnext = imagenet_convnext.build(imagenet_convnext.Config(size='tiny'))
  assert of(convnext) == 28589128 - 990 * 769 - 96 * (4 * 4 * 3 - 1)


@pytest.mark.slow
@BOTH
def test_a_thousand_classes_from_files_to_figures(module, tmp_path, monkeypatch):
  data_dir = prepared(tmp_path, 1000, 64)
  monkeypatch.setenv('DLX_DATA_DIR', str(data_dir))
  small = {'blocks': (1, 1, 1), 'batch_size': 50, 'num_steps': 40}
  small |= {'width': 4} if module is imagenet_resnet50 else {'features': (8, 16, 32)}
  config = module.Config(
    dataset='colours', flip=True, stream_workers=2, eval_every_steps=20,
    save_every_steps=20, compute_dtype='bfloat16', **small,
  )  # fmt: skip
  result = fit(module.build(config), config, tmp_path / 'run', data_dir=data_dir)
  metrics = result.metrics
  assert metrics['test/loss'] < np.log(1000)
  # By chance 5 of 1000; the colour says which hundredth of the classes it may be.
  assert metrics['test/top_5'] > 0.02
  assert metrics['test/top_5'] >= metrics['test/accuracy']
  assert (tmp_path / 'run' / 'figures' / 'confusion.png').stat().st_size > 0


if __name__ == '__main__':
  pytest.main([__file__])
