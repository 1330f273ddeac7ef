"""What the nets for 224 pixels do at 8, 28 and 32: by the rules of their docstrings."""

import jax
import pytest

from dlx.models import efficientnet as efficientnet_model
from dlx.models.inverted_residual import strides_for
from dlx.models.mobilenet import STRIDES
from experiments.vision import convnext, efficientnet, mobilenet
from tests.dlx.models import by_shape


@pytest.mark.parametrize(
  'side, wanted',
  [
    (3, (1, 1, 1, 1, 1, 1, 1, 1)),
    (8, (1, 1, 1, 1, 1, 1, 2, 1)),
    (28, (1, 1, 1, 2, 2, 1, 2, 1)),
    (32, (1, 1, 1, 2, 2, 1, 2, 1)),
    (64, (1, 1, 2, 2, 2, 1, 2, 1)),
    (128, STRIDES),
    (224, STRIDES),
  ],
)
def test_the_first_strides_are_1_where_too_little_would_be_left(side, wanted):
  assert strides_for(side, STRIDES) == wanted
  assert strides_for(side, efficientnet_model.STRIDES) == wanted


def test_the_stem_of_convnext_cuts_small_images_finer():
  sides = (8, 15, 16, 28, 32, 63, 64, 224)
  assert [convnext.patch_of(side) for side in sides] == [1, 1, 2, 2, 2, 2, 4, 4]


def test_the_nets_of_the_papers_are_a_flag_away():
  of = lambda experiment: by_shape.numbers_in(
    jax.eval_shape(experiment.init, jax.random.key(0)).params
  )
  # Of 10 classes in place of 1000: 990 rows and biases less; of one channel in place of
  # three: fewer weights of the stem.
  tiny = convnext.build(convnext.Config(size='tiny', layer_scale=1e-6))
  stem = 96 * (4 * 4 * 3 - 1)
  assert of(tiny) == 28589128 - 990 * 769 - stem
  whole = {'width': 1.0, 'depth': 1.0}
  v2 = mobilenet.build(mobilenet.Config(**whole))
  assert of(v2) == 3504872 - 990 * 1281 - 32 * 9 * 2
  b2 = efficientnet.build(efficientnet.Config(size='b2', **whole))
  assert of(b2) == 9109994 - 990 * 1409 - 32 * 9 * 2


def test_published_recipes_are_accepted():
  steps = mobilenet.Config(
    optimizer='rmsprop', schedule='steps', lr=0.045, decay_every_steps=10
  )
  assert [round(float(steps.rate(n)), 6) for n in (0, 9, 10, 20)] == [
    0.045,
    0.045,
    0.0441,
    0.043218,
  ]
  for module in (mobilenet, efficientnet):
    for optimizer in module.OPTIMIZERS:
      module.build(module.Config(optimizer=optimizer))
