"""Every experiment learns one batch that is repeated, or says why it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.run.dispatch import get_batch
from dlx.state import ratios
from tests.every_experiment import tiers
from tests.every_experiment.small import load, own


@pytest.mark.usefixtures('optimised')  # 300 steps: running costs more than compiling.
@pytest.mark.parametrize('name', tiers.expensive())
def test_one_repeated_batch_is_learnt(name):
  # Not SMALL: what is asked is whether its own net learns.
  config = own(name, num_steps=300)
  built = load(name).build(config)
  if built.overfit is None:
    pytest.skip('says why in its docstring')
  metric, floor = built.overfit
  data = jax.tree.map(jnp.asarray, built.train_data.load().data)
  batch = get_batch(built.train_data, data, jnp.int32(0), built.train_data.shape_id(0))
  step = jax.jit(built.train_step, donate_argnums=0)
  state, least = built.init(jax.random.key(config.seed)), np.inf
  for _ in range(config.num_steps):
    state, sums = step(state, batch)
    value = float(np.mean(ratios(sums)[metric]))
    least = min(least, value if np.isfinite(value) else np.inf)
    if least <= floor:
      break
  assert least <= floor
