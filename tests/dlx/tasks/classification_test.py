"""Tests for dlx/tasks/classification.py: what a fork adds to a classifier of images."""

import functools
import inspect
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from dlx import losses, metrics, optim
from dlx.config import Config
from dlx.data.sets import images
from dlx.errors import ConfigError
from dlx.tasks.classification import image_classifier
from experiments.vision import cnn

DIGITS = images.images('digits')
CONFIG = Config(batch_size=4, eval_batch_size=4)


class TwoHeads(nn.Module):
  @nn.compact
  def __call__(self, image_BHWC, train):
    x_BF = image_BHWC.reshape(image_BHWC.shape[0], -1)
    return {name: nn.Dense(k, name=name)(x_BF) for name, k in HEADS.items()}


HEADS = {'digit': 10, 'parity': 2}


def two_heads(config=CONFIG):
  of_digit = lambda outputs, batch: losses.softmax_cross_entropy(
    outputs['digit'], batch['label']
  )
  of_parity = lambda outputs, batch: losses.softmax_cross_entropy(
    outputs['parity'], batch['label'] % 2
  )
  return image_classifier(
    config,
    DIGITS,
    model=TwoHeads(),
    loss=lambda outputs, batch: {
      'digit': of_digit(outputs, batch),
      'parity': (0.5, of_parity(outputs, batch)),
    },
    logits=lambda outputs: outputs['digit'],
    tx=optim.adam(1e-3),
  )


def batch(data):
  label = np.array([0, 1, 2, 3], np.int32)
  image = np.ones((4, 8, 8, 1), np.uint8)
  found = {'image': image, 'label': label, 'weight': np.ones(4, np.float32)}
  return {name: found[name] for name in data.shapes[0]}


@functools.cache
def at_zero(make):
  """What `make` builds, and a state in which every class is as likely as the others."""
  built = make()
  state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state._replace(rng=()))
  return built, zeros._replace(rng=jax.random.key(0))


def trained_on(built, state):
  """Sums of one step from the digits 0, 1, 2, 3."""
  return jax.jit(built.train_step)(state, batch(built.train_data))[1]


def evaluated_on(built, state):
  """What an evaluation reports of the same."""
  one = built.evals['test']
  step = jax.jit(lambda state, batch: one.summarize(one.step(state, batch)))
  return step(state, batch(one.data))


def value(found):
  return float(found.total / found.count)


def test_two_heads_take_twenty_lines():
  assert len(inspect.getsource(two_heads).splitlines()) <= 20
  built, state = at_zero(two_heads)
  sums = trained_on(built, state)
  # Without knowledge ln 10 and ln 2; of 0, 1, 2, 3 the first is a 0.
  assert value(sums['digit']) == pytest.approx(math.log(10), rel=1e-6)
  assert value(sums['parity']) == pytest.approx(math.log(2), rel=1e-6)
  assert value(sums['loss']) == pytest.approx(math.log(10) + math.log(2) / 2, rel=1e-6)
  assert value(sums['accuracy']) == 0.25
  found = evaluated_on(built, state)
  assert float(found['loss']) == pytest.approx(math.log(10), rel=1e-6)
  assert float(found['accuracy']) == 0.25
  call = jax.jit(built.functions['predict'].call)
  probs = call(state, {'image': np.ones((2, 8, 8, 1), np.uint8)})['probabilities']
  np.testing.assert_allclose(probs, np.full((2, 10), 0.1), rtol=1e-6)


def one_head(config=CONFIG, **changes):
  changes = {
    'metrics': lambda logits, batch, weight: {
      'top_2': metrics.top_k(logits, batch['label'], weight, k=2)
    },
    'model': nn.Sequential([lambda x, train: x.reshape(len(x), -1), nn.Dense(10)]),
    'loss': lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    **changes,
  }
  return image_classifier(config, DIGITS, tx=optim.adam(1e-3), **changes)


def test_a_metric_of_its_own_stands_beside_the_usual():
  built, state = at_zero(one_head)
  sums = trained_on(built, state)
  assert (value(sums['top_2']), value(sums['accuracy'])) == (0.5, 0.25)
  found = evaluated_on(built, state)
  assert (float(found['top_2']), float(found['accuracy'])) == (0.5, 0.25)
  assert {'f1', 'confusion', 'loss'} <= set(found)
  again = one_head(
    metrics=lambda *_: {'accuracy': metrics.mean(np.ones(4, np.float32))}
  )
  with pytest.raises(ConfigError, match="'accuracy' is reported twice"):
    evaluated_on(again, state)


def test_the_validation_split_is_held_out_of_training():
  built = one_head(Config(batch_size=4, eval_batch_size=4, validation=0.1))
  assert list(built.evals) == ['validation', 'test']
  assert built.headline == ('validation/accuracy', 'test/accuracy', 'test/loss')
  train, held = built.train_data, built.evals['validation'].data
  # 10 % of the 1437 training digits of scikit-learn's split.
  assert (train.size, held.size) == (1293, 144)
  counts = np.bincount(held.load().data['label'], minlength=10)
  assert counts.min() >= 14 and counts.max() <= 15
  assert list(one_head().evals) == ['test']
  assert one_head().train_data.size == 1437


def test_a_data_set_of_its_own():
  usual = one_head()
  data = usual.evals['test'].data
  built = one_head(train_data=usual.train_data, eval_data={'mine': data})
  assert list(built.evals) == ['mine']
  assert built.headline == ('mine/accuracy', 'mine/loss')
  assert built.figures['confusion'].eval == 'mine'
  assert built.train_data is usual.train_data


def test_chance_is_that_of_as_many_classes():
  declared = one_head().metrics
  assert declared['accuracy'].chance == 0.1
  assert declared['loss'].chance == pytest.approx(math.log(10))


def test_what_training_minimises_is_not_declared_as_the_cross_entropy():
  """Its figure is smoothed, or whatever a fork's loss is; evaluations' is plain."""
  declared = cnn.build(cnn.Config.small(label_smoothing=0.1)).metrics
  assert 'what training minimises' in declared['train/loss'].meaning
  assert 'negative logarithm' in declared['loss'].meaning
  assert declared['train/loss'].unit == declared['loss'].unit
