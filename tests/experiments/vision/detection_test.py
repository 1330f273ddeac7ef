"""detection: what its loss is, what it finds in a picture, what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.state import ratios
from experiments.vision import detection

SMALL = detection.SMALL


def test_a_net_that_knows_one_scene():
  """Heads whose weights are 0 say the same of each cell: their bias."""
  built = detection.build(dataclasses.replace(SMALL, box_weight=3.0, most_objects=4))
  test = built.evals['test']
  batch = {name: np.zeros(x.shape, x.dtype) for name, x in test.data.shapes[0].items()}
  # One digit whose centre is that of cell (3, 2), and one that fills the scene.
  batch['box'][:] = [[3, 1, 11, 9], [0, 0, 16, 16]]
  batch['label'][:], batch['real'][:] = [7, 3], [True, False]
  batch['weight'][:2], batch['real'][1, 1] = 1, True
  batch['index'][:] = np.arange(len(batch['index']))

  @jax.jit
  def run(key, batch):
    state = built.init(key)
    params = jax.tree.map(jnp.zeros_like, state.params)
    # Of class 7 alone anything is likely, in boxes of 4 x 4 cells around the cell.
    heat = jnp.full(10, -20.0).at[7].set(0)
    shape = jnp.array([0.0, 0, *[np.log(np.expm1(4))] * 2])
    params['heat']['bias'], params['shape']['bias'] = heat, shape
    state = state._replace(params=params)
    sums = test.step(state, batch)
    image = {'image': batch['image']}
    found = [
      {name: f.call(state, image, **options) for name, f in built.functions.items()}
      for options in ({}, {'least_score': 0.6})
    ]
    return ratios(sums), test.summarize(sums), *found

  sums, report, some, none = run(jax.random.key(0), batch)
  # The box of the first is right. That of the second, whose centre is in cell (4, 4):
  # 8 x 8 pixels of 16 x 16, which hold them.
  loss = (0 + (0 + 1 - 64 / 256) / 2) / 2
  np.testing.assert_allclose(sums['box_loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(sums['box_iou'], (1 + 1 + 64 / 256) / 3, rtol=1e-5)
  total = float(sums['heat_loss']) + 3 * loss
  np.testing.assert_allclose(sums['loss'], total, rtol=1e-5)
  # Class 7: all 64 cells say a half, log(2) / 4 each. Class 3: a peak at a logit of
  # -20. Both boxes are too small for a radius of a cell.
  flat = 64 * np.log(2) / 4
  np.testing.assert_allclose(sums['heat_loss'], (flat + (flat + 20) / 2) / 2, rtol=1e-5)
  np.testing.assert_array_equal(sums['true'], np.eye(10)[7] * 2 + np.eye(10)[3])
  # On a plateau every cell is a peak: the first four, of which two overlap others.
  found, marked = some['detect'], some['mark']['image']
  assert (np.asarray(found['label']) == [7, 7, -1, -1]).all()
  np.testing.assert_allclose(found['score'][0], [0.5, 0.5, 0, 0], rtol=1e-6)
  corners = [[0, 0, 5, 5], [0, 1, 5, 9], [0] * 4, [0] * 4]
  np.testing.assert_allclose(found['box'][0], corners, atol=1e-5)
  assert marked[0, 0, 0].any() and not marked[0, 8, 8].any()
  assert (np.asarray(none['detect']['label']) == -1).all()
  assert not none['detect']['score'].any() and not none['mark']['image'].any()
  assert 0 <= float(report['map']) < 0.5


def test_digits_of_a_split_are_those_of_no_other():
  built = detection.build(dataclasses.replace(SMALL, validation=0.2))
  assert built.headline == ('validation/map', 'test/map', 'test/map_50')
  of = {'train': built.train_data, **{k: e.data for k, e in built.evals.items()}}
  digits = {k: data.load().origin['digits'] for k, data in of.items()}
  assert {k: x['size'] for k, x in digits.items()} == {
    'train': 1437 - 287, 'validation': 287, 'test': 360
  }  # fmt: skip


def test_refuses():
  with pytest.raises(ConfigError, match='scene.side=16 .* a multiple of 32'):
    dataclasses.replace(SMALL, channels=(2,) * 6)
  with pytest.raises(ConfigError, match='last=2 is not allowed'):
    dataclasses.replace(SMALL, last=2)
  with pytest.raises(ConfigError, match='most_iou=1.5 is not allowed'):
    dataclasses.replace(SMALL, most_iou=1.5)
  with pytest.raises(ConfigError, match='dataset=cifar10 .* one channel'):
    detection.build(dataclasses.replace(SMALL, dataset='cifar10'))
