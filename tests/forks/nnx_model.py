"""A model of flax.nnx: its parameters are a tree of the state, its graph is static."""

import dataclasses

from flax import nnx

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.state import create
from dlx.train import steps


class Net(nnx.Module):
  def __init__(self, rngs):
    self.hidden = nnx.Linear(64, 64, rngs=rngs)
    self.head = nnx.Linear(64, 10, rngs=rngs)

  def __call__(self, x_BF):
    return self.head(nnx.relu(self.hidden(x_BF)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 300  # Optimiser steps of the whole run.
  lr: float = 3e-3  # Learning rate of Adam.


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  data = images.images('digits')
  tx = optim.clip(optim.adam(config.lr), **config.clipping)
  graph, like = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param)

  def logits(params, batch):
    state = nnx.clone(like)
    nnx.replace_by_pure_dict(state, params)
    x_BF = data.to_unit(batch['image']).reshape(len(batch['image']), -1)
    return nnx.merge(graph, state)(x_BF)

  def loss_fn(params, model_state, batch, rng):
    found_BK = logits(params, batch)
    loss = metrics.mean(losses.softmax_cross_entropy(found_BK, batch['label']))
    return loss, (model_state, {'accuracy': metrics.accuracy(found_BK, batch['label'])})

  def init(key):
    params = nnx.to_pure_dict(nnx.split(Net(nnx.Rngs(key)), nnx.Param)[1])
    return create(params, tx.init(params), key)

  def train_step(state, batch):
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    return steps.apply(tx, state, grads), sums

  def test(state, batch):
    found = logits(state.params, batch)
    return {'accuracy': metrics.accuracy(found, batch['label'], batch['weight'])}

  evals = {'test': experiment.Eval(test, InOrder(data.test, config.eval_batch_size))}
  return experiment.Experiment(init, train_step, training(data.train, config), evals)
