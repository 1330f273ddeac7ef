"""REINFORCE with a baseline in a corridor of seven places (Williams 1992).

An episode starts in the middle and has twelve moves; each at the right end gives 1,
each at the left 0.1. The environment is a part of the train step, which reads no data.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.generated import fixed
from dlx.state import create, streams
from dlx.train import steps

PLACES, MOVES = 7, 12
REWARD = jnp.zeros(PLACES).at[0].set(0.1).at[-1].set(1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  episodes: int = 32  # Episodes of one step.
  lr: float = 0.1  # Learning rate of Adam.


SMALL = Config.small()


def play(table_PA, key, episodes):
  """Log-probability and sum of rewards of each episode, [B] each."""

  def move(place_B, key):
    logits_BA = table_PA[place_B]
    action_B = jax.random.categorical(key, logits_BA)
    logp_BA = jax.nn.log_softmax(logits_BA)
    logp_B = jnp.take_along_axis(logp_BA, action_B[:, None], 1)[:, 0]
    place_B = jnp.clip(place_B + 2 * action_B - 1, 0, PLACES - 1)
    return place_B, (logp_B, REWARD[place_B])

  start_B = jnp.full(episodes, PLACES // 2)
  _, (logp_TB, reward_TB) = jax.lax.scan(move, start_B, jax.random.split(key, MOVES))
  return logp_TB.sum(0), reward_TB.sum(0)


def build(config: Config) -> experiment.Experiment:
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def loss_fn(params, model_state, batch, rng):
    logp_B, return_B = play(params, rng, config.episodes)
    loss_B = -logp_B * jax.lax.stop_gradient(return_B - return_B.mean())
    return metrics.mean(loss_B), (model_state, {'return': metrics.mean(return_B)})

  def init(key):
    params = jnp.zeros((PLACES, 2))
    return create(params, tx.init(params), key)

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, rng)
    return steps.apply(tx, state, grads), sums

  def test(state, batch):
    return_B = play(state.params, streams(state.rng, 'test')[0], 256)[1]
    return {'return': metrics.mean(return_B)}

  evals = {'test': experiment.Eval(test, fixed({}))}
  why = 'Episodes are played anew at every step.'
  return experiment.Experiment(init, train_step, fixed({}), evals, overfit=why)
