"""Tests for dlx/inspect/maps/attention.py: against what `vit` draws of itself."""

import jax
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.inspect.maps.attention import attention, weights
from dlx.inspect.maps.model import Model
from tests.dlx.inspect.maps import nets
from tests.every_experiment import contract_test


@pytest.mark.parametrize('pool', ['mean', 'token'])
def test_of_vit(pool):
  module = contract_test.load('vit')
  fields = {'width': 8, 'num_heads': 2, 'num_layers': 2, 'pool': pool}
  experiment = module.build(module.Config.small(**fields))
  state = jax.jit(experiment.init)(jax.random.key(0))
  model = Model(experiment.functions['predict'], state)
  rows = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype(np.uint8)
  looked = jax.jit(lambda s, x: (attention(model, s, x), weights(model, s, x)))
  found, weights_NBHTT = looked(state, model.unit(rows))
  np.testing.assert_allclose(weights_NBHTT.sum(-1), 1, rtol=1e-6)
  batch = {'image': rows, 'label': np.zeros(3, np.int32)}
  compute = experiment.figures['attention'].compute
  wanted = np.asarray(jax.jit(compute)(state, jax.random.key(0), batch)['maps'])
  # The last block's heads, then the rollout.
  np.testing.assert_allclose(found.heads_BNhw, wanted[:, :-1], rtol=2e-5, atol=1e-6)
  np.testing.assert_allclose(found.rollout_Bhw, wanted[:, -1], rtol=2e-5, atol=1e-6)
  assert np.ptp(wanted[:, -1]) > 1e-3


def test_a_net_without_attention():
  with pytest.raises(ConfigError, match='no attention that can be seen'):
    attention(nets.model(), nets.weights(), nets.images())
