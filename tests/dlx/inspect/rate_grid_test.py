"""The suggestion of the range test against the best rate of a grid of real runs."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.config import traced
from dlx.inspect import rate_finder, subject
from dlx.run import experiments_by_name

GRID = np.geomspace(1e-5, 1, 11)
TASKS = {'cnn': {}, 'char_gpt': {'num_layers': 2, 'width': 64, 'unroll': 2}, 'vae': {}}


def losses_of_grid(asked: subject.Subject) -> list[float]:
  """The evaluated loss at the end of a real run at each rate of the grid."""
  build, config = asked.build, dataclasses.replace(asked.config, curves=False)
  name = next(iter(asked.experiment.evals))
  batches = list(asked.batches(stop=config.num_steps))

  @jax.jit
  def step(state, batch, lr):
    return build(traced(config, lr=lr)).train_step(state, batch)[0]

  found = []
  for lr in GRID:
    state = asked.init()
    for batch in batches:
      state = step(state, batch, jnp.float32(lr))
    loss = asked.evaluate(state, name)['loss']
    found.append(loss if np.isfinite(loss) else np.inf)
  return found


@pytest.mark.slow
@pytest.mark.usefixtures('optimised')
@pytest.mark.parametrize('name', TASKS)
def test_the_suggestion_is_within_a_decade_of_the_best_of_a_grid(name):
  module = importlib.import_module(experiments_by_name.module_name(name))
  config = module.Config(num_steps=200, curves=True, **TASKS[name]).resolved()
  asked = subject.Subject(module.build, config)
  suggested = rate_finder.suggested(rate_finder.range_test(asked))
  losses = losses_of_grid(asked)
  best = float(GRID[int(np.argmin(losses))])
  told = ', '.join(f'{r:.0e}: {x:.3g}' for r, x in zip(GRID, losses, strict=True))
  print(f'{name}: suggested {suggested or 0:.1e}, best {best:.1e} of {told}')
  assert suggested is not None and best / 10 <= suggested <= best * 10
