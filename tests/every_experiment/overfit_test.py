"""Every experiment learns one batch that is repeated, or says why it cannot."""

import jax
import pytest

from launch import checks
from tests.every_experiment import tiers
from tests.every_experiment.small import load, own

# Learnt in some 30 steps by a net that takes 9 s to compile and optimise, 2.5 without.
SOON = ('imagenet_convnext',)


@pytest.mark.usefixtures('optimised')  # 300 steps: running costs more than compiling.
@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True, thirds=True))
def test_one_repeated_batch_is_learnt(name):
  if name in SOON:
    jax.config.update('jax_disable_most_optimizations', True)
  # Not SMALL: what is asked is whether its own net learns.
  config = own(name, num_steps=300)
  if checks.overfitted(load(name).build, config) is None:
    pytest.skip(f'{load(name).build(config).overfit}')
