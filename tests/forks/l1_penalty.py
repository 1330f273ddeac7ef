"""Lasso: a linear model of diabetes whose weights are few by an L1 penalty."""

import dataclasses

import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import tables
from dlx.models.mlp import MLP
from dlx.train.supervised import supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 500  # Optimiser steps of the whole run.
  l1: float = 0.1  # Weight of the sum of absolute weights.
  lr: float = 1e-2  # Learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('l1', least=0)
    self.unused('compute_dtype', why='outputs, all there is, are float32')


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  data = tables.tabular('diabetes', scale_target=True)
  size = lambda params: jnp.abs(params['head']['kernel']).sum()
  return supervised(
    config,
    model=MLP(widths=(), num_outputs=1, **config.dtypes),
    inputs='features',
    loss=lambda outputs, batch: jnp.square(outputs[:, 0] - batch['target']),
    penalty=lambda params, sown: {'l1': (config.l1, size(params))},
    tx=optim.adam(config.lr),
    train_data=training(data.train, config),
    eval_data={'test': InOrder(data.test, config.eval_batch_size)},
    metrics=lambda outputs, batch, weight: {},
    overfit='The penalty does not fall to 0.',
  )
