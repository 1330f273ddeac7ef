"""A whole run with `--config.curves`: lines of means, and their declarations."""

import json

import numpy as np
import pytest

from dlx import optim
from dlx.run.loop import fit
from tests.dlx.train import supervised_test


@pytest.mark.parametrize('steps_per_dispatch', [1, 4])
def test_lines_are_means_over_the_steps_of_their_window(tmp_path, steps_per_dispatch):
  config, experiment = supervised_test.make(
    optim.sgd(lambda count: 0.1 * (1 + count)),
    curves=True,
    num_steps=6,
    log_every_steps=3,
    steps_per_dispatch=steps_per_dispatch,
    micro_batches=2,
  )
  fit(experiment, config, tmp_path, terminal=False)
  lines = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  train = [line['metrics'] for line in lines if line['split'] == 'train']
  # 0.1, 0.2, 0.3; then 0.4, 0.5, 0.6.
  rates = [line['learning_rate'] for line in train]
  np.testing.assert_allclose(rates, [0.2, 0.5], rtol=1e-6)
  assert all(0 < line['update_ratio'] < 1 for line in train)
  assert all(0 < line['gradient_norm'] < 100 for line in train)
  known = json.loads((tmp_path / 'config.json').read_text())['metrics']
  assert known['gradient_norm']['group'] == 'gradient norm'
  assert {'learning_rate', 'update_ratio', 'loss'} <= set(known)
