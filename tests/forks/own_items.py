"""Own map-style data: bars, upright or lying, by __len__ and __getitem__.

Any data set of torch or Hugging Face takes its place.
"""

import dataclasses

import flax.linen as nn
import numpy as np

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.items import items
from dlx.train.supervised import supervised


class Bars:
  def __init__(self, size, seed):
    self.size, self.seed = size, seed

  def __len__(self):
    return self.size

  def __getitem__(self, i):
    rng = np.random.default_rng([self.seed, i])
    picture, label, place = rng.random((8, 8), np.float32), i % 2, rng.integers(8)
    picture[(place,) if label else (slice(None), place)] += 1
    return picture, label


class Net(nn.Module):
  dtype: str
  param_dtype: str

  @nn.compact
  def __call__(self, x_BHW, train):
    x_BF = x_BHW.reshape(len(x_BHW), -1)
    dense = lambda n, name: nn.Dense(
      n, dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )
    return dense(2, 'head')(nn.relu(dense(64, 'hidden')(x_BF)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  lr: float = 1e-2  # Learning rate of Adam.


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  own = dict(fields=('image', 'label'), workers=config.stream_workers)
  return supervised(
    config,
    model=Net(**config.dtypes),
    loss=lambda outputs, batch: losses.softmax_cross_entropy(outputs, batch['label']),
    tx=optim.adam(config.lr),
    train_data=items(Bars(1000, 0), config.batch_size, config.seed, **own),
    eval_data={'test': items(Bars(200, 1), config.eval_batch_size, **own)},
    metrics=lambda outputs, batch, weight: {
      'accuracy': metrics.accuracy(outputs, batch['label'], weight)
    },
  )
