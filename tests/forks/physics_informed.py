"""Physics-informed net: -u'' = pi^2 sin(pi x), u(0) = u(1) = 0 (arXiv:1711.10561).

No data: points of the interval are drawn at each step. The solution is sin(pi x).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.generated import fixed, generated
from dlx.models.mlp import MLP
from dlx.state import create
from dlx.train import steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 500  # Optimiser steps of the whole run.
  lr: float = 5e-3  # Peak of the one-cycle learning rate.


SMALL = Config.small()


def build(config: Config) -> experiment.Experiment:
  pi = jnp.pi
  model = MLP(widths=(32, 32), num_outputs=1, activation=nn.tanh, **config.dtypes)
  tx = optim.clip(
    optim.adam(optim.one_cycle(config.lr, config.num_steps)), **config.clipping
  )
  points = generated(
    lambda key: {'x': jax.random.uniform(key)}, config.batch_size, config.seed
  )
  grid = fixed({'x': jnp.linspace(0, 1, 101)}, weight=True)

  def u(params, x):  # x (1 - x) holds the boundary values.
    return (
      x * (1 - x) * model.apply({'params': params}, x.reshape(1, 1), train=False)[0, 0]
    )

  def loss_fn(params, model_state, batch, rng):
    of_x = lambda x: jax.grad(jax.grad(u, 1), 1)(params, x) + pi**2 * jnp.sin(pi * x)
    return metrics.mean(jax.vmap(of_x)(batch['x']) ** 2), (model_state, {})

  def init(key):
    params = model.init(key, jnp.zeros((1, 1)), train=False)['params']
    return create(params, tx.init(params), key)

  def train_step(state, batch):
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    return steps.apply(tx, state, grads), sums

  def error(state, batch):
    off_B = jax.vmap(lambda x: u(state.params, x) - jnp.sin(pi * x))(batch['x'])
    return {'squared_error': metrics.mean(off_B**2, batch['weight'])}

  learnt = experiment.Overfit(above=0.5)
  evals = {'test': experiment.Eval(error, grid)}
  return experiment.Experiment(init, train_step, points, evals, overfit=learnt)
