"""Focal loss on digits, and the share of labels among the two likeliest classes.

Hard examples count more (arXiv:1708.02002).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.sets import images
from dlx.models.mlp import MLP
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 300  # Optimiser steps of the whole run.
  gamma: float = 2.0  # How much less easy examples count; 0 gives cross-entropy.
  lr: float = 1e-2  # Peak of the one-cycle learning rate.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('gamma', least=0)


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  data = images.images('digits')

  def focal(logits_BK, batch):
    loss_B = losses.softmax_cross_entropy(logits_BK, batch['label'])
    return (1 - jnp.exp(-loss_B)) ** config.gamma * loss_B

  def top_2(logits_BK, batch, weight_B):
    _, best_B2 = jax.lax.top_k(logits_BK, 2)
    return {
      'top_2': metrics.mean((best_B2 == batch['label'][:, None]).any(1), weight_B)
    }

  return image_classifier(
    config,
    data,
    model=MLP(widths=(64,), num_outputs=data.num_classes, **config.dtypes),
    loss=focal,
    metrics=top_2,
    tx=optim.adamw(optim.one_cycle(config.lr, config.num_steps)),
  )
