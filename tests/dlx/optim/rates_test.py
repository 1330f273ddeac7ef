"""The table of default rates: defaults of experiments lie where it says."""

import dataclasses
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.run import experiments_by_name
from tests.every_experiment.small import load

# Whose default lies elsewhere, and why.
ELSEWHERE = {
  'cifar_speedrun': 'its unit is 1024 images, times 1 + 1 / (1 - momentum)',
  'curve': 'its hidden weights begin six times as large as usual',
  'linear_probe': 'its layer alone is trained, on features of deviation 1',
}


def of_source(name):
  """Optimisers that the file of an experiment names, or its field by default."""
  if name == 'classical':
    return {'adam'}  # scikit-learn's own.
  module = load(name)
  text = pathlib.Path(module.__file__).read_text(encoding='utf-8')
  found = set(re.findall(rf'optim\.({"|".join(optim.OPTIMIZERS)})\(', text))
  if 'optim.named_optimizer(' in text:
    found.add(module.Config().optimizer)
  return found


def rated():
  """Experiments with a default rate, and the optimisers of their files."""
  for name in experiments_by_name.names():
    module = load(name)
    fields = {f.name: f.default for f in dataclasses.fields(module.Config)}
    if hasattr(module, 'build') and isinstance(fields.get('lr'), float):
      yield name, fields['lr'], of_source(name)


def test_table_and_builders_have_the_same_names():
  assert sorted(optim.RATES) == sorted(optim.OPTIMIZERS)


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [('sgd', [-1, -1]), ('momentum', [-1, -1.9]), ('nesterov', [-1.9, -2.71])],
)
def test_momentum_of_a_name_is_nine_tenths(name, wanted):
  tx, params = optim.named_optimizer(name, 1.0), {'bias': jnp.zeros(1)}
  state, moves = tx.init(params), []
  for _ in wanted:  # A gradient of 1 each.
    move, state = tx.update({'bias': jnp.ones(1)}, state, params)
    moves.append(float(move['bias'][0]))
  np.testing.assert_allclose(moves, wanted, rtol=1e-6)


@pytest.mark.parametrize(('name', 'lr', 'optimizers'), list(rated()))
def test_defaults_of_experiments_agree_with_the_table(name, lr, optimizers):
  assert optimizers, f'{name} names no optimiser of the table'
  inside = any(optim.RATES[o].low <= lr <= optim.RATES[o].high for o in optimizers)
  assert inside == (name not in ELSEWHERE), (lr, optimizers)
