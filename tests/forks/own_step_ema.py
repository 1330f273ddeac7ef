"""Mean teacher: own train step with an averaged teacher (arXiv:1703.01780).

The student learns 50 labels and, on all digits, the answers of its own average.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.models.mlp import MLP
from dlx.state import create, streams
from dlx.train import steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  ema_decay: float | None = 0.99  # Decay of the teacher: the averaged student.
  labelled: float = 0.1  # Share of the examples whose label is seen.
  noise: float = 0.2  # Deviation of the noise on the pixels.
  lr: float = 3e-3  # Learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('labelled', above=0, most=1)
    self.require('ema_decay', self.ema_decay is not None, 'a number: it is the teacher')


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  data = images.images('digits')
  model = MLP(widths=(64,), num_outputs=data.num_classes, **config.dtypes)
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def logits(params, batch):
    x = data.to_unit(batch['image'])
    return model.apply({'params': params}, x, train=False)

  def init(key):
    image = jnp.zeros((1, *data.shape), jnp.uint8)
    params = model.init(key, image, train=False)['params']
    ema = steps.initial_average(params, config.ema_decay)
    return create(params, tx.init(params), key, ema=ema)

  def train_step(state, batch):
    noise, seen = streams(jax.random.fold_in(state.rng, state.step), 'noise', 'seen')
    answer_BK = jax.nn.softmax(logits(state.ema, batch))
    off = config.noise * jax.random.normal(noise, batch['image'].shape)
    seen_B = jax.random.bernoulli(seen, config.labelled, batch['label'].shape)
    batch = {**batch, 'image': batch['image'] + off * data.max_value, 'seen': seen_B}

    def loss_fn(params, model_state, batch, rng):
      found_BK = logits(params, batch)
      hard_B = losses.softmax_cross_entropy(found_BK, batch['label']) * batch['seen']
      soft_B = jnp.square(jax.nn.softmax(found_BK) - batch['answer']).sum(-1)
      return metrics.mean(hard_B + soft_B), (model_state, {})

    batch['answer'] = answer_BK
    grads, _, sums = steps.gradients(
      loss_fn, state.params, (), batch, state.rng, micro_batches=config.micro_batches
    )
    return steps.apply(tx, state, grads, ema_decay=config.ema_decay), sums

  def test(state, batch):
    found = logits(state.averaged, batch)
    return {'accuracy': metrics.accuracy(found, batch['label'], batch['weight'])}

  evals = {'test': experiment.Eval(test, InOrder(data.test, config.eval_batch_size))}
  return experiment.Experiment(init, train_step, training(data.train, config), evals)
