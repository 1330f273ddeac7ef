"""Fields that an experiment names as SWEPT: runs in one program equal runs alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.config_json import field_types, without_none
from dlx.run import experiments_by_name
from dlx.train.members import member, together
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

NAMES = [name for name in experiments_by_name.names() if hasattr(load(name), 'SWEPT')]
# Each compiles its step twice: fast as restarts are, see tiers.py.
FAST = [
  p
  for p in tiers.every(expensive=True, newest=True, thirds=True)
  if p.values[0] in NAMES
]
STEPS = 3


def train(experiment, key):
  """(state, losses) after a few steps on its own batches."""
  arrays = experiment.train_data.load().data
  state = jax.jit(experiment.init)(key)

  @jax.jit
  def step(state):
    batch = experiment.train_data.get(arrays, state.step)
    return experiment.train_step(state, batch)

  losses = []
  for _ in range(STEPS):
    state, metrics = step(state)
    losses.append(metrics['loss'].total / metrics['loss'].count)
  return state, np.array(losses)


def test_some_name_fields():
  assert 'mlp' in NAMES


@pytest.mark.parametrize('name', FAST)
def test_runs_together_are_runs_alone(name):
  module, base = load(name), small(name)
  types = field_types(type(base))
  assert all(without_none(types[field])[0] is float for field in module.SWEPT)
  # A number that may be off is on in all of them, as in the runs of one program.
  off = {field: 0.05 for field in module.SWEPT if getattr(base, field) is None}
  base = dataclasses.replace(base, **off)
  # Each field changed in a run of its own, in numbers that no default has.
  value = lambda field: 0.7 * (getattr(base, field) or 0.05)
  configs = [dataclasses.replace(base, seed=1)] + [
    dataclasses.replace(base, seed=2 + i, **{field: value(field)})
    for i, field in enumerate(module.SWEPT)
  ]
  joint, losses = train(together(module.build, configs), jax.random.key(0))
  for i, config in enumerate(configs):
    one, wanted = train(module.build(config), jax.random.key(config.seed))
    # Roundings of a few steps, larger where Adam divides small numbers by small ones.
    np.testing.assert_allclose(losses[:, i], wanted, rtol=1e-4, atol=1e-6)
    own = member(joint, i)
    for a, b in zip(jax.tree.leaves(own.params), jax.tree.leaves(one.params)):
      assert float(jnp.abs(a - b).max()) <= 1e-3 * STEPS * max(
        1, float(jnp.abs(b).max())
      )
  # Every field has an effect: the runs differ.
  assert len({round(float(x), 6) for x in losses[-1]}) == len(configs)
