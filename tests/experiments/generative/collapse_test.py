"""A run that collapses is flagged by `duplicates`, and one that does not is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics
from dlx.tasks.judge import Judge
from experiments.generative import gan
from tests import turns

SAMPLES = 360


def diversity(num_steps=1000, **fields):
  """Of the samples of a small GAN on digits after its training."""
  sizes = {'generator_features': (64,), 'discriminator_features': (64,)}
  config = gan.Config(
    num_steps=num_steps,
    noise=16,
    ema_decay=None,
    judge=Judge.Config(num_steps=0, features=(4,), dense=8),
    **{**sizes, **fields},
  )
  built = gan.build(config)
  data = jax.tree.map(jnp.asarray, built.train_data.load().data)

  @jax.jit
  def step(state, data):
    return built.train_step(state, built.train_data.get(data, state.step))[0]

  state = built.init(jax.random.key(0))
  for _ in range(num_steps):
    state = step(state, data)
  seeds = jnp.arange(SAMPLES, dtype=jnp.uint32)
  fake = built.functions['sample'].call(state, {'seed': seeds})['image']
  test = built.evals['samples'].data.load().data['image'][:SAMPLES]
  rows = lambda image: jnp.asarray(image, jnp.float32).reshape(SAMPLES, -1)
  found = metrics.diversity(rows(fake), rows(np.asarray(test) / 16), SAMPLES)
  return {name: float(x) for name, x in found.items()}


@pytest.mark.usefixtures('optimised')  # Hundreds of steps.
@turns.seldom(1)
def test_a_run_that_collapsed_is_flagged():
  # A discriminator of one hidden unit cannot ask for more than one image: 98 % of the
  # samples are duplicates, of the other run none (jax 0.11.2, CPU, 2026-11-30).
  collapsed = diversity(discriminator_features=(1,), dropout=0.0, lr=5e-3)
  assert collapsed['duplicates'] > 0.5, collapsed
  assert collapsed['nearest'] < 0.5 * collapsed['nearest_real'], collapsed
  healthy = diversity()
  assert healthy['duplicates'] < 0.1, healthy
