"""Scenes: functions of (seed, split, n), masks and boxes of one truth, parts apart."""

import dataclasses

import jax
import numpy as np
import pytest

from dlx.data.dataset import Loaded, Source
from dlx.data.sets import images, scenes
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError

DIGITS = images.images('digits')
SCENE = scenes.Scene(side=24, most=3, smallest=8, largest=14)


def made(split='train', size=40, scene=SCENE, **more):
  source = scenes.on_photographs(
    getattr(DIGITS, split),
    DIGITS.max_value,
    images.photographs(),
    size=size,
    scene=scene,
    **more,
  )
  return read(source).data


@pytest.fixture(scope='module')
def train():
  return made()


def test_a_scene_is_a_function_of_seed_split_and_number(train):
  fewer = made(size=7)
  for name, x in fewer.items():
    np.testing.assert_array_equal(x, train[name][:7])
  for other in (made(size=7, seed=1), made('test', size=7)):
    assert not (other['image'] == fewer['image']).all((1, 2, 3)).any()
  some = made(size=3, fields=('mask', 'image', 'index'))
  assert list(some) == ['mask', 'image', 'index']
  np.testing.assert_array_equal(some['index'], [0, 1, 2])
  np.testing.assert_array_equal(some['mask'], fewer['mask'][:3])


def test_masks_and_boxes_say_the_same(train):
  counts = train['real'].sum(1)
  assert set(counts) == {1, 2, 3}
  assert not train['box'][~train['real']].any()
  alone = 0
  for mask, boxes, labels, real in zip(
    *(train[k] for k in ('mask', 'box', 'label', 'real')), strict=True
  ):
    shown = set(np.unique(mask)) - {0, scenes.VOID}
    assert shown <= {1 + k for k in labels[real]}
    for top, left, bottom, right in boxes[real]:
      assert 0 <= top < bottom <= 24 and 0 <= left < right <= 24
      assert bottom - top <= 14 and right - left <= 14
    if real.sum() == 1:  # Nothing covers it: the box is that of the mask, tight.
      rows, columns = (mask == 1 + labels[0]).nonzero()
      tight = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
      np.testing.assert_array_equal(boxes[0], tight)
      alone += 1
  assert alone > 5


def test_background_is_the_photograph_and_digits_stand_out():
  grey = np.full((1, 30, 40, 3), 100, np.uint8)
  digit, rng = np.zeros((1, 8, 8), np.float32), np.random.default_rng(0)
  digit[0, 2:6, 3:5] = 0.5  # The largest opacity becomes 1.
  levels = []
  for _ in range(50):
    scene = dataclasses.replace(SCENE, most=1, smallest=8, largest=8)
    found = scenes.one_scene(rng, digit, np.array([4]), grey, scene)
    of_digit = found['mask'] == 5
    assert of_digit.sum() == 8 and not (found['mask'] == scenes.VOID).any()
    assert (found['image'][~of_digit] == 60).all()
    top, left, bottom, right = found['box'][0].astype(int)
    assert (bottom - top, right - left) == (4, 2)
    assert of_digit[top:bottom, left:right].all()
    levels.append(found['image'][of_digit].mean())
  levels = np.array(levels)
  assert levels.min() >= 60 + scenes.CONTRAST - 1 and levels.max() <= 255
  assert np.ptp(levels) > 60


def test_digits_are_enlarged_as_pil_does():
  from PIL import Image

  image = np.random.default_rng(0).uniform(size=(8, 8)).astype(np.float32)
  for pixels in (5, 8, 13):
    wanted = np.asarray(
      Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BILINEAR)
    )
    found = scenes._resized(image, pixels)
    # Pillow's own kernel is of float64, its passes round to float32.
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-5)


def test_splits_have_parts_of_the_photographs_to_themselves():
  column = np.broadcast_to(np.arange(640).reshape(1, 1, 640, 1), (2, 4, 640, 3))
  found = [set(np.unique(scenes._band(column, split))) for split in scenes.BANDS]
  assert sum(map(len, found)) == len(set.union(*found)) == 640
  assert min(map(len, found)) >= 96  # The largest scene.


def test_crowded_scenes_leave_digits_out():
  scene = scenes.Scene(side=16, most=9, smallest=14, largest=14)
  found = made(size=20, scene=scene)
  assert found['real'].sum(1).max() == 1  # Two squares of 14 in 16 share more.


def test_refuses():
  colour = images.images('cifar10')
  with pytest.raises(ConfigError, match='dataset=cifar10 .* one channel; these have 3'):
    scenes.on_photographs(colour.train, 255, images.photographs(), size=1, scene=SCENE)
  shapes = {'image': jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}
  other = Source('x', 'extra', shapes, 1, lambda _: Loaded({}, {}))
  with pytest.raises(
    ConfigError, match='split=extra .* one of train, validation, test'
  ):
    scenes.on_photographs(other, 16, images.photographs(), size=1, scene=SCENE)
  data = {'image': np.zeros((1, 8, 8, 1), np.uint8), 'label': np.array([254], np.int32)}
  other = Source('x', 'train', shapes, 1, lambda _: Loaded(data, {}))
  with pytest.raises(DataError, match=r'x/train: labels from 254 .* in \[0, 253\]'):
    scenes.on_photographs(other, 16, images.photographs(), size=1, scene=SCENE).read(
      None
    )
  with pytest.raises(ConfigError, match='largest=40 is not allowed'):
    scenes.Scene(largest=40)
