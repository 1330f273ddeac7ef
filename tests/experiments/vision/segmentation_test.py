"""segmentation: what its loss is, what it gives for a picture, what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from dlx import figures
from dlx.data.sets import scenes
from dlx.errors import ConfigError
from dlx.state import ratios
from experiments.vision import segmentation

SMALL = segmentation.SMALL


def test_the_loss_is_what_was_chosen_and_pictures_get_the_likeliest_classes():
  chosen = {
    loss: segmentation.build(dataclasses.replace(SMALL, loss=loss))
    for loss in segmentation.LOSSES
  }
  built = chosen['sum']
  test = built.evals['test']
  batch = {name: np.zeros(x.shape, x.dtype) for name, x in test.data.shapes[0].items()}
  rng = np.random.default_rng(0)
  batch['image'] = rng.integers(256, size=batch['image'].shape, dtype=np.uint8)
  batch['mask'][:, 2:5, 2:5], batch['mask'][:, 6] = 7, scenes.VOID
  batch['weight'][:3] = 1

  @jax.jit
  def run(key, batch):
    state = built.init(key)
    found = built.functions['segment'].call(state, {'image': batch['image']})
    steps = {k: x.evals['test'].step(state, batch)['loss'] for k, x in chosen.items()}
    return ratios(test.step(state, batch)), ratios(steps), found

  sums, loss, found = run(jax.random.key(0), batch)
  parts = [float(sums[name]) for name in ('cross_entropy', 'dice_loss')]
  assert min(parts) > 0.1 and abs(parts[0] - parts[1]) > 0.1
  wanted = dict(zip(segmentation.LOSSES, (*parts, sum(parts)), strict=True))
  assert {k: float(x) for k, x in loss.items()} == pytest.approx(wanted, rel=1e-6)
  # Three images count, without their rows of void.
  counts = np.asarray(sums['confusion'])
  assert counts.sum() == 3 * (16 * 16 - 16) and counts[8].sum() == 0
  assert counts[7].sum() == 3 * 9
  classes = np.asarray(found['classes'])
  assert len(np.unique(classes)) > 2
  predicted = np.bincount(classes[:3][batch['mask'][:3] != scenes.VOID], minlength=11)
  np.testing.assert_array_equal(counts.sum(0), predicted)
  np.testing.assert_array_equal(found['mask'], figures.class_colours(11)[classes])


def test_digits_of_a_split_are_those_of_no_other():
  built = segmentation.build(dataclasses.replace(SMALL, validation=0.2))
  assert built.headline == (
    'validation/mean_iou',
    'test/mean_iou',
    'test/pixel_accuracy',
  )
  of = {'train': built.train_data, **{k: e.data for k, e in built.evals.items()}}
  digits = {k: data.load().origin['digits'] for k, data in of.items()}
  sizes = {k: origin['size'] for k, origin in digits.items()}
  assert sizes == {'train': 1437 - 287, 'validation': 287, 'test': 360}
  assert {k: origin['split'] for k, origin in digits.items()} == {k: k for k in of}


def test_refuses():
  with pytest.raises(ConfigError, match='scene.side=16 .* a multiple of 32'):
    dataclasses.replace(SMALL, channels=(2,) * 6)
  with pytest.raises(ConfigError, match='loss=iou is not allowed'):
    dataclasses.replace(SMALL, loss='iou')
  with pytest.raises(ConfigError, match='dataset=cifar10 .* one channel'):
    segmentation.build(dataclasses.replace(SMALL, dataset='cifar10'))
