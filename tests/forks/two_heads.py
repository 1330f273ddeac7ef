"""Two heads on one trunk: which digit, and how much ink the picture has."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.train.supervised import supervised


class Net(nn.Module):
  dtype: str
  param_dtype: str

  @nn.compact
  def __call__(self, image_BHWC, train):
    own = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    x_BF = image_BHWC.reshape(len(image_BHWC), -1)
    x_BF = nn.relu(nn.Dense(64, name='trunk', **own)(x_BF))
    digit_BK = nn.Dense(10, name='digit', **own)(x_BF).astype(jnp.float32)
    return {'digit': digit_BK, 'ink': nn.Dense(1, name='ink', **own)(x_BF)[:, 0]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 300  # Optimiser steps of the whole run.
  ink_weight: float = 10.0  # Weight of the squared error of the ink.
  lr: float = 1e-2  # Peak of the one-cycle learning rate.


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  data = images.images('digits')
  unit = lambda batch: {**batch, 'image': data.to_unit(batch['image'])}

  def both(outputs, batch):
    ink_B = batch['image'].mean((1, 2, 3))
    return {
      'digit': losses.softmax_cross_entropy(outputs['digit'], batch['label']),
      'ink': (config.ink_weight, jnp.square(outputs['ink'] - ink_B)),
    }

  return supervised(
    config,
    model=Net(**config.dtypes),
    loss=both,
    prepare=unit,
    tx=optim.adam(optim.one_cycle(config.lr, config.num_steps)),
    train_data=training(data.train, config),
    eval_data={'test': InOrder(data.test, config.eval_batch_size)},
    metrics=lambda outputs, batch, weight: {
      'accuracy': metrics.accuracy(outputs['digit'], batch['label'], weight)
    },
  )
