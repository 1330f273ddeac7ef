"""MAML: initial weights from which one step learns a sinusoid (arXiv:1703.03400).

A task is a sine of random amplitude and phase, ten points to adapt and ten to test.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.generated import generated
from dlx.models.mlp import MLP
from dlx.state import create
from dlx.train import steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 16  # Tasks of one step.
  inner_lr: float = 0.01  # Learning rate of the step within a task.
  lr: float = 1e-3  # Learning rate of Adam on the initial weights.


SMALL = Config.small()


def task(key):
  amplitude, phase, points = jax.random.split(key, 3)
  x_B1 = jax.random.uniform(points, (20, 1), minval=-5, maxval=5)
  size = jax.random.uniform(amplitude, minval=0.1, maxval=5)
  return {'x': x_B1, 'y': size * jnp.sin(x_B1 + jax.random.uniform(phase, maxval=3.14))}


def build(config: Config) -> experiment.Experiment:
  model = MLP(widths=(40, 40), num_outputs=1, **config.dtypes)
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def error(params, x, y):
    return jnp.mean((model.apply({'params': params}, x, train=False) - y) ** 2)

  def adapted(params, one):  # One task: ten points of it change the weights.
    grads = jax.grad(error)(params, one['x'][:10], one['y'][:10])
    fast = jax.tree.map(lambda p, g: p - config.inner_lr * g, params, grads)
    return error(fast, one['x'][10:], one['y'][10:])

  def loss_fn(params, model_state, batch, rng):
    return metrics.mean(jax.vmap(adapted, (None, 0))(params, batch)), (model_state, {})

  def init(key):
    params = model.init(key, jnp.zeros((1, 1)), train=False)['params']
    return create(params, tx.init(params), key)

  def train_step(state, batch):
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    return steps.apply(tx, state, grads), sums

  def test(state, batch):
    tasks = {k: batch[k] for k in ('x', 'y')}
    loss_B = jax.vmap(adapted, (None, 0))(state.params, tasks)
    return {'loss': metrics.mean(loss_B, batch['weight'])}

  train = generated(task, config.batch_size, config.seed)
  held = generated(task, config.eval_batch_size, config.seed + 1, size=256)
  learnt = experiment.Overfit(above=3.0)
  evals = {'test': experiment.Eval(test, held)}
  return experiment.Experiment(init, train_step, train, evals, overfit=learnt)
